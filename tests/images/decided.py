"""MLflow as the platform runs it, with its users and its plugins, and the promotion service; all from the images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from infra.manifests import TREE
from tests.images.promotion import CALLERS, World
from tests.images.services import PASSWORD, Stack, Tracking, answers, free_port, start_object_store, start_postgres

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.images.containers import Container, Runtime
    from tests.images.services import Images, ObjectStore, Postgres

TRACKING = TREE / "platform/tracking/base"
DIST_INFO = "platform_plugins-1.0.dist-info"
PYTHON = ("/usr/bin/python3",)


@dataclass
class Decided:
    """A registry that only the service changes."""

    stack: Stack
    promotion: Container
    world: World

    @property
    def tracking(self) -> Container:
        """MLflow's server."""
        return self.stack.tracking.container

    def restart_tracking(self) -> None:
        """Start MLflow's server again, if it does not run, and wait for it."""
        if self.tracking.process is None:
            self.tracking.start()
        self.tracking.until(lambda: answers(f"{self.world.tracking}/health"))

    def restart(self) -> None:
        """Start the service again."""
        self.promotion.stop()
        self.promotion.start()
        self.promotion.until(lambda: answers(f"{self.world.promotion}/readyz"))


@dataclass(frozen=True)
class Mlflow:
    """Its image, with all that the platform's server has."""

    runtime: Runtime
    images: Images
    postgres: Postgres
    objects: ObjectStore

    def start(self, name: str, arguments: list[str], entrypoint: Sequence[str] | None = None) -> Container:
        """Run something in it."""
        plugin = TRACKING / "plugin"
        mounted = {path: f"/opt/plugin/{path.name}" for path in plugin.glob("*.py")}
        mounted |= {plugin / file: f"/opt/plugin/{DIST_INFO}/{file}" for file in ("entry_points.txt", "METADATA")}
        return self.runtime.start(
            self.images["mlflow"], name, arguments, entrypoint=entrypoint,
            environment={
                **self.objects.environment, "PYTHONPATH": "/opt/plugin",
                "MLFLOW_BACKEND_STORE_URI":
                    f"postgresql+psycopg://mlflow:{PASSWORD}@127.0.0.1:{self.postgres.port}/mlflow",
                "MLFLOW_S3_ENDPOINT_URL": self.objects.url, "MLFLOW_AUTH_CONFIG_PATH": "/run/mlflow/auth.ini",
                "MLFLOW_FLASK_SERVER_SECRET_KEY": PASSWORD, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
                "MLFLOW_AUTH_ADMIN_PASSWORD": CALLERS["admin"],
                **{f"{name}-password": password for name, password in CALLERS.items()},
            },
            mounts={self.runtime.work / "mlflow": "/run/mlflow"},
            read_only={TRACKING / "setup.py": "/opt/setup/setup.py", **mounted},
        )  # fmt: skip


def _callers(runtime: Runtime, uid: int) -> Path:
    """The Secret of MLflow's users, as a pod has it."""
    folder = runtime.work / "callers"
    folder.mkdir()
    for name, password in CALLERS.items():
        (folder / f"{name}-password").write_text(password)
    for path in (folder, *folder.iterdir()):
        os.chown(path, uid, uid)
    return folder


def _gates(runtime: Runtime) -> Path:
    """The gates of the models of the tree, in a folder that more can be added to."""
    folder = runtime.work / "gates"
    for path in TREE.glob("models/*/gate.yaml"):
        add_gate(runtime, path.parent.name, path.read_text())
    return folder


def add_gate(runtime: Runtime, model: str, text: str) -> None:
    """Give the promotion service a model's gate."""
    folder = runtime.work / "gates" / model
    folder.mkdir(parents=True)
    (folder / "gate.yaml").write_text(text)


@pytest.fixture(scope="module")
def decided(runtime: Runtime, images: Images) -> Decided:
    """All of it, with empty stores."""
    mlflow = Mlflow(runtime, images, start_postgres(runtime, images), start_object_store(runtime, images))
    done = mlflow.start("setup", ["/opt/setup/setup.py"], PYTHON)
    assert done.wait() == 0, done.output
    port, other = free_port(), free_port()
    url, address = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}"
    server = mlflow.start("mlflow", [
        "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", "--app-name=platform",
        "--serve-artifacts", "--artifacts-destination=s3://mlflow", f"--allowed-hosts=127.0.0.1:{port}",
        "--expose-prometheus=/tmp/metrics",
    ])  # fmt: skip
    server.until(lambda: answers(f"{url}/health"))
    image = images["promotion"]
    callers = _callers(runtime, int(image.config["User"].partition(":")[0]))
    promotion = runtime.start(
        image, "promotion",
        environment={
            "CALLERS": "/run/callers", "DATABASE": f"127.0.0.1:{mlflow.postgres.port}/mlflow",
            "DATABASE_USER": "mlflow", "DATABASE_PASSWORD": PASSWORD, "REGISTRY": url, "GATES": "/run/gates",
            "PORT": str(other),
        },
        read_only={callers: "/run/callers", _gates(runtime): "/run/gates"},
    )  # fmt: skip
    promotion.until(lambda: answers(f"{address}/readyz"))
    stack = Stack(runtime, images, mlflow.postgres, mlflow.objects, Tracking(server, url), address)
    return Decided(stack, promotion, World(url, address))


@pytest.fixture(scope="module")
def stack(decided: Decided) -> Stack:
    """What a model needs around it."""
    return decided.stack
