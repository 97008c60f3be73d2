"""Copies buckets to a folder and back: `files.py save|restore FOLDER [BUCKET...]`. What is there already is left."""

import os
import sys
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]

BUCKETS = ["mlflow", "datasets"]


def save(s3: Any, bucket: str, folder: Path) -> int:
    """Fetch what the folder lacks; how many objects came."""
    fetched = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            path = folder / bucket / entry["Key"]
            if entry["Key"].endswith("/") or (path.exists() and path.stat().st_size == entry["Size"]):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(path.name + ".new")
            s3.download_file(bucket, entry["Key"], str(new))
            new.replace(path)
            fetched += 1
    return fetched


def restore(s3: Any, bucket: str, folder: Path) -> int:
    """Send what the bucket lacks; how many objects went."""
    if bucket not in {one["Name"] for one in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    there = {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}
    sent = 0
    for path in sorted((folder / bucket).rglob("*")):
        key = str(path.relative_to(folder / bucket))
        if path.is_file() and path.suffix != ".new" and there.get(key) != path.stat().st_size:
            s3.upload_file(str(path), bucket, key)
            sent += 1
    return sent


if __name__ == "__main__":
    action, folder, *buckets = sys.argv[1:]
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    for name in buckets or BUCKETS:
        count = {"save": save, "restore": restore}[action](client, name, Path(folder))
        print(f"{name}: {count} objects {'fetched' if action == 'save' else 'sent'}")
