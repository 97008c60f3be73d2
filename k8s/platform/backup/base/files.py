"""Copies buckets to a folder and back: `files.py save|restore FOLDER [BUCKET...]`. What is there already is left.

One object that cannot be read keeps none of the others from being copied: it is named, and the exit status is 1.
"""

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
from boto3.exceptions import Boto3Error  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

BUCKETS = ["mlflow", "datasets"]
FAILURES = (Boto3Error, BotoCoreError, ClientError, OSError)


def sizes(s3: Any, bucket: str) -> dict[str, int]:
    """Objects of a bucket, by key."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}


def to_fetch(s3: Any, bucket: str, folder: Path) -> Iterator[tuple[str, partial[None]]]:
    """Keys that the folder lacks, each with what fetches it."""
    for key, size in sizes(s3, bucket).items():
        path = folder / bucket / key
        if not (key.endswith("/") or (path.exists() and path.stat().st_size == size)):
            yield key, partial(fetch, s3, bucket, key, path)


def fetch(s3: Any, bucket: str, key: str, path: Path) -> None:
    """Bring one object, whole or not at all."""
    new = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    s3.download_file(bucket, key, str(new))
    new.replace(path)


def to_send(s3: Any, bucket: str, folder: Path) -> Iterator[tuple[str, partial[None]]]:
    """Keys that the bucket lacks, each with what sends it; the bucket is made where there is none."""
    if bucket not in {one["Name"] for one in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket)
    there = sizes(s3, bucket)
    for path in sorted((folder / bucket).rglob("*")):
        key = str(path.relative_to(folder / bucket))
        if path.is_file() and path.suffix != ".new" and there.get(key) != path.stat().st_size:
            yield key, partial(s3.upload_file, str(path), bucket, key)


if __name__ == "__main__":
    action, target, *buckets = sys.argv[1:]
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    faults = 0
    for name in buckets or BUCKETS:
        copied = 0
        for key, copy in {"save": to_fetch, "restore": to_send}[action](client, name, Path(target)):
            try:
                copy()
                copied += 1
            except FAILURES as error:
                print(f"{name}/{key}: {error}", file=sys.stderr)
                faults += 1
        print(f"{name}: {copied} objects {'fetched' if action == 'save' else 'sent'}")
    sys.exit(1 if faults else 0)
