"""Before each start of the tracking server: buckets, tables of this version, and users with the Secrets' passwords."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import sqlalchemy  # type: ignore[import-not-found]
from botocore.config import Config  # type: ignore[import-untyped]

BUCKETS = ("mlflow", "datasets", "code")
PATIENCE_SECONDS = 300
URI = os.environ["MLFLOW_BACKEND_STORE_URI"]
# <user>-password in the Secret tracking-users: these may do all, others what they are granted, and read.
SUFFIX = "-password"
ADMINISTRATORS = ("admin", "promotion")


def patiently(what: str, attempt: Callable[[], Any]) -> Any:
    """What `attempt` returns, tried until the stores answer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return attempt()
        except Exception as error:  # drivers raise what they like
            if time.monotonic() > end:
                raise
            print(f"waiting for {what}: {type(error).__name__}", flush=True)
            time.sleep(2)


def buckets() -> None:
    """Make the buckets that are not there."""
    s3 = boto3.client(
        "s3",
        endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"],
        config=Config(connect_timeout=5, retries={"max_attempts": 0}),
    )
    there = {bucket["Name"] for bucket in patiently("the object store", s3.list_buckets)["Buckets"]}
    for name in BUCKETS:
        if name not in there:
            s3.create_bucket(Bucket=name)


def tables() -> None:
    """Bring tables that are there to this version; the server makes them where there are none."""
    engine = sqlalchemy.create_engine(URI)
    if patiently("the database", lambda: sqlalchemy.inspect(engine).has_table("alembic_version")):
        subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", URI], check=True)


def users() -> None:
    """Make each user, or give it the password that its Secret has now."""
    configuration = Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
    configuration.touch(0o600)
    configuration.write_text(
        # In an ini file, % begins a reference. Comparing a password costs tens of milliseconds: once a minute will do.
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {URI.replace('%', '%%')}\nauth_cache_ttl_seconds = 60\n",
        encoding="utf-8",
    )
    # It reads its configuration as it is imported.
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

    store = SqlAlchemyStore()
    store.init_db(URI)
    for name, password in os.environ.items():
        if not name.endswith(SUFFIX):
            continue
        user = name.removesuffix(SUFFIX)
        if not store.has_user(user):
            store.create_user(user, password, is_admin=user in ADMINISTRATORS)
        elif not store.authenticate_user(user, password):
            store.update_user(user, password=password)


def monitor() -> None:
    """Let the role `monitor` in, which sees the database's figures and none of its rows; nothing without a password."""
    if not (password := os.environ.get("MONITOR_ROLE")):
        return
    with sqlalchemy.create_engine(URI).begin() as connection:
        ask = sqlalchemy.text("SELECT count(*) FROM pg_roles WHERE rolname = 'monitor'")
        verb = "ALTER" if connection.execute(ask).scalar() else "CREATE"
        quoted = sqlalchemy.String().literal_processor(dialect=connection.dialect)(password)
        # No parameters can stand in it.
        connection.exec_driver_sql(f"{verb} ROLE monitor LOGIN CONNECTION LIMIT 3 PASSWORD {quoted}".replace("%", "%%"))
        connection.exec_driver_sql("GRANT pg_monitor TO monitor")


if __name__ == "__main__":
    buckets()
    tables()
    users()
    monitor()
