"""What a user of boto3 does in a folder of a bucket: puts, gets, lists, sends in parts, signs a URL, deletes.

Prints what it saw as JSON.
"""

import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

import boto3  # type: ignore[import-untyped]
from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]

bucket, prefix = sys.argv[1:]
s3 = boto3.client("s3")
keys = [f"{prefix}/some/key {number}+ü.txt" for number in range(5)]
for key in keys:
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), ContentType="text/plain", Metadata={"origin": "test"})
big_key, copy_key = f"{prefix}/big", f"{prefix}/copy"
pages = s3.get_paginator("list_objects_v2").paginate(
    Bucket=bucket, Prefix=f"{prefix}/some/", PaginationConfig={"PageSize": 2}
)
listed = [entry["Key"] for page in pages for entry in page["Contents"]]
one = s3.get_object(Bucket=bucket, Key=keys[0])
big = os.urandom(20 * 2**20)
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "sent").write_bytes(big)
    in_parts = TransferConfig(multipart_threshold=2**23, multipart_chunksize=2**23)
    s3.upload_file(str(Path(folder, "sent")), bucket, big_key, Config=in_parts)
    s3.download_file(bucket, big_key, str(Path(folder, "got")), Config=in_parts)
    same = Path(folder, "got").read_bytes() == big
part = s3.get_object(Bucket=bucket, Key=big_key, Range="bytes=8388600-8388615")["Body"].read()
s3.copy_object(Bucket=bucket, Key=copy_key, CopySource={"Bucket": bucket, "Key": big_key})
signed = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": keys[0]}, ExpiresIn=60)
with urllib.request.urlopen(signed) as answer:  # noqa: S310 - the platform's
    by_url = answer.read().decode()
print(
    json.dumps(
        {
            "listed": listed == keys,
            "text": one["Body"].read().decode() == keys[0],
            "type": one["ContentType"],
            "metadata": one["Metadata"],
            "parts": int(s3.head_object(Bucket=bucket, Key=big_key)["ETag"].strip('"').partition("-")[2]),
            "same": same,
            "range": part == big[8388600:8388616],
            "copied": s3.head_object(Bucket=bucket, Key=copy_key)["ContentLength"] == len(big),
            "signed": by_url == keys[0],
        }
    )
)
gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in [*keys, big_key, copy_key]]})
assert not gone.get("Errors"), gone
