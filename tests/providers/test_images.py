"""Images that the cloud downloads itself, without a Glance that would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.plugin import CallError, Plugin

if TYPE_CHECKING:
    from tests.providers.recorder import Recorder

IMAGE = "openstack:images/image:Image"
INPUTS = {
    "containerFormat": "bare",
    "diskFormat": "qcow2",
    "imageSourceUrl": "https://example.org/disk.qcow2",
    "webDownload": True,
}


def image(status: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": "i",
        "name": "n",
        "status": status,
        "visibility": "private",
        "tags": [],
        "owner": "p",
        "size": None,
    }
    formats = {"container_format": "bare", "disk_format": "qcow2", "min_disk": 0, "min_ram": 0, "checksum": None}
    times = {"created_at": "2025-01-31T12:00:00Z", "updated_at": "2025-01-31T12:00:00Z"}
    return {**found, **formats, **times, "protected": False, "file": "/f", "schema": "/s", **more}


def test_the_cloud_downloads(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/images", 201, image("queued"))
    recorder.answer("POST", "/images/i/import", 202)
    recorder.answer("GET", "/images/i", 200, image("queued"))
    recorder.answer("GET", "/images/i", 200, image("importing"))
    recorder.answer("GET", "/images/i", 200, image("active", size=7, checksum="c"))
    made = recorded.create(IMAGE, INPUTS)
    create, start = recorder.sent("POST")
    name = made.inputs["name"]
    assert create.body == {"name": name, "container_format": "bare", "disk_format": "qcow2", "visibility": "private"}
    assert start.body == {"method": {"name": "web-download", "uri": "https://example.org/disk.qcow2"}}
    assert (made.outputs["status"], made.outputs["sizeBytes"]) == ("active", 7)


def test_a_download_that_fails_says_why(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/images", 201, image("queued"))
    recorder.answer("POST", "/images/i/import", 202)
    recorder.answer("GET", "/images/i", 200, image("queued", os_glance_failed_import="file"))
    recorder.answer("GET", "/images/i/tasks", 200, {"tasks": [{"message": "HTTP Error 404: Not Found"}]})
    with pytest.raises(
        CallError, match=r"could not be filled .*: HTTP Error 404: Not Found\n.*reach the URL"
    ) as caught:
        recorded.create(IMAGE, INPUTS)
    assert caught.value.partial
    assert caught.value.partial.id == "i"


def test_faults(offline: Plugin) -> None:
    given = {"containerFormat": "bar", "diskFormat": "qcow", "webDownload": True, "decompress": True, "minRamMb": -1}
    _, failures = offline.check_failures(IMAGE, {**given, "imageId": "7"})
    assert set(failures) == {"containerFormat", "diskFormat", "decompress", "minRamMb", "imageId"}
    given = {"containerFormat": "bare", "diskFormat": "raw", "webDownload": True}
    assert offline.check_failures(IMAGE, given)[1] == {"imageSourceUrl": "is required by webDownload"}
