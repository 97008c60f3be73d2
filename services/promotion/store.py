"""Verdicts, versions, stages and their history in PostgreSQL: a schema of its own, in whatever database is given."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from services.promotion.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from services.promotion.gates import Gate
    from services.promotion.verdicts import Evidence, Verdict

    Row = dict[str, Any]

LOCK = 4734  # one migration at a time
MIGRATIONS = (
    """
    create table promotion.gates (model text primary key);
    create table promotion.verdicts (
        id bigint generated always as identity primary key,
        model text not null,
        run text not null,
        model_id text not null,
        passed boolean not null,
        reasons jsonb not null,
        figures jsonb not null,
        gate jsonb not null,
        test text not null,
        correct text not null,
        caller text not null,
        at timestamptz not null default now()
    );
    create index on promotion.verdicts (model, run, id);
    create index on promotion.verdicts (model_id) where passed;
    create table promotion.versions (
        model text not null,
        version integer not null,
        run text not null,
        verdict bigint not null references promotion.verdicts,
        at timestamptz not null default now(),
        primary key (model, version)
    );
    create table promotion.stages (
        model text not null,
        stage text not null,
        version integer,
        former integer[] not null default '{}',
        since timestamptz not null default now(),
        primary key (model, stage)
    );
    create table promotion.moves (
        id bigint generated always as identity primary key,
        model text not null,
        stage text not null,
        did text not null,
        version integer not null,
        passed_over integer[] not null default '{}',
        incident text,
        caller text not null,
        at timestamptz not null,
        told boolean not null default false
    );
    create index on promotion.moves (model, id);
    create table promotion.imported (once boolean primary key check (once), at timestamptz not null default now());
    """,
    """
    create table promotion.git (
        model text primary key,
        revision text not null default '',
        said jsonb not null default '{}',
        at timestamptz not null default now()
    );
    alter table promotion.moves add column git jsonb;
    """,
)
"""Each is applied once, in this order; one that has been released never changes."""


class Store:
    """Connections to the database, one for each piece of work.

    Raises:
        UnavailableError: PostgreSQL does not answer, or refuses; of every method.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def migrate(self) -> None:
        """Make the tables, or bring them to this version."""
        with self.work() as work:
            work.connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
            work.connection.execute("create schema if not exists promotion")
            work.connection.execute("create table if not exists promotion.migrations (number integer primary key)")
            found = work.one("select coalesce(max(number), 0) as done from promotion.migrations")
            for number, statements in enumerate(MIGRATIONS[found["done"] :], found["done"] + 1):
                work.connection.execute(statements)
                work.connection.execute("insert into promotion.migrations values (%s)", (number,))

    @contextmanager
    def work(self) -> Iterator[Work]:
        """A transaction: all that is done in it, or nothing."""
        try:
            with psycopg.connect(self._address, connect_timeout=5, row_factory=dict_row) as connection:
                connection.execute("set local time zone 'UTC'")
                yield Work(connection)
        except psycopg.Error as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise UnavailableError(f"PostgreSQL does not answer: {told}", "try again; nothing was decided") from error


class Work:
    """What can be read and written in a transaction."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self.connection = connection

    def all(self, statement: str, *values: object) -> list[Row]:
        """The rows that a statement gives."""
        return self.connection.execute(statement, values).fetchall()

    def one(self, statement: str, *values: object) -> Row:
        """Its only row."""
        (row,) = self.all(statement, *values)
        return row

    def first(self, statement: str, *values: object) -> Row | None:
        """Its first row, if it gives one."""
        return self.connection.execute(statement, values).fetchone()

    def lock(self, model: str) -> None:
        """Keep others from changing a model until the end of the transaction."""
        self.connection.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK, model))

    # Gates, as MLflow's server reads them

    def note_gates(self, models: Iterable[str]) -> None:
        """Which models have one."""
        found = list(models)
        self.connection.execute("delete from promotion.gates where not model = any(%s)", (found,))
        self.connection.execute(
            "insert into promotion.gates select unnest(%s::text[]) on conflict do nothing", (found,)
        )

    # Verdicts

    def add_verdict(  # noqa: PLR0917
        self, model: str, model_id: str, gate: Gate, evidence: Evidence, verdict: Verdict, caller: str
    ) -> int:
        """Keep a verdict with all its figures; gives its number."""
        made = self.one(
            "insert into promotion.verdicts"
            " (model, run, model_id, passed, reasons, figures, gate, test, correct, caller)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning id",
            model, evidence.run, model_id, verdict.passed, Jsonb(verdict.reasons), Jsonb(verdict.figures),
            Jsonb(gate.model_dump()), evidence.test, evidence.right, caller,
        )  # fmt: skip
        return int(made["id"])

    def verdict_of_run(self, model: str, run: str) -> Row | None:
        """The last verdict about a run."""
        return self.first(
            "select * from promotion.verdicts where model = %s and run = %s order by id desc limit 1", model, run
        )

    def verdict_of_version(self, model: str, version: int) -> Row | None:
        """The last verdict about a version, on the rows of the verdict that it was registered by."""
        return self.first(
            "select verdicts.* from promotion.versions join promotion.verdicts using (model, run)"
            " where model = %s and version = %s order by verdicts.id desc limit 1",
            model, version,
        )  # fmt: skip

    # Versions

    def version(self, model: str, version: int) -> Row | None:
        """A version that was registered."""
        return self.first("select * from promotion.versions where model = %s and version = %s", model, version)

    def version_of_run(self, model: str, run: str) -> Row | None:
        """The newest version of a run."""
        return self.first(
            "select * from promotion.versions where model = %s and run = %s order by version desc limit 1", model, run
        )

    def newest(self, model: str) -> list[int]:
        """All versions that were registered, the newest first."""
        rows = self.all("select version from promotion.versions where model = %s order by version desc", model)
        return [int(row["version"]) for row in rows]

    def add_version(self, model: str, version: int, run: str, verdict: int) -> None:
        """Keep that a run was registered. A model that was deleted and made anew counts its versions from 1 again."""
        self.connection.execute(
            "insert into promotion.versions (model, version, run, verdict) values (%s, %s, %s, %s)"
            " on conflict (model, version) do update set run = excluded.run, verdict = excluded.verdict, at = now()",
            (model, version, run, verdict),
        )

    # Stages

    def stage(self, model: str, stage: str) -> Row:
        """What a stage serves, and served before, the oldest first."""
        return self.first("select * from promotion.stages where model = %s and stage = %s", model, stage) or {
            "model": model, "stage": stage, "version": None, "former": []
        }  # fmt: skip

    def stages(self, model: str) -> list[Row]:
        """All stages that ever served."""
        return self.all("select * from promotion.stages where model = %s order by stage", model)

    def set_stage(self, model: str, stage: str, version: int | None, former: list[int]) -> None:
        """What a stage is to serve from now on, and served before."""
        self.connection.execute(
            "insert into promotion.stages (model, stage, version, former) values (%s, %s, %s, %s)"
            " on conflict (model, stage) do update"
            " set version = excluded.version, former = excluded.former, since = now()",
            (model, stage, version, former),
        )

    # Git

    def git(self, model: str) -> Row:
        """The commit that was done last, and what it said of each stage: `version`, `ahead`."""
        return self.first("select * from promotion.git where model = %s", model) or {
            "model": model, "revision": "", "said": {}, "at": None
        }  # fmt: skip

    def set_git(self, model: str, revision: str, said: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep which commit was done, and what it said of each stage."""
        self.connection.execute(
            "insert into promotion.git (model, revision, said) values (%s, %s, %s) on conflict (model) do update"
            " set revision = excluded.revision, said = excluded.said, at = now()",
            (model, revision, Jsonb(said)),
        )

    # History

    def add_move(
        self, model: str, stage: str, did: str, version: int, *,
        caller: str, incident: str | None = None, passed_over: Iterable[int] = (), git: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Keep what was done to a stage: at a time of its own, to the second where that is one."""
        self.connection.execute(
            "insert into promotion.moves (model, stage, did, version, passed_over, incident, caller, git, at)"
            " select %s, %s, %s, %s, %s, %s, %s, %s,"
            " greatest(date_trunc('second', now()), max(at) + interval '1 millisecond')"
            " from promotion.moves where model = %s and stage = %s",
            (
                model, stage, did, version, list(passed_over), incident, caller, Jsonb(git) if git else None, model,
                stage,
            ),
        )  # fmt: skip

    def moves(self, model: str, stage: str | None, count: int) -> list[Row]:
        """What was done to the stages of a model, the last first."""
        return self.all(
            "select * from promotion.moves where model = %s and (%s::text is null or stage = %s)"
            " order by id desc limit %s",
            model, stage, stage, count,
        )  # fmt: skip

    def untold(self) -> list[Row]:
        """Moves that the registry was not told of yet."""
        return self.all("select * from promotion.moves where not told order by id for update skip locked")

    def told(self, move: int) -> None:
        """The registry was told of a move."""
        self.connection.execute("update promotion.moves set told = true where id = %s", (move,))

    def last_move(self) -> int:
        """The number of the last move, of any model."""
        return int(self.one("select coalesce(max(id), 0) as last from promotion.moves")["last"])
