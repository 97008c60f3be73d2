"""State in an S3 bucket, of AWS or of any store that speaks S3."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # type: ignore[import-untyped]

from engine.backend.base import META
from engine.backend.bucket import ABSENT, ConflictError, DeniedError, Entry, StorageError
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
_CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", *_ABSENT}
_UNKNOWN_CONDITION = {"NotImplemented", "501"}
_DENIED = {"AccessDenied", "Forbidden", "403"}
_MARK = b"$journal "
_DELETE_LIMIT = 1000  # objects in one request, https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html


class S3Bucket:
    """Keys are objects of ``bucket`` below ``prefix``. A journal is a folder of numbered batches, an object each."""

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

    @property
    def is_local(self) -> bool:
        """Anybody with credentials can reach it, from anywhere."""
        return False

    @functools.cached_property
    def creates_once(self) -> bool:
        """Whether the store supports conditional writes: tried on an existing object, which stays as it is.

        Credentials that may not write that object are not told; then locks are taken as with any other store.
        """
        found = self.read_version(META)
        if found is None:
            return False
        with self._errors("written", META):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + META, Body=found[0], IfNoneMatch="*")
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code not in _CONFLICTS | _UNKNOWN_CONDITION | _DENIED:
                    raise
                return code in _CONFLICTS
        return False

    def locate(self, key: str) -> str:
        """The URL of ``key``."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def read(self, key: str) -> bytes | None:
        """The contents of ``key``; None when there is no such object."""
        found = self.read_version(key)
        return None if found is None else found[0]

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """The contents of ``key`` and their entity tag; None when there is no such object."""
        with self._errors("read", key):
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                if error.response["Error"]["Code"] in _ABSENT:
                    return None
                raise
            return response["Body"].read(), response["ETag"]

    def write(self, key: str, data: bytes, *, version: str | None = None) -> None:
        """Write ``key``; S3 replaces an object atomically and answers once it is durable.

        The store compares ``version`` and writes in one step. A store without conditional writes ignores it.
        """
        put = functools.partial(self._client.put_object, Bucket=self._bucket, Key=self._prefix + key, Body=data)
        condition: dict[str, str] = {}
        if version is not None:
            condition = {"IfMatch": version} if version != ABSENT else {"IfNoneMatch": "*"}
        with self._errors("written", key):
            try:
                put(**condition)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if not condition or code not in _CONFLICTS | _UNKNOWN_CONDITION:
                    raise
                if code in _UNKNOWN_CONDITION:
                    put()
                # After a lost response the client has sent the write again, and found its own first one.
                elif self.read(key) != data:
                    raise ConflictError(self.locate(key)) from None

    def delete(self, key: str, *, version: str | None = None) -> None:
        """Delete ``key``; nothing happens when there is no such object, or none of this ``version``."""
        delete = functools.partial(self._client.delete_object, Bucket=self._bucket, Key=self._prefix + key)
        with self._errors("deleted", key):
            try:
                delete(**({"IfMatch": version} if version is not None else {}))
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if version is None or code not in _CONFLICTS | _UNKNOWN_CONDITION:
                    raise
                if code in _UNKNOWN_CONDITION:
                    delete()

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
        batches = list(self._batches(key))
        return b"".join(batch.data for batch in batches) if batches else None

    def create_journal(self, key: str, data: bytes) -> S3Journal:
        """Start a journal that holds ``data``, in place of any that is there."""
        self.delete_journal(key)
        journal = S3Journal(self, key, uuid.uuid4().hex, 0)
        journal.append(data)
        return journal

    def resume_journal(self, key: str, length: int) -> S3Journal:
        """Open the journal at ``key`` to append after its last batch; a batch is there as a whole or not at all."""
        del length
        batches = list(self._batches(key))
        return S3Journal(self, key, batches[0].journal, len(batches))

    def delete_journal(self, key: str) -> None:
        """Delete the journal, its head first: without the head, the rest is ignored."""
        self.delete(_batch_key(key, 0))
        batches = [entry.key for entry in self.list(f"{key}/")]
        with self._errors("deleted", key):
            for start in range(0, len(batches), _DELETE_LIMIT):
                objects = [{"Key": self._prefix + batch} for batch in batches[start : start + _DELETE_LIMIT]]
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
                if errors := [error for error in answer.get("Errors", ()) if error.get("Code") not in _ABSENT]:
                    # The response has status 200 all the same.
                    raise ClientError({"Error": errors[0]}, "DeleteObjects")

    def _batches(self, key: str) -> Iterator[_Batch]:
        """The batches of the current journal, without leftovers of others."""
        head: _Batch | None = None
        for number in itertools.count():
            data = self.read(_batch_key(key, number))
            batch = None if data is None else _batch_from(data)
            head = head or batch
            if batch is None or head is None or batch.journal != head.journal:
                return
            yield batch

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
            kind = DeniedError if detail.get("Code") in _DENIED else StorageError
            raise kind(
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


class _Batch(NamedTuple):
    journal: str
    """Which journal it belongs to; empty for those of earlier versions."""
    data: bytes


def _batch_from(data: bytes) -> _Batch:
    mark, _, rest = data.partition(b"\n")
    return _Batch(mark[len(_MARK) :].decode(), rest) if mark.startswith(_MARK) else _Batch("", data)


def _batch_key(key: str, number: int) -> str:
    return f"{key}/{number:09d}"


class S3Journal:
    """A journal open for appending. Nobody else can write its next batch unnoticed. This stops a process whose lock
    somebody removed: the next process has ended this journal with a batch of its own, and deletes the head before the
    rest.
    """

    def __init__(self, bucket: S3Bucket, key: str, journal: str, number: int) -> None:
        self._bucket = bucket
        self._key = key
        self._journal = journal
        self._number = number

    def append(self, data: bytes) -> None:
        """Add ``data``, durably. A batch that failed is written again under the same number.

        Raises ConflictError when another process has taken over the journal.
        """
        key = _batch_key(self._key, self._number)
        content = b"%s%s\n%s" % (_MARK, self._journal.encode(), data)
        try:
            self._bucket.write(key, content, version=ABSENT)
        except ConflictError:
            found = self._bucket.read_version(key)
            if found is None:
                raise
            own = content.startswith(found[0])
            foreign = self._number > 0 and _batch_from(found[0]).journal != self._journal
            if not own and not (foreign and self._has_head()):
                raise
            self._bucket.write(key, content, version=found[1])
        if self._number and not self._has_head():
            raise ConflictError(self._bucket.locate(self._key))
        self._number += 1

    def _has_head(self) -> bool:
        head = self._bucket.read(_batch_key(self._key, 0))
        return head is not None and _batch_from(head).journal == self._journal

    def close(self) -> None:
        """There is nothing to close."""

    def remove(self) -> None:
        """Delete the journal, unless another one has taken its place."""
        if self._has_head():
            self._bucket.delete_journal(self._key)


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
