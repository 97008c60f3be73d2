"""A SeaweedFS with the options of the platform's manifest, for the tests of this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

import kubeyaml
from infra.manifests import TREE
from infra.secret_layout import S3_ACTIONS
from tests.weed import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "secret"  # noqa: S105 - of all keys
NAMES = ("master", "volume", "filer", "s3")
OF_THE_POD = ("-dir", "-ip.bind", "-s3.port", "-s3.config", "-metricsPort", "-volume.minFreeSpace")
"""Options that say where the pod has what; the test has it elsewhere."""


def options() -> tuple[list[str], dict[str, str]]:
    """The manifest's options, but for those of its pod, and its environment."""
    objects = kubeyaml.read_documents((TREE / "platform" / "artifacts" / "base" / "store.yaml").read_text())
    (store,) = (one for one in objects if one["kind"] == "StatefulSet")
    container = store["spec"]["template"]["spec"]["containers"][0]
    environment = {one["name"]: one["value"] for one in container["env"]}
    return [arg for arg in container["args"] if arg.split("=")[0] not in OF_THE_POD], environment


@contextmanager
def running(folder: Path) -> Iterator[Any]:
    """While it is entered, a client with the key `setup` of a store in a folder."""
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    identities = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": actions}
        for name, actions in S3_ACTIONS.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    arguments, environment = options()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                Path(sys.executable).with_name("weed"), *arguments, f"-dir={folder}", "-ip.bind=127.0.0.1",
                f"-s3.config={folder}/s3.json", f"-s3.localSocket={folder}/s3.sock",
                f"-filer.localSocket={folder}/filer.sock", *(f"-{name}.port={port}" for name, port in ports.items()),
            ],
            stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment},
        )  # fmt: skip
    client = connect(f"http://127.0.0.1:{ports['s3']}", "setup")
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


def connect(url: str, user: str) -> Any:
    """A client with the key of a user."""
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=user, aws_secret_access_key=SECRET
    )


def content(s3: Any, bucket: str) -> dict[str, bytes]:
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
