"""The object store's image: `pytest -m slow_images tests/images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from tests.images.services import BUCKETS, Images, ObjectStore, start_object_store

if TYPE_CHECKING:
    from tests.images.containers import Runtime

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(300)]
PART = 5 << 20  # the least that S3 takes for a part but the last


@pytest.fixture(scope="module")
def objects(runtime: Runtime, images: Images) -> ObjectStore:
    """A store."""
    return start_object_store(runtime, images)


def test_what_was_acknowledged_is_there_after_a_kill_and_after_a_stop(objects: ObjectStore) -> None:
    for number, end in enumerate((objects.container.kill, objects.container.stop)):
        objects.client().put_object(Bucket=BUCKETS[0], Key=f"kept/{number}", Body=f"object {number}".encode())
        end()
        objects.container.start()
        objects.container.until(objects.is_ready)
    for number in range(2):
        got = objects.client().get_object(Bucket=BUCKETS[0], Key=f"kept/{number}")
        assert got["Body"].read() == f"object {number}".encode()


def test_large_objects_come_in_parts(objects: ObjectStore) -> None:
    client, name = objects.client(), {"Bucket": BUCKETS[1], "Key": "large"}
    content = [bytes([number]) * PART for number in range(3)]
    upload = client.create_multipart_upload(**name)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(**name, UploadId=upload, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in enumerate(content, 1)
    ]
    client.complete_multipart_upload(**name, UploadId=upload, MultipartUpload={"Parts": parts})
    assert client.get_object(**name)["Body"].read() == b"".join(content)


def test_a_wrong_secret_is_refused(objects: ObjectStore) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        objects.client(secret="wrong").list_buckets()  # noqa: S106
