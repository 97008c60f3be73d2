"""Fixtures of the delivery figures' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.services.delivery.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A PostgreSQL."""
    with postgres() as address:
        yield address


@pytest.fixture
def address(server: str) -> Iterator[str]:
    """The same, with no events in it."""
    yield server
    with psycopg.connect(server) as connection:
        connection.execute("drop schema if exists delivery cascade")
