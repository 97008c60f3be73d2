"""Before each start of the tracking server: creates buckets, migrates tables, and sets users' passwords."""

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
TIMEOUT_SECONDS = 300
URI = os.environ["MLFLOW_BACKEND_STORE_URI"]
# <user>-password in the Secret tracking-users. Administrators may do everything; others read, and do what is granted.
SUFFIX = "-password"
ADMINISTRATORS = ("admin", "promotion")


def retry(what: str, attempt: Callable[[], Any]) -> Any:
    """Retry `attempt` until it returns, and return its result."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return attempt()
        except Exception as error:  # drivers raise errors of any type
            if time.monotonic() > end:
                raise
            print(f"waiting for {what}: {type(error).__name__}", flush=True)
            time.sleep(2)


def buckets() -> None:
    """Create missing buckets."""
    s3 = boto3.client(
        "s3",
        endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"],
        config=Config(connect_timeout=5, retries={"max_attempts": 0}),
    )
    existing = {bucket["Name"] for bucket in retry("the object store", s3.list_buckets)["Buckets"]}
    for name in BUCKETS:
        if name not in existing:
            s3.create_bucket(Bucket=name)


def tables() -> None:
    """Migrate existing tables to this version; the server creates missing ones."""
    engine = sqlalchemy.create_engine(URI)
    if retry("the database", lambda: sqlalchemy.inspect(engine).has_table("alembic_version")):
        subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", URI], check=True)


def users() -> None:
    """Create each user, or update its password from the Secret."""
    configuration = Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
    configuration.touch(0o600)
    configuration.write_text(
        # In an ini file, % starts a reference. To check a password takes tens of milliseconds: cache it for a minute.
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {URI.replace('%', '%%')}\nauth_cache_ttl_seconds = 60\n",
        encoding="utf-8",
    )
    # It reads its configuration on import.
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
    """Create the role `monitor`, which may read statistics but no rows; does nothing without a password."""
    if not (password := os.environ.get("MONITOR_ROLE")):
        return
    with sqlalchemy.create_engine(URI).begin() as connection:
        count = sqlalchemy.text("SELECT count(*) FROM pg_roles WHERE rolname = 'monitor'")
        verb = "ALTER" if connection.execute(count).scalar() else "CREATE"
        quoted = sqlalchemy.String().literal_processor(dialect=connection.dialect)(password)
        # The statement cannot have parameters.
        connection.exec_driver_sql(f"{verb} ROLE monitor LOGIN CONNECTION LIMIT 3 PASSWORD {quoted}".replace("%", "%%"))
        connection.exec_driver_sql("GRANT pg_monitor TO monitor")


if __name__ == "__main__":
    buckets()
    tables()
    users()
    monitor()
