"""PostgreSQL's image: `pytest -m slow_images tests/images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.images.services import PASSWORD, Images, Postgres, start_postgres

if TYPE_CHECKING:
    from tests.images.containers import Runtime

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def postgres(runtime: Runtime, images: Images) -> Postgres:
    """A server."""
    return start_postgres(runtime, images)


def test_it_is_the_version_of_the_manifest_and_sorts_the_same_everywhere(postgres: Postgres) -> None:
    assert postgres.psql("SHOW server_version").startswith("18.6")
    assert postgres.psql("SELECT datcollate, datlocale FROM pg_database WHERE datname = 'mlflow'") == "C|C.UTF-8"


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(postgres: Postgres, password: str) -> None:
    with pytest.raises(RuntimeError, match=r"password authentication failed|no password supplied"):
        postgres.psql("SELECT 1", password=password)


def test_what_was_acknowledged_is_there_after_a_kill_and_after_a_stop(postgres: Postgres) -> None:
    postgres.psql("CREATE TABLE kept (number int)")
    for end in (postgres.container.kill, postgres.container.stop):
        postgres.psql("INSERT INTO kept SELECT count(*) FROM kept")
        end()
        postgres.container.start()
        postgres.container.until(postgres.is_ready)
    assert postgres.psql("SELECT string_agg(number::text, ',' ORDER BY number) FROM kept") == "0,1"


def test_a_first_start_without_a_password_is_refused(runtime: Runtime, images: Images) -> None:
    container = runtime.start(
        images["postgres"], "postgres-without", mounts={runtime.work / "without": "/var/lib/postgresql"}
    )
    assert container.wait() == 64
    assert "POSTGRES_PASSWORD_FILE must name a file" in container.output


def test_a_dump_can_be_restored(postgres: Postgres) -> None:
    login = {"PGPASSWORD": PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "mlflow"}
    postgres.psql("CREATE TABLE dumped AS SELECT generate_series(1, 1000) AS number")
    dump = postgres.container.run("pg_dump", "-Fc", "-f", "/tmp/dump", "mlflow", environment=login)  # noqa: S108
    assert dump.returncode == 0, dump.stderr
    postgres.psql("CREATE DATABASE restored")
    restore = postgres.container.run(
        "pg_restore", "--exit-on-error", "-d", "restored", "/tmp/dump", environment=login  # noqa: S108
    )  # fmt: skip
    assert restore.returncode == 0, restore.stderr
    assert postgres.psql("SELECT sum(number) FROM dumped", "restored") == "500500"
