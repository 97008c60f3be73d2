"""Volumes on a real Cinder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.providers.plugin import CallError, Resource, changed, shown

if TYPE_CHECKING:
    from pathlib import Path

    from openstack.connection import Connection

    from tests.providers.plugin import Plugin
    from tests.providers.real.conftest import Maker

VOLUME = "openstack:blockstorage/volume:Volume"


def test_create_update_grow(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    inputs = {"size": 1, "description": "of a test", "metadata": {"stack": "one", "color": "blue"}}
    made = make(VOLUME, inputs)
    volume = sdk.block_storage.get_volume(made.id)
    assert (volume.name, volume.size, volume.description) == (made.inputs["name"], 1, "of a test")
    assert volume.metadata == inputs["metadata"]
    assert made.outputs["volumeType"] == volume.volume_type
    assert made.outputs["availabilityZone"] == volume.availability_zone
    assert made.inputs["volumeRetypePolicy"] == "never"

    wanted = {"name": "grown", "size": 2, "metadata": {"stack": "two"}}
    found = plugin.diff(made, wanted)
    assert changed(found) == {"name", "size", "description", "metadata.stack", "metadata.color"}
    assert not found.replaces
    grown = plugin.update(made, wanted)
    volume = sdk.block_storage.get_volume(made.id)
    assert (volume.name, volume.size, volume.description, volume.metadata) == ("grown", 2, "", {"stack": "two"})
    assert not changed(plugin.diff(grown, wanted))
    with pytest.raises(CallError, match=r"has 2 GiB and cannot shrink to 1\n.*--replace"):
        plugin.update(grown, {**wanted, "size": 1})


def test_what_an_attachment_adds_is_no_difference(plugin: Plugin, make: Maker) -> None:
    inputs = {"size": 1, "metadata": {"stack": "one"}}
    made = make(VOLUME, inputs)
    made.outputs["metadata"] |= {"attached_mode": "rw", "readonly": "False"}
    assert not changed(plugin.diff(made, inputs))
    assert changed(plugin.diff(made, {**inputs, "metadata": {"readonly": "True"}})) == {
        "metadata.stack", "metadata.readonly",
    }  # fmt: skip


def test_retype(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    made = make(VOLUME, {"size": 1})
    other = next(kind.name for kind in sdk.block_storage.types() if kind.name != made.outputs["volumeType"])
    wanted = {"size": 1, "volumeType": other, "volumeRetypePolicy": "on-demand"}
    found = plugin.diff(made, wanted)
    assert changed(found) == {"volumeType", "volumeRetypePolicy"}
    assert not found.replaces
    assert plugin.update(made, wanted).outputs["volumeType"] == other


def test_sources(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    origin = make(VOLUME, {"size": 1})
    clone = make(VOLUME, {"size": 1, "sourceVolId": origin.id})
    snapshot = sdk.block_storage.create_snapshot(volume_id=origin.id)
    try:
        sdk.block_storage.wait_for_status(snapshot)
        copy = make(VOLUME, {"size": 2, "snapshotId": snapshot.id})
        assert (copy.outputs["snapshotId"], copy.outputs["size"]) == (snapshot.id, 2)
        plugin.delete(copy)
        with pytest.raises(CallError, match="snapshot"):  # Cinder's own reason for refusing
            plugin.delete(origin, timeout=20)
    finally:
        sdk.block_storage.delete_snapshot(snapshot.id)
        sdk.block_storage.wait_for_delete(snapshot)
    imported = plugin.import_(VOLUME, clone.id)
    assert imported
    assert imported.outputs["sourceVolId"] == origin.id
    assert list(plugin.diff(clone, {"size": 1}).replaces) == ["sourceVolId"]
    assert make.replaced(clone, {"size": 1}, delete_first=False).outputs["sourceVolId"] == ""


def image(make: Maker, folder: Path, data: bytes, disk_format: str) -> str:
    """The id of a new image."""
    path = folder / "image"
    path.write_bytes(data)
    inputs = {"containerFormat": "bare", "diskFormat": disk_format, "localFilePath": str(path)}
    return make("openstack:images/image:Image", inputs).id


def test_of_an_image_and_import(plugin: Plugin, make: Maker, tmp_path: Path) -> None:
    source = image(make, tmp_path, bytes(1 << 20), "raw")
    made = make(VOLUME, {"size": 1, "imageId": source})
    imported = plugin.import_(VOLUME, made.id)
    assert imported
    assert imported.inputs["imageId"] == source
    assert shown(imported.outputs) == {
        key: value for key, value in shown(made.outputs).items() if key != "volumeRetypePolicy"
    }
    assert changed(plugin.diff(imported, shown(imported.inputs))) == {"volumeRetypePolicy"}


def test_a_volume_that_fails_is_not_lost(plugin: Plugin, make: Maker, tmp_path: Path) -> None:
    inputs = {"size": 1, "imageId": image(make, tmp_path, b"this is no qcow2", "qcow2")}
    with pytest.raises(CallError, match=r"is in status error.*\n.*--replace") as caught:
        plugin.create(VOLUME, inputs)
    partial = caught.value.partial
    assert partial
    half = make.keep(Resource(VOLUME, "thing", partial.id, plugin.check(VOLUME, inputs), {}))
    with pytest.raises(CallError, match=r"is in status error\n.*--replace"):
        plugin.update(half, inputs)


def test_faults_are_told_at_once(plugin: Plugin) -> None:
    _, faults = plugin.check_failures(
        VOLUME,
        {"size": 0, "imageId": "a", "snapshotId": "b", "volumeRetypePolicy": "on-demnad", "metdata": {}},
    )
    assert faults == {
        "size": "must be at least 1 (GiB)",
        "imageId": "cannot be given together with snapshotId",
        "volumeRetypePolicy": "must be one of never, on-demand, not 'on-demnad'; did you mean 'on-demand'?",
        "metdata": "is not a known property; did you mean 'metadata'?",
    }


def test_quota(plugin: Plugin) -> None:
    with pytest.raises(CallError, match=r"answered 413: .*\n.*quota") as caught:
        plugin.create(VOLUME, {"size": 999999})
    assert caught.value.partial is None


def test_drift(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    made = make(VOLUME, {"size": 1, "description": "mine"})
    sdk.block_storage.update_volume(made.id, description="theirs")
    refreshed = plugin.read(made)
    assert refreshed
    assert changed(plugin.diff(refreshed, {"size": 1, "description": "mine"})) == {"description"}
    volume = sdk.block_storage.get_volume(made.id)
    sdk.block_storage.delete_volume(made.id)
    sdk.block_storage.wait_for_delete(volume)
    assert plugin.read(made) is None
