"""The forge in the box, started once for a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.forge.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with Box() as started:
        yield started
