"""The image `features`, with a role and a database of its own in a real PostgreSQL, and a real object store."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from tests.images.decided import decided, stack
from tests.images.services import PASSWORD, ROOT, images, runtime, start_object_store, start_postgres, store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bundle.store import Store
    from tests.images.containers import Container, Runtime
    from tests.images.services import Images, ObjectStore, Postgres

__all__ = ["decided", "images", "runtime", "stack", "store"]
DATABASE = ROOT / "k8s/platform/features/base/database.sql"
numbers = count()


@dataclass
class Features:
    """What the program needs around it."""

    runtime: Runtime
    images: Images
    postgres: Postgres
    objects: ObjectStore

    @property
    def environment(self) -> dict[str, str]:
        """As the manifests have it."""
        return {
            **self.objects.environment, "DATABASE": f"127.0.0.1:{self.postgres.port}/features",
            "DATABASE_PASSWORD": PASSWORD,
        }  # fmt: skip

    def start(
        self,
        *arguments: str,
        entrypoint: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        read_only: dict[Path, str] | None = None,
    ) -> Container:
        """Start its image."""
        return self.runtime.start(
            self.images["features"], f"features-{next(numbers)}", list(arguments), entrypoint=entrypoint,
            environment={**self.environment, **(environment or {})}, read_only=read_only,
        )  # fmt: skip

    def run(self, *arguments: str, **more: Any) -> tuple[int, str]:
        """Run a command to its end: its exit status, and what it printed."""
        container = self.start(*arguments, **more)
        return container.wait(), container.output


def around(runtime: Runtime, images: Images, store: Store, postgres: Postgres, objects: ObjectStore) -> Features:
    """The image, with what the pod's first container makes: role and database, twice, as at each start."""
    lab = [sys.executable, "-c", "from cli.app import main; main()"]
    build = [*lab, "bundle", "build", "--bundle", str(store.root), "--only", "features"]
    subprocess.run(build, cwd=ROOT, check=True)
    for _ in range(2):
        command = ("psql", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "mlflow", "-v", "ON_ERROR_STOP=1", "-q")
        (postgres.container.folder / "tmp/database.sql").write_bytes(DATABASE.read_bytes())
        done = postgres.container.run(
            *command, "-f", "/tmp/database.sql", "postgres",  # noqa: S108 - the container's
            environment={"PGPASSWORD": PASSWORD, "FEATURES_PASSWORD": PASSWORD},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    os.chmod(postgres.container.folder, 0o755)  # noqa: S103, PTH101 - others' containers run as another user
    return Features(runtime, images, postgres, objects)


@pytest.fixture(scope="module")
def features(runtime: Runtime, images: Images, store: Store) -> Features:
    """With empty stores."""
    return around(runtime, images, store, start_postgres(runtime, images), start_object_store(runtime, images))
