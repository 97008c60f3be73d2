"""The platform's images, from a bundle, and a runtime to run them with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from bundle.cli import DEFAULT
from bundle.manifest import load
from bundle.store import Store
from tests.images.containers import Container, Image, Runtime, image, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ROOT = Path(__file__).parents[2]
PLATFORM = [name for name, family in load().families.items() if family.group == "platform"]
PASSWORD = "a-password-of-tests"  # noqa: S105
BUCKETS = ("datasets", "mlflow", "code", "backups")


@pytest.fixture(scope="session")
def store() -> Store:
    """A bundle with the platform's images: they are built where it lacks them."""
    found = Store(Path(os.environ.get("LAB_BUNDLE") or DEFAULT))
    only = [word for name in [*PLATFORM, "runc"] for word in ("--only", name)]
    lab = [sys.executable, "-c", "from cli.app import main; main()"]
    subprocess.run([*lab, "bundle", "build", "--bundle", str(found.root), *only], cwd=ROOT, check=True)
    return found


@pytest.fixture(scope="session")
def images(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Images by name, unpacked when they are first asked for."""
    return Images(store, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def runtime(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Runs containers; what a module's tests started ends with them."""
    made = Runtime(program(store, "runc"), tmp_path_factory.mktemp("containers"))
    yield made
    made.stop()


@dataclass
class Images:
    """The trees of images."""

    store: Store
    folder: Path

    def __getitem__(self, name: str) -> Image:
        root = self.folder / name
        config = self.folder / f"{name}.json"
        if not config.exists():
            config.write_text(json.dumps(image(self.store, name, root).config))
        return Image(root, json.loads(config.read_text()))


def free_port() -> int:
    """A port of loopback that nothing listens on, with the one 10,000 above free too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 10000))
            except (OSError, OverflowError):
                continue
            return int(port)


def answers(url: str) -> bool:
    """Whether an HTTP server says 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Postgres:
    """A database server in a container."""

    container: Container
    port: int

    def psql(self, statement: str, database: str = "mlflow", password: str = PASSWORD) -> str:
        """What a statement gives."""
        done = self.container.run(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "-v", "ON_ERROR_STOP=1", "-At", "-c",
            statement, database, environment={"PGPASSWORD": password},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        return self.container.run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port)).returncode == 0


@dataclass
class ObjectStore:
    """A SeaweedFS in a container."""

    container: Container
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What clients are configured with."""
        return {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def client(self, secret: str = PASSWORD) -> Any:
        """boto3's."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="tests",
            aws_secret_access_key=secret,
            region_name="us-east-1",
        )

    def is_ready(self) -> bool:
        """Whether it lists buckets."""
        try:
            self.client().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


@dataclass
class Tracking:
    """An MLflow server in a container."""

    container: Container
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What clients are configured with."""
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }


def start_postgres(runtime: Runtime, images: Images) -> Postgres:
    """PostgreSQL with a database `mlflow`."""
    port = free_port()
    (runtime.work / "password").write_text(PASSWORD)
    container = runtime.start(
        images["postgres"], "postgres", ["-c", f"port={port}", "-c", "shared_buffers=32MB"],
        environment={"POSTGRES_USER": "mlflow", "POSTGRES_PASSWORD_FILE": "/run/password"},
        mounts={runtime.work / "postgres-data": "/var/lib/postgresql"},
        read_only={runtime.work / "password": "/run/password"},
    )  # fmt: skip
    postgres = Postgres(container, port)
    container.until(postgres.is_ready)
    return postgres


def start_object_store(runtime: Runtime, images: Images) -> ObjectStore:
    """SeaweedFS with empty buckets."""
    ports = [free_port() for _ in range(4)]
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": "tests", "secretKey": PASSWORD}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (runtime.work / "s3.json").write_text(json.dumps({"identities": [identity]}))
    container = runtime.start(
        images["seaweedfs"], "seaweedfs",
        [
            "server", "-dir=/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64",
            "-volume.max=0", "-volume.preStopSeconds=1", "-s3", "-s3.config=/etc/seaweedfs/s3.json",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            *(f"-{part}port={port}" for part, port in zip(("master.", "volume.", "filer.", "s3."), ports, strict=True)),
        ],
        mounts={runtime.work / "seaweedfs-data": "/data"},
        read_only={runtime.work / "s3.json": "/etc/seaweedfs/s3.json"},
    )  # fmt: skip
    found = ObjectStore(container, f"http://127.0.0.1:{ports[3]}")
    container.until(found.is_ready)
    for bucket in BUCKETS:
        found.client().create_bucket(Bucket=bucket)
    return found


def start_tracking(runtime: Runtime, images: Images, postgres: Postgres, objects: ObjectStore) -> Tracking:
    """MLflow on both, with a password."""
    port = free_port()
    database = f"postgresql+psycopg://mlflow:{PASSWORD}@127.0.0.1:{postgres.port}/mlflow"
    (runtime.work / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {database}\nadmin_username = admin\n"
        f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    container = runtime.start(
        images["mlflow"], "mlflow",
        [
            "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", "--artifacts-destination=s3://mlflow",
            "--app-name=basic-auth", f"--allowed-hosts=127.0.0.1:{port}", "--expose-prometheus=/tmp/metrics",
        ],
        environment={
            **objects.environment, "MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_AUTH_CONFIG_PATH": "/run/auth.ini",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": PASSWORD, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        read_only={runtime.work / "auth.ini": "/run/auth.ini"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    container.until(lambda: answers(f"{url}/health"))
    return Tracking(container, url)


@dataclass
class Stack:
    """What a model needs around it."""

    runtime: Runtime
    images: Images
    postgres: Postgres
    objects: ObjectStore
    tracking: Tracking
    promotion: str
    """Address of the promotion service."""

    @property
    def environment(self) -> dict[str, str]:
        """What clients of all are configured with."""
        return {
            **self.objects.environment, **self.tracking.environment, "GIT_PYTHON_REFRESH": "quiet",
            "PROMOTION_URL": self.promotion,
        }  # fmt: skip
