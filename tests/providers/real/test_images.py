"""Images on a real Glance."""

from __future__ import annotations

import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.providers.plugin import CallError, Resource, changed, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openstack.connection import Connection

    from providers.values import Properties
    from tests.providers.plugin import Plugin
    from tests.providers.real.conftest import Maker

IMAGE = "openstack:images/image:Image"
DATA = b"\x00\x01\x02\x03" * 65536


class Web:
    """A web server on the loopback that serves ``DATA``, and counts who asks."""

    def __init__(self) -> None:
        web = self
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                if self.path.startswith("/none"):
                    self.send_error(404)
                    return
                packed = self.path.endswith(".gz")
                body = gzip.compress(DATA) if packed else DATA
                self.send_response(200)
                self.send_header("Content-Type", "application/gzip" if packed else "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/{path}"


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.server.shutdown()
    web.server.server_close()


@pytest.fixture
def inputs(tmp_path: Path) -> Properties:
    path = tmp_path / "small.img"
    path.write_bytes(DATA)
    return {
        "containerFormat": "bare",
        "diskFormat": "raw",
        "localFilePath": str(path),
        "properties": {"hw_disk_bus": "virtio", "os_distro": "none"},
        "tags": ["blue", "tall"],
    }


def test_of_a_file(make: Maker, inputs: Properties, sdk: Connection) -> None:
    made = make(IMAGE, inputs)
    assert made.outputs["checksum"] == hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    assert made.outputs["sizeBytes"] == len(DATA)
    assert made.outputs["status"] == "active"
    assert made.outputs["visibility"] == "private"
    assert made.outputs["imageId"] == made.id
    image = sdk.image.get_image(made.id)
    assert (image.name, image.disk_format, sorted(image.tags)) == (made.inputs["name"], "raw", ["blue", "tall"])
    assert image.hw_disk_bus == "virtio"


def test_update_in_place(plugin: Plugin, make: Maker, inputs: Properties, sdk: Connection) -> None:
    made = make(IMAGE, inputs)
    changes = {
        "name": f"{made.inputs['name']}-2",
        "minDiskGb": 2,
        "minRamMb": 128,
        "hidden": True,
        "protected": True,
        "tags": ["tall", "wide"],
        "properties": {"hw_disk_bus": "scsi", "os_version": "1/2~3"},
    }
    wanted = {**inputs, **changes}
    found = plugin.diff(made, wanted)
    assert changed(found) == {
        "name", "minDiskGb", "minRamMb", "hidden", "protected", "tags[0]", "tags[1]",
        "properties.hw_disk_bus", "properties.os_version", "properties.os_distro",
    }  # fmt: skip
    assert not found.replaces
    updated = plugin.update(made, wanted)
    image = sdk.image.get_image(made.id)
    assert (image.name, image.min_disk, image.min_ram) == (changes["name"], 2, 128)
    assert (image.is_hidden, image.is_protected, sorted(image.tags)) == (True, True, ["tall", "wide"])
    assert {**updated.outputs["properties"], "hw_disk_bus": "scsi", "os_version": "1/2~3"} == updated.outputs[
        "properties"
    ]
    assert "os_distro" not in updated.outputs["properties"]
    assert not changed(plugin.diff(updated, wanted))

    with pytest.raises(CallError, match=r"is protected\n.*Set protected to false"):
        plugin.delete(updated)
    back = plugin.update(updated, inputs | {"name": changes["name"]})
    assert back.outputs["protected"] is False
    assert back.outputs["minDiskGb"] == 0


def test_replacing_changes(plugin: Plugin, make: Maker, inputs: Properties, tmp_path: Path) -> None:
    made = make(IMAGE, inputs)
    assert list(plugin.diff(made, {**inputs, "diskFormat": "qcow2"}).replaces) == ["diskFormat"]
    other = {key: value for key, value in inputs.items() if key != "localFilePath"}
    found = plugin.diff(made, {**other, "imageSourceUrl": "http://127.0.0.1/x"})
    assert set(found.replaces) == {"imageSourceUrl", "localFilePath"}
    (tmp_path / "other.img").write_bytes(DATA * 2)
    wanted = {**inputs, "localFilePath": str(tmp_path / "other.img")}
    assert list(plugin.diff(made, wanted).replaces) == ["localFilePath"]
    assert make.replaced(made, wanted, delete_first=False).outputs["sizeBytes"] == 2 * len(DATA)


def test_drift_and_import(plugin: Plugin, make: Maker, inputs: Properties, sdk: Connection) -> None:
    made = make(IMAGE, inputs)
    imported = plugin.import_(IMAGE, made.id)
    assert imported
    assert shown(imported.outputs) == {
        key: value for key, value in shown(made.outputs).items() if key not in {"localFilePath", "imageCachePath"}
    }
    source = {"localFilePath": inputs["localFilePath"]}
    assert changed(plugin.diff(imported, {**shown(imported.inputs), **source})) == {"localFilePath"}

    sdk.image.update_image(made.id, min_ram=64)
    refreshed = plugin.read(made)
    assert refreshed
    assert refreshed.outputs["minRamMb"] == 64
    assert changed(plugin.diff(refreshed, inputs)) == {"minRamMb"}
    sdk.image.delete_image(made.id)
    assert plugin.read(made) is None


def test_downloaded_here_once(make: Maker, inputs: Properties, web: Web, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    given = {key: value for key, value in inputs.items() if key != "localFilePath"}
    given |= {"imageSourceUrl": web.url("disk.gz"), "decompress": True, "imageCachePath": str(cache)}
    first, second = make(IMAGE, given), make(IMAGE, given)
    assert first.outputs["sizeBytes"] == second.outputs["sizeBytes"] == len(DATA)
    assert web.asked == ["/disk.gz"]
    assert [path.read_bytes() for path in cache.iterdir()] == [DATA]


def test_download_that_fails_is_not_lost(
    plugin: Plugin, make: Maker, inputs: Properties, web: Web, tmp_path: Path
) -> None:
    given = {key: value for key, value in inputs.items() if key != "localFilePath"}
    given |= {"imageSourceUrl": web.url("none"), "imageCachePath": str(tmp_path)}
    with pytest.raises(CallError, match=r"cannot download .*404") as caught:
        plugin.create(IMAGE, given)
    partial = caught.value.partial
    assert partial
    make.keep(Resource(IMAGE, "half", partial.id, {}, {}))


def test_interrupted_upload_is_resumed(plugin: Plugin, make: Maker, inputs: Properties, tmp_path: Path) -> None:
    big = tmp_path / "big.img"
    with big.open("wb") as file:
        file.truncate(256 << 20)
    given = {**inputs, "localFilePath": str(big)}
    with pytest.raises(CallError, match=r"waiting for the upload of big\.img") as caught:
        plugin.create(IMAGE, given, timeout=0.3)
    partial = caught.value.partial
    assert partial
    half = make.keep(Resource(IMAGE, "thing", partial.id, plugin.check(IMAGE, given), {}))
    half = plugin.read(half) or pytest.fail("the half-made image is lost")
    assert half.outputs["status"] != "active"
    small = {**given, "localFilePath": inputs["localFilePath"]}
    whole = plugin.update(half, small)
    assert (whole.outputs["status"], whole.outputs["sizeBytes"]) == ("active", len(DATA))


def test_the_file_is_looked_for_before_the_cloud_is_called(plugin: Plugin, inputs: Properties, sdk: Connection) -> None:
    name = "image-without-a-file"
    with pytest.raises(CallError, match="localFilePath is not a file: /none") as caught:
        plugin.create(IMAGE, {**inputs, "name": name, "localFilePath": "/none"})
    assert caught.value.partial is None
    assert sdk.image.find_image(name) is None


def test_a_download_that_the_cloud_refuses_is_not_lost(
    plugin: Plugin, make: Maker, inputs: Properties, web: Web
) -> None:
    """Glance refuses an address of its own host: the image that has no data yet must not be lost."""
    given = {key: value for key, value in inputs.items() if key != "localFilePath"}
    given |= {"imageSourceUrl": web.url("disk"), "webDownload": True}
    with pytest.raises(CallError, match=r"POST image/images/.*/import answered 400: URI for web-download") as caught:
        plugin.create(IMAGE, given)
    partial = caught.value.partial
    assert partial
    make.keep(Resource(IMAGE, "half", partial.id, {}, {}))
