"""Fixtures of the engine's conformance tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import Stack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack freshly initialized: deriving the key of its passphrase takes a second, once is enough."""
    folder = tmp_path_factory.mktemp("template")
    stack = Stack(folder)
    stack.project_file()
    stack.program("")
    stack.init()
    return folder


@pytest.fixture
def stack(tmp_path: Path, initialized: Path) -> Stack:
    """An empty stack `dev` of the project `conformance`, with a testbed world of its own."""
    return Stack(tmp_path, initialized)
