"""The nightly backup and the restore, as their manifests run them, on PostgreSQL and SeaweedFS.

`pytest -m slow_images tests/images/test_backup.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from infra.manifests import TREE
from tests.images.containers import Runtime, program
from tests.images.services import PASSWORD, Images, ObjectStore, Postgres, start_object_store, start_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundle.store import Store

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(900)]
FOLDER = TREE / "platform" / "backup"
BUCKET, POINTER = "datasets", "digits/digits.csv.dvc"


@dataclass
class Stores:
    """Rows and files, and the volume that they are copied to."""

    runtime: Runtime
    images: Images
    rows: Postgres
    files: ObjectStore
    volume: Path
    """What pods have as /backup."""
    numbers: count[int] = field(default_factory=count)
    second: dict[str, str] = field(default_factory=dict)
    """The second place, as the Secret names it."""

    def run(self, file: str, kind: str, status: int = 0, **environment: str) -> str:
        """Run the containers of a Job one after the other, until one fails; what they printed."""
        (job,) = (one for one in yaml.safe_load_all((FOLDER / file).read_text()) if one["kind"] == kind)
        spec = job["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else job["spec"]
        pod, number = spec["template"]["spec"], next(self.numbers)
        scratch = self.runtime.work / f"scratch-{number}"
        printed = ""
        for container in [*pod["initContainers"], *pod["containers"]]:
            ended, output = self._run(container, f"{container['name']}-{number}", scratch, environment)
            printed += output
            if ended:
                break
        assert ended == status, printed
        return printed

    def _run(self, container: dict[str, Any], name: str, scratch: Path, given: dict[str, str]) -> tuple[int, str]:
        environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        environment |= {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.rows.port),
            "PGUSER": "mlflow",
            "PGPASSWORD": PASSWORD,
        }
        environment |= {**self.files.environment, "S3_ENDPOINT": self.files.url, "JOB": name, **self.second, **given}
        running = self.runtime.start(
            self.images[container["image"].removeprefix("localhost/")], name, container["args"],
            entrypoint=container["command"], environment=environment,
            mounts={self.volume: "/backup", scratch: "/tmp"},  # noqa: S108
            read_only={path: f"/opt/backup/{path.name}" for path in (FOLDER / "base").glob("*.py")},
        )  # fmt: skip
        return running.wait(120), running.output

    def nights(self) -> list[str]:
        """Names of what rows were dumped of, the oldest first."""
        return sorted(path.name.removeprefix("rows-").removesuffix(".dump") for path in self.volume.glob("rows-[0-9]*"))

    def night(self) -> str:
        """Back up; the night's name."""
        before = set(self.nights())
        self.run("base/backup.yaml", "CronJob")
        (name,) = set(self.nights()) - before
        return name

    def train(self, version: str) -> None:
        """What another version of the dataset comes to: a row, a file of it, a pointer that keeps its length."""
        self.rows.psql(f"INSERT INTO runs VALUES ('{version}')")  # noqa: S608
        self.files.client().put_object(Bucket="mlflow", Key=version, Body=version.encode())
        self.files.client().put_object(Bucket=BUCKET, Key=POINTER, Body=f"md5: {version}".encode())

    def state(self) -> tuple[list[str], list[str], str]:
        """Rows, files, pointer."""
        s3 = self.files.client()
        return (
            self.rows.psql("SELECT name FROM runs ORDER BY name").split(),
            [one["Key"] for one in s3.list_objects_v2(Bucket="mlflow").get("Contents", ())],
            s3.get_object(Bucket=BUCKET, Key=POINTER)["Body"].read().decode(),
        )


@pytest.fixture
def stores(store: Store, images: Images, tmp_path: Path) -> Iterator[Stores]:
    made = stores_of(Runtime(program(store, "runc"), tmp_path / "platform"), images)
    made.rows.psql("CREATE TABLE runs (name text)")
    yield made
    made.runtime.stop()


def stores_of(runtime: Runtime, images: Images) -> Stores:
    """New, empty stores, and an empty volume."""
    runtime.work.mkdir()
    rows, files = start_postgres(runtime, images), start_object_store(runtime, images)
    return Stores(runtime, images, rows, files, runtime.work / "backup")


@pytest.fixture
def elsewhere(store: Store, images: Images, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A store of another machine, as the Secret names it."""
    runtime = Runtime(program(store, "runc"), tmp_path / "elsewhere")
    found = start_object_store(runtime, images)
    yield {
        "COPY_ENDPOINT": found.url,
        "COPY_BUCKET": "backups",
        "COPY_PREFIX": "lab",
        "COPY_ACCESS_KEY": "tests",
        "COPY_SECRET_KEY": PASSWORD,
    }
    runtime.stop()


def test_each_night_is_restored_as_that_night_was(stores: Stores) -> None:
    seen: dict[str, tuple[list[str], list[str], str]] = {}
    for version in ("1111", "2222", "3333"):
        stores.train(version)
        seen[stores.night()] = stores.state()
    stores.train("4444")
    last = stores.state()
    first, second, third = seen
    result = stores.run("restore/restore.yaml", "Job", NIGHT=second)
    assert stores.state() == seen[second] == (["1111", "2222"], ["1111", "2222"], "md5: 2222")
    before = result.split("the current state is saved as ")[1].split()[0]
    for night in (first, third):
        stores.run("restore/restore.yaml", "Job", NIGHT=night)
        assert stores.state() == seen[night]
    # How it was before the first of them is there too.
    stores.run("restore/restore.yaml", "Job", NIGHT=before)
    assert stores.state() == last
    # Without a name it is the newest night, however often that is tried, and not what a restore has left.
    for _ in range(2):
        stores.run("restore/restore.yaml", "Job")
        assert stores.state() == seen[third]
    # Rows of a night whose files were never copied are no night to go back to.
    (stores.volume / "rows-20991231T000000Z.dump").write_bytes(b"half")
    stores.run("restore/restore.yaml", "Job")
    assert stores.state() == seen[third]
    result = stores.run("restore/restore.yaml", "Job", 1, NIGHT="20991231T000000Z")
    assert "There is no night 20991231T000000Z with rows and files. Nights:" in result
    assert third in result
    assert stores.state() == seen[third]


def test_a_new_empty_platform_gets_all_from_the_second_place_alone(
    stores: Stores, elsewhere: dict[str, str], store: Store, images: Images, tmp_path: Path
) -> None:
    stores.second = elsewhere
    seen: dict[str, tuple[list[str], list[str], str]] = {}
    for version in ("1111", "2222"):
        stores.train(version)
        seen[stores.night()] = stores.state()
    first, second = seen
    runtime = Runtime(program(store, "runc"), tmp_path / "new")
    try:
        new = stores_of(runtime, images)
        new.second = elsewhere
        assert new.nights() == []
        # Its buckets are not there yet either.
        for bucket in ("mlflow", "datasets", "code"):
            new.files.client().delete_bucket(Bucket=bucket)
        new.run("restore/restore.yaml", "Job")
        assert new.state() == seen[second]
        new.run("restore/restore.yaml", "Job", NIGHT=first)
        assert new.state() == seen[first]
        # It goes on from there, and its nights follow those of before.
        new.train("3333")
        new.night()
        new.run("restore/restore.yaml", "Job", NIGHT=second)
        assert new.state() == seen[second]
    finally:
        runtime.stop()


def test_nothing_is_restored_where_how_it_is_now_could_not_be_saved(stores: Stores) -> None:
    stores.train("1111")
    night = stores.night()
    stores.train("2222")
    now = stores.state()
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong"}
    stores.run("restore/restore.yaml", "Job", 1, NIGHT=night, **wrong)
    assert stores.state() == now


def test_a_job_that_tries_again_goes_on_with_its_night(stores: Stores) -> None:
    stores.train("1111")
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong"}
    stores.run("base/backup.yaml", "CronJob", 1, JOB="backup-1", **wrong)
    stores.run("base/backup.yaml", "CronJob", 1, JOB="backup-1", **wrong)
    assert len(stores.nights()) == 1
    stores.run("base/backup.yaml", "CronJob", JOB="backup-1")
    (night,) = stores.nights()
    stores.train("2222")
    stores.run("restore/restore.yaml", "Job", NIGHT=night)
    assert stores.state()[0] == ["1111"]
