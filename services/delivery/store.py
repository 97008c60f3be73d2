"""Events in PostgreSQL: a table in a schema of its own, in any database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from services.delivery.events import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = """
create schema if not exists delivery;
create table if not exists delivery.events (
    kind text not null,
    subject text not null,
    key text not null,
    at timestamptz not null,
    data jsonb not null,
    noted timestamptz not null default now(),
    primary key (kind, subject, key)
);
"""
GRANTS = """
do $$ begin
    if exists (select from pg_roles where rolname = 'monitor') then
        grant usage on schema delivery to monitor;
        grant select on delivery.events to monitor;
    end if;
end $$
"""
"""For the role of the platform's monitoring, which shows the figures."""
INSERT = "insert into delivery.events (kind, subject, key, at, data) values (%s, %s, %s, %s, %s) on conflict do nothing"
LOCK = 4733  # `if not exists` alone does not protect two first imports from each other


class StoreError(Exception):
    """PostgreSQL is unavailable, or refuses."""


class Store:
    """The stored events; a context manager. Stored events never change: a second import has no effect.

    Raises:
        StoreError: PostgreSQL is unavailable, or refuses; from every method.
    """

    def __init__(self, address: str) -> None:
        """`address`: a connection string of libpq."""
        _check(address)
        try:
            self._connection = psycopg.connect(address, connect_timeout=10)
            with self._connection.transaction():
                self._connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
                self._connection.execute(TABLE)
                self._connection.execute(GRANTS)
            self._connection.execute("set time zone 'UTC'")
            self._connection.commit()
        except psycopg.Error as error:
            raise _store_error(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, events: Iterable[Event]) -> int:
        """Insert events, all or none; returns how many were new."""
        rows = [(event.kind, event.subject, event.key, event.at, Jsonb(event.data)) for event in events]
        if not rows:
            return 0
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(INSERT, rows)
                return max(cursor.rowcount, 0)
        except psycopg.Error as error:
            raise _store_error(error) from None

    def events(self) -> list[Event]:
        """All events, the earliest first."""
        try:
            with self._connection.transaction():
                rows: list[tuple[Any, ...]] = self._connection.execute(
                    "select kind, subject, key, at, data from delivery.events order by at, kind, subject, key"
                ).fetchall()
        except psycopg.Error as error:
            raise _store_error(error) from None
        return [Event(*row) for row in rows]


def _check(address: str) -> None:
    """Refuse what libpq would: its message repeats the address, which may contain a password."""
    try:
        port = str(conninfo_to_dict(address).get("port") or "5432")
    except psycopg.Error:
        port = ""
    if not port.isdecimal():
        raise StoreError(
            "its address cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for @, %2F for /"
            " and %25 for % in the password"
        )


def _store_error(error: psycopg.Error) -> StoreError:
    return StoreError(" ".join(str(error).split()) or type(error).__name__)
