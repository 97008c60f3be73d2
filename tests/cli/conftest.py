"""Fixtures of the command's tests."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cli.harness import Lab

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A project without stacks."""
    lab = Lab(tmp_path)
    lab.write()
    return lab


@pytest.fixture(scope="session")
def _with_stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making a stack derives a key, which takes a second: once is enough."""
    folder = tmp_path_factory.mktemp("template")
    lab = Lab(folder)
    lab.write()
    lab.run("stack", "init", "dev")
    return folder


@pytest.fixture
def dev(tmp_path: Path, _with_stack: Path) -> Lab:
    """A project with an empty stack `dev`, which is not selected."""
    for part in ("project", "home", "backend"):
        shutil.copytree(_with_stack / part, tmp_path / part)
    return Lab(tmp_path)
