"""Metrics of the metadata store, with the names of postgres_exporter."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pg8000.dbapi

from state_exporter.exposition import Sample
from state_exporter.sources import SECONDS_TO_ANSWER, SourceError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

SETTINGS = "SELECT setting::float8 FROM pg_settings WHERE name = 'max_connections'"
SIZES = """
SELECT datname, pg_database_size(datname) FROM pg_database
WHERE NOT datistemplate AND has_database_privilege(datname, 'connect')
"""
ACTIVITY = "SELECT coalesce(datname, ''), coalesce(state, ''), count(*) FROM pg_stat_activity GROUP BY 1, 2"
COUNTERS = (
    "xact_commit",
    "xact_rollback",
    "deadlocks",
    "blks_read",
    "blks_hit",
    "tup_inserted",
    "tup_updated",
    "temp_bytes",
)


@dataclass(frozen=True)
class Database:
    """PostgreSQL, as a client."""

    host: str
    port: int
    name: str
    username: str
    password: str
    tls: ssl.SSLContext | None = None

    def samples(self) -> Iterator[Sample]:
        """Sizes, connections and counters.

        Raises:
            SourceError: PostgreSQL does not answer.
        """
        with self.connected() as connection:
            yield from self._samples(connection)

    @contextmanager
    def connected(self) -> Iterator[pg8000.dbapi.Connection]:
        """A connection, closed at the end.

        Raises:
            SourceError: PostgreSQL does not answer, or refuses a query.
        """
        try:
            connection = pg8000.dbapi.connect(
                user=self.username, password=self.password, host=self.host, port=self.port, database=self.name,
                timeout=SECONDS_TO_ANSWER, ssl_context=self.tls, application_name="state-exporter",
            )  # fmt: skip
            try:
                yield connection
            finally:
                connection.close()
        except (OSError, pg8000.dbapi.Error) as error:
            raise SourceError(f"{self.host}:{self.port}: {error}") from error

    def _samples(self, connection: pg8000.dbapi.Connection) -> Iterator[Sample]:
        cursor = connection.cursor()
        cursor.execute(SETTINGS)
        yield Sample("pg_settings_max_connections", cursor.fetchone()[0])
        cursor.execute(SIZES)
        for name, size in cursor.fetchall():
            yield Sample("pg_database_size_bytes", size, {"datname": name})
        cursor.execute(ACTIVITY)
        for name, state, count in cursor.fetchall():
            yield Sample("pg_stat_activity_count", count, {"datname": name, "state": state})
        cursor.execute(f"SELECT datname, {', '.join(COUNTERS)} FROM pg_stat_database WHERE datname IS NOT NULL")  # noqa: S608
        for name, *values in cursor.fetchall():
            for counter, value in zip(COUNTERS, values, strict=True):
                yield Sample(f"pg_stat_database_{counter}", value, {"datname": name}, "counter")
