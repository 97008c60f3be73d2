"""Events in PostgreSQL: a table of a schema of its own, in whatever database is given."""

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
SHOWN = """
do $$ begin
    if exists (select from pg_roles where rolname = 'monitor') then
        grant usage on schema delivery to monitor;
        grant select on delivery.events to monitor;
    end if;
end $$
"""
"""To the role of the platform's monitoring, which shows the figures."""
INSERT = "insert into delivery.events (kind, subject, key, at, data) values (%s, %s, %s, %s, %s) on conflict do nothing"
LOCK = 4733  # two first imports at once: `if not exists` alone is no protection against each other


class StoreError(Exception):
    """PostgreSQL does not answer, or refuses."""


class Store:
    """The events that were noted; a context manager. What is there stays as it is: a second import changes nothing.

    Raises:
        StoreError: PostgreSQL does not answer, or refuses; of every method.
    """

    def __init__(self, address: str) -> None:
        """`address`: of PostgreSQL, as libpq takes it."""
        _check(address)
        try:
            self._connection = psycopg.connect(address, connect_timeout=10)
            with self._connection.transaction():
                self._connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
                self._connection.execute(TABLE)
                self._connection.execute(SHOWN)
            self._connection.execute("set time zone 'UTC'")
            self._connection.commit()
        except psycopg.Error as error:
            raise _told(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, events: Iterable[Event]) -> int:
        """Note events; how many were not there yet. All of them, or none."""
        rows = [(event.kind, event.subject, event.key, event.at, Jsonb(event.data)) for event in events]
        if not rows:
            return 0
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(INSERT, rows)
                return max(cursor.rowcount, 0)
        except psycopg.Error as error:
            raise _told(error) from None

    def events(self) -> list[Event]:
        """All of them, the earliest first."""
        try:
            with self._connection.transaction():
                rows: list[tuple[Any, ...]] = self._connection.execute(
                    "select kind, subject, key, at, data from delivery.events order by at, kind, subject, key"
                ).fetchall()
        except psycopg.Error as error:
            raise _told(error) from None
        return [Event(*row) for row in rows]


def _check(address: str) -> None:
    """Refuse what libpq would: it repeats what it cannot read, and a password may be in that."""
    try:
        port = str(conninfo_to_dict(address).get("port") or "5432")
    except psycopg.Error:
        port = ""
    if not port.isdecimal():
        raise StoreError(
            "its address cannot be read; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for @, %2F for /"
            " and %25 for % in the password"
        )


def _told(error: psycopg.Error) -> StoreError:
    return StoreError(" ".join(str(error).split()) or type(error).__name__)
