"""Tries things with S3 as several users: reads them as JSON from standard input, prints how each was answered.

An attempt is `[user, operation of boto3, its arguments]`, a user `[key, secret]`, or nothing for nobody.
"""

import json
import sys

import boto3  # type: ignore[import-untyped]
from botocore import UNSIGNED  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

asked = json.load(sys.stdin)
clients = {}
for name, keys in asked["users"].items():
    signing = dict(zip(("aws_access_key_id", "aws_secret_access_key"), keys, strict=False))
    config = Config(retries={"max_attempts": 0}, **({} if keys else {"signature_version": UNSIGNED}))
    clients[name] = boto3.client("s3", config=config, **signing)
answers = []
for user, operation, arguments in asked["attempts"]:
    try:
        answer = getattr(clients[user], operation)(**arguments)
        answers.append([200, sorted(bucket["Name"] for bucket in answer.get("Buckets", ()))])
    except ClientError as error:
        answers.append([error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]])
print(json.dumps(answers))
