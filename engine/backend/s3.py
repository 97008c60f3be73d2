"""State in an S3 bucket, of AWS or of any store that speaks S3."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # type: ignore[import-untyped]

from engine.backend.base import Entry, StorageError
from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPTIONS = {
    "endpoint",
    "region",
    "profile",
    "s3ForcePathStyle",
    "use_path_style",
    "disableSSL",
    "disable_https",
    "request_checksum_calculation",
    "response_checksum_validation",
    "awssdk",
}
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_DELETE_LIMIT = 1000  # objects in one request, https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html


class S3Bucket:
    """Keys are objects of ``bucket`` below ``prefix``. A journal is a folder of numbered objects, one a batch."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    @classmethod
    def open(cls, url: str) -> Self:
        """Open ``s3://<bucket>[/<prefix>][?<options>]``, with the options of the CLI's S3 backend."""
        parts = urlsplit(url)
        if not parts.netloc:
            raise EngineError(f"The backend '{url}' names no bucket.", remedy="Write s3://<bucket>[/<prefix>].")
        prefix = parts.path.strip("/")
        bucket = cls(connect(url), parts.netloc, f"{prefix}/" if prefix else "")
        with bucket._errors("opened", ""):
            bucket._client.head_bucket(Bucket=parts.netloc)
        return bucket

    def locate(self, key: str) -> str:
        """The URL of ``key``."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def read(self, key: str) -> bytes | None:
        """The contents of ``key``; None when there is no such object."""
        with self._errors("read", key):
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if error.response["Error"]["Code"] in _ABSENT:
                    return None
                raise
            body: bytes = response["Body"].read()
            return body

    def write(self, key: str, data: bytes) -> None:
        """Write ``key``; S3 replaces an object atomically and answers once it is durable."""
        with self._errors("written", key):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)

    def delete(self, key: str) -> None:
        """Delete ``key``; nothing happens when there is no such object."""
        with self._errors("deleted", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def list(self, prefix: str) -> Iterator[Entry]:
        """The objects whose key starts with ``prefix``, in the order of keys."""
        with self._errors("listed", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Entry(item["Key"].removeprefix(self._prefix), item["LastModified"].timestamp())

    def read_journal(self, key: str) -> bytes | None:
        """The batches at ``key`` in their order; None when there are none."""
        batches = [self.read(entry.key) for entry in sorted(self.list(f"{key}/"))]
        return b"".join(batch for batch in batches if batch) if batches else None

    def create_journal(self, key: str, data: bytes) -> S3Journal:
        """Start a journal that holds ``data``, in place of any that is there."""
        self.delete_journal(key)
        journal = S3Journal(self, key, 0)
        journal.append(data)
        return journal

    def resume_journal(self, key: str, length: int) -> S3Journal:
        """Open the journal at ``key`` to append after its last batch; a batch is there as a whole or not at all."""
        del length
        last = max(entry.key for entry in self.list(f"{key}/"))
        return S3Journal(self, key, int(last.removeprefix(f"{key}/")) + 1)

    def delete_journal(self, key: str) -> None:
        """Delete the journal, its head first: without it, the rest counts for nothing."""
        batches = sorted(entry.key for entry in self.list(f"{key}/"))
        if batches:
            self.delete(batches[0])
        with self._errors("deleted", key):
            for start in range(1, len(batches), _DELETE_LIMIT):
                objects = [{"Key": self._prefix + batch} for batch in batches[start : start + _DELETE_LIMIT]]
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        place = self.locate(key)
        try:
            yield
        except NoCredentialsError as error:
            raise StorageError(
                f"'{place}' cannot be {verb}: there are no AWS credentials.",
                remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            ) from error
        except ClientError as error:
            detail = error.response.get("Error", {})
            request = error.response.get("ResponseMetadata", {}).get("RequestId")
            raise StorageError(
                f"'{place}' cannot be {verb}: {detail.get('Message') or 'refused'} ({detail.get('Code')}"
                + (f", request {request})." if request else ")."),
                remedy="Check the name of the bucket, its region, and the rights of the credentials, then run the "
                "command again: what was recorded so far is kept.",
            ) from error
        except BotoCoreError as error:
            raise StorageError(
                f"'{place}' cannot be {verb}: {error}",
                remedy="Check the network and the endpoint, then run the command again: what was recorded is kept.",
            ) from error


class S3Journal:
    """A journal open for appending."""

    def __init__(self, bucket: S3Bucket, key: str, number: int) -> None:
        self._bucket = bucket
        self._key = key
        self._number = number

    def append(self, data: bytes) -> None:
        """Add ``data``, durably. A batch that failed is written again under the same number."""
        self._bucket.write(f"{self._key}/{self._number:09d}", data)
        self._number += 1

    def close(self) -> None:
        """Nothing is held."""


def connect(url: str) -> Any:
    """A boto3 client for the store that the options of ``url`` name."""
    options = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if unknown := options.keys() - _OPTIONS:
        raise EngineError(
            f"The backend '{url}' has an unknown option: {', '.join(sorted(unknown))}.",
            remedy=f"Options are {', '.join(sorted(_OPTIONS))}.",
        )
    plain = _is_true(options.get("disableSSL")) or _is_true(options.get("disable_https"))
    path_style = _is_true(options.get("s3ForcePathStyle")) or _is_true(options.get("use_path_style"))
    endpoint = options.get("endpoint")
    if endpoint and "://" not in endpoint:
        endpoint = f"{'http' if plain else 'https'}://{endpoint}"
    checksum = options.get("request_checksum_calculation")
    if endpoint and not checksum and not os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION"):
        # Some stores other than AWS refuse the checksums that botocore adds.
        checksum = "when_required"
    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        s3={"addressing_style": "path"} if path_style else None,
        request_checksum_calculation=checksum,
        response_checksum_validation=options.get("response_checksum_validation"),
    )
    try:
        session = _session(options.get("profile"), options.get("region"))
        return session.client(
            "s3",
            region_name=session.region_name or "us-east-1",
            endpoint_url=endpoint,
            use_ssl=not plain,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise EngineError(
            f"The backend '{url}' cannot be opened: {error}", remedy="Correct the URL or the AWS profile."
        ) from error


# boto3 reads megabytes of API descriptions for a session's first client, and none for the next.
@functools.cache
def _session(profile: str | None, region: str | None) -> Any:
    return boto3.Session(profile_name=profile, region_name=region)


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in {"1", "t", "true"}
