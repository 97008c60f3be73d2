"""Copies of buckets, night by night: `files.py save FOLDER [BUCKET...]`, `files.py restore FOLDER [BUCKET...]`.

A copy is a list: FOLDER/copies/<time>.json says which content each object had. Contents are in FOLDER/contents, each
once and named by its SHA-256, so that a night costs what has changed. `restore` makes the buckets what they were at the
newest copy, or at $COPY: it first saves how they are now, so that nothing is lost; what was not there then is removed.

One object that cannot be read keeps none of the others from being copied: it is named, and the exit status is 1.
"""

import hashlib
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
from boto3.exceptions import Boto3Error  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

BUCKETS = ["mlflow", "datasets"]
KEPT = 14
CHUNK = 1 << 20
FAILURES = (Boto3Error, BotoCoreError, ClientError, OSError)

Copy = dict[str, dict[str, dict[str, str]]]
"""Of each bucket, by key: `etag`, which the store derives from the content, and `sha256`."""


class Copies:
    """The copies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.lists, self.contents = folder / "copies", folder / "contents"
        for path in (self.lists, self.contents):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """Names of the copies, the oldest first."""
        return sorted(path.stem for path in self.lists.glob("*.json"))

    def read(self, name: str) -> Copy:
        """One copy."""
        copy: Copy = json.loads((self.lists / f"{name}.json").read_text())
        return copy

    def write(self, copy: Copy) -> str:
        """Keep a copy, whole or not at all; its name."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        new = self.lists / f"{name}.new"
        new.write_text(json.dumps(copy))
        new.replace(new.with_suffix(".json"))
        return name

    def prune(self) -> None:
        """Forget all but the newest copies, and contents that none of them has."""
        for name in self.names()[:-KEPT]:
            (self.lists / f"{name}.json").unlink()
        used = {
            entry["sha256"]
            for name in self.names()
            for objects in self.read(name).values()
            for entry in objects.values()
        }
        for path in self.contents.iterdir():
            if path.name not in used:
                path.unlink()

    def fetch(self, s3: Any, bucket: str, key: str) -> str:
        """Bring one object's content, whole or not at all; its SHA-256."""
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.contents, delete=False) as new:
            try:
                for chunk in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(CHUNK):
                    digest.update(chunk)
                    new.write(chunk)
                new.flush()
                Path(new.name).replace(self.contents / digest.hexdigest())
            except BaseException:
                Path(new.name).unlink(missing_ok=True)
                raise
        return digest.hexdigest()


def listed(s3: Any, bucket: str) -> dict[str, str]:
    """What the store says of each object's content, by key."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {
        entry["Key"]: entry["ETag"]
        for page in pages
        for entry in page.get("Contents", ())
        if not entry["Key"].endswith("/")
    }


def save(s3: Any, copies: Copies, buckets: list[str]) -> int:
    """Copy what has changed since the newest copy; the number of objects that could not be read."""
    names = copies.names()
    before: Copy = copies.read(names[-1]) if names else {}
    # What is copied for some buckets alone still lists the others.
    copy: Copy = {bucket: objects for bucket, objects in before.items() if bucket not in buckets}
    faults = 0
    for bucket in buckets:
        fetched, known = 0, before.get(bucket, {})
        objects = copy[bucket] = {}
        for key, etag in listed(s3, bucket).items():
            entry = known.get(key)
            if entry is not None and entry["etag"] == etag and (copies.contents / entry["sha256"]).exists():
                objects[key] = entry
                continue
            try:
                objects[key] = {"etag": etag, "sha256": copies.fetch(s3, bucket, key)}
                fetched += 1
            except FAILURES as error:
                print(f"{bucket}/{key}: {error}", file=sys.stderr)
                faults += 1
                if entry is not None:
                    objects[key] = entry
        print(f"{bucket}: {fetched} objects fetched, {len(objects)} in the copy")
    copies.write(copy)
    copies.prune()
    return faults


def restore(s3: Any, copies: Copies, buckets: list[str], name: str) -> int:
    """Make the buckets what they were; the number of objects that could not be brought back."""
    copy = copies.read(name)
    there = {one["Name"] for one in s3.list_buckets()["Buckets"]}
    if faults := save(s3, copies, [bucket for bucket in buckets if bucket in there]):
        print("Nothing was restored: how it is now could not be saved first.", file=sys.stderr)
        return faults
    for bucket in buckets:
        if bucket not in there:
            s3.create_bucket(Bucket=bucket)
        now, then = listed(s3, bucket), copy.get(bucket, {})
        sent = removed = 0
        for key, entry in then.items():
            if now.get(key) == entry["etag"]:
                continue
            try:
                s3.upload_file(str(copies.contents / entry["sha256"]), bucket, key)
                sent += 1
            except FAILURES as error:
                print(f"{bucket}/{key}: {error}", file=sys.stderr)
                faults += 1
        for key in now.keys() - then.keys():
            s3.delete_object(Bucket=bucket, Key=key)
            removed += 1
        print(f"{bucket}: {sent} objects sent, {removed} removed, as of {name}")
    return faults


def main() -> int:
    """Entry point; the exit status."""
    action, folder, *buckets = sys.argv[1:]
    s3 = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    copies = Copies(Path(folder))
    if action == "save":
        return 1 if save(s3, copies, buckets or BUCKETS) else 0
    names = copies.names()
    name = os.environ.get("COPY") or (names[-1] if names else "")
    if name not in names:
        print(f"There is no copy {name or 'yet'}; there are: {', '.join(names) or 'none'}", file=sys.stderr)
        return 1
    return 1 if restore(s3, copies, buckets or BUCKETS, name) else 0


if __name__ == "__main__":
    sys.exit(main())
