"""The object store with the manifest's own options, and the nightly copies of its buckets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
import pytest
import yaml
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from infra.manifests import TREE
from tests.weed import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = TREE / "platform" / "backup" / "base" / "files.py"
KEYS = {"AWS_ACCESS_KEY_ID": "platform", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
NAMES = ("master", "volume", "filer", "s3")
OF_THE_POD = ("-dir", "-ip.bind", "-s3.port", "-s3.config", "-metricsPort", "-volume.minFreeSpace")
"""Options that say where the pod has what; the test has it elsewhere."""


def options() -> list[str]:
    """The manifest's options, but for those of its pod."""
    objects = yaml.safe_load_all((TREE / "platform" / "artifacts" / "base" / "store.yaml").read_text())
    (store,) = (one for one in objects if one["kind"] == "StatefulSet")
    args: list[str] = store["spec"]["template"]["spec"]["containers"][0]["args"]
    return [arg for arg in args if arg.split("=")[0] not in OF_THE_POD]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("store")
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}]
    identity = {"name": "platform", "credentials": credentials, "actions": ACTIONS}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name("weed"), *options(), f"-dir={folder}", "-ip.bind=127.0.0.1",
                f"-s3.config={folder}/s3.json", f"-s3.localSocket={folder}/s3.sock",
                f"-filer.localSocket={folder}/filer.sock", *(f"-{name}.port={port}" for name, port in ports.items()),
            ],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    client = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{ports['s3']}", region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"yes")
                break
            except (BotoCoreError, ClientError):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield client
    finally:
        process.kill()
        process.wait()


def content(s3: Any, bucket: str) -> dict[str, bytes]:
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def test_a_full_bucket_is_not_deleted(s3: Any) -> None:
    s3.create_bucket(Bucket="full")
    s3.put_object(Bucket="full", Key="a/b", Body=b"kept")
    with pytest.raises(ClientError) as refused:
        s3.delete_bucket(Bucket="full")
    assert refused.value.response["Error"]["Code"] == "BucketNotEmpty"
    assert content(s3, "full") == {"a/b": b"kept"}


def test_a_misspelt_bucket_is_not_made(s3: Any) -> None:
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="datasest", Key="digits.csv", Body=b"1")
    assert refused.value.response["Error"]["Code"] == "NoSuchBucket"
    assert "datasest" not in {one["Name"] for one in s3.list_buckets()["Buckets"]}


class Nights:
    """The program of the backup, with a folder and a bucket of its own."""

    def __init__(self, s3: Any, folder: Path, bucket: str) -> None:
        self.s3, self.folder, self.bucket = s3, folder, bucket
        s3.create_bucket(Bucket=bucket)

    def run(self, action: str, status: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, FILES, action, self.folder, self.bucket],
            env={**os.environ, **KEYS, "S3_ENDPOINT": self.s3.meta.endpoint_url, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    def put(self, **objects: bytes) -> None:
        for key, body in objects.items():
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def copies(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "copies").glob("*.json"))


@pytest.fixture
def nights(s3: Any, tmp_path: Path) -> Nights:
    return Nights(s3, tmp_path, f"b-{time.time_ns()}")


def test_a_pointer_of_the_same_length_is_copied_again(nights: Nights) -> None:
    nights.put(pointer=b"md5: 1111")
    nights.run("save")
    nights.put(pointer=b"md5: 2222")
    assert "1 objects fetched" in nights.run("save")
    nights.put(pointer=b"md5: 3333")
    nights.run("restore")
    assert content(nights.s3, nights.bucket) == {"pointer": b"md5: 2222"}


def test_a_night_is_restored_as_it_was_and_what_came_after_is_not_lost(nights: Nights) -> None:
    nights.put(kept=b"1", changed=b"old", removed=b"2")
    nights.run("save")
    (first,) = nights.copies()
    nights.put(changed=b"new", added=b"3")
    nights.s3.delete_object(Bucket=nights.bucket, Key="removed")
    nights.run("restore", COPY=first)
    assert content(nights.s3, nights.bucket) == {"kept": b"1", "changed": b"old", "removed": b"2"}
    # How it was before the restore is a copy too.
    nights.run("restore", COPY=nights.copies()[-1])
    assert content(nights.s3, nights.bucket) == {"kept": b"1", "changed": b"new", "added": b"3"}


def test_a_night_costs_what_has_changed_and_two_weeks_are_kept(nights: Nights) -> None:
    nights.put(same=b"same")
    for night in range(16):
        nights.put(pointer=f"{night:02}".encode())
        nights.run("save")
    assert len(nights.copies()) == 14
    assert len(list((nights.folder / "contents").iterdir())) == 15


def test_a_copy_that_is_not_there_is_named_with_those_that_are(nights: Nights) -> None:
    nights.run("save")
    assert f"There is no copy 2020; there are: {nights.copies()[0]}" in nights.run("restore", status=1, COPY="2020")
