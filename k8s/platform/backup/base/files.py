"""Copies buckets to a folder and back: `files.py save|restore FOLDER [BUCKET...]`. What is there already is left.

One object that cannot be read keeps none of the others from being copied: it is named, and the exit status is 1.
"""

import os
import sys
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
from boto3.exceptions import Boto3Error  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

BUCKETS = ["mlflow", "datasets"]


REFUSED = (Boto3Error, BotoCoreError, ClientError, OSError)


def save(s3: Any, bucket: str, folder: Path) -> tuple[int, list[str]]:
    """Fetch what the folder lacks; how many objects came, and what is wrong with those that did not."""
    fetched, faults = 0, list[str]()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            path = folder / bucket / entry["Key"]
            if entry["Key"].endswith("/") or (path.exists() and path.stat().st_size == entry["Size"]):
                continue
            new = path.with_name(path.name + ".new")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, entry["Key"], str(new))
                new.replace(path)
                fetched += 1
            except REFUSED as error:
                faults.append(f"{bucket}/{entry['Key']}: {error}")
    return fetched, faults


def restore(s3: Any, bucket: str, folder: Path) -> tuple[int, list[str]]:
    """Send what the bucket lacks; how many objects went, and what is wrong with those that did not."""
    if bucket not in {one["Name"] for one in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    there = {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}
    sent, faults = 0, list[str]()
    for path in sorted((folder / bucket).rglob("*")):
        key = str(path.relative_to(folder / bucket))
        if path.is_file() and path.suffix != ".new" and there.get(key) != path.stat().st_size:
            try:
                s3.upload_file(str(path), bucket, key)
                sent += 1
            except REFUSED as error:
                faults.append(f"{bucket}/{key}: {error}")
    return sent, faults


if __name__ == "__main__":
    action, folder, *buckets = sys.argv[1:]
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    wrong = 0
    for name in buckets or BUCKETS:
        count, faults = {"save": save, "restore": restore}[action](client, name, Path(folder))
        print(f"{name}: {count} objects {'fetched' if action == 'save' else 'sent'}")
        print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
        wrong += len(faults)
    sys.exit(1 if wrong else 0)
