"""Containers and objects on a real Swift."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import openstack.exceptions
import pytest
from keystoneauth1 import exceptions as ksa

from tests.providers.plugin import CallError, changed, shown

if TYPE_CHECKING:
    from pathlib import Path

    from openstack.connection import Connection
    from openstack.object_store.v1._proxy import Proxy

    from tests.providers.plugin import Plugin, Resource
    from tests.providers.real.conftest import Maker

CONTAINER = "openstack:objectstorage/container:Container"
OBJECT = "openstack:objectstorage/containerObject:ContainerObject"


@pytest.fixture(scope="module", autouse=True)
def swift(sdk: Connection) -> Proxy:
    try:
        list(sdk.object_store.containers())
    except (openstack.exceptions.SDKException, ksa.ClientException):
        pytest.skip("this cloud has no object store")
    return sdk.object_store


def test_container(plugin: Plugin, make: Maker, swift: Proxy) -> None:
    inputs = {"containerRead": ".r:*,.rlistings", "metadata": {"myStack": "one", "color": "blue"}}
    made = make(CONTAINER, inputs)
    assert made.id == made.inputs["name"]
    assert made.outputs["metadata"] == inputs["metadata"]
    assert made.outputs["storagePolicy"]
    found = swift.get_container_metadata(made.id)
    assert found.read_ACL == inputs["containerRead"]
    assert found.metadata == {"mystack": "one", "color": "blue"}

    wanted = {"metadata": {"myStack": "two"}, "versioning": True}
    found_changes = plugin.diff(made, wanted)
    assert changed(found_changes) == {"containerRead", "metadata.myStack", "metadata.color", "versioning"}
    assert not found_changes.replaces
    updated = make.changed(made, plugin.update(made, wanted))
    found = swift.get_container_metadata(made.id)
    assert (found.read_ACL, found.metadata) == (None, {"mystack": "two"})
    assert updated.outputs["versioning"] is True
    assert not changed(plugin.diff(updated, wanted))


def test_drift_and_import(plugin: Plugin, make: Maker, swift: Proxy) -> None:
    inputs = {"containerRead": ".r:*", "metadata": {"stack": "one"}}
    made = make(CONTAINER, inputs)
    imported = plugin.import_(CONTAINER, made.id)
    assert imported
    assert shown(imported.outputs) == shown(made.outputs)
    assert not changed(plugin.diff(imported, shown(imported.inputs)))
    swift.set_container_metadata(made.id, read_ACL="", stack="two")
    refreshed = plugin.read(made)
    assert refreshed
    assert changed(plugin.diff(refreshed, inputs)) == {"containerRead", "metadata.stack"}


def test_a_full_container_goes_on_demand_only(plugin: Plugin, make: Maker, swift: Proxy) -> None:
    made = make(CONTAINER, {"versioning": True})
    for content in ("old", "new"):
        swift.upload_object(made.id, "a folder/a file", data=content)
    with pytest.raises(CallError, match=r"is not empty: .*\n.*forceDestroy"):
        plugin.delete(made)
    forced = make.changed(made, plugin.update(made, {"versioning": True, "forceDestroy": True}))
    plugin.delete(forced)
    assert plugin.read(forced) is None


@pytest.fixture
def container(make: Maker) -> Resource:
    return make(CONTAINER, {"forceDestroy": True})


def test_object_of_a_text(plugin: Plugin, make: Maker, swift: Proxy, container: Resource) -> None:
    inputs = {
        "containerName": container.id,
        "name": "a folder/ä file",
        "content": "hello",
        "contentType": "text/plain; charset=UTF-8",
        "contentDisposition": "attachment",
        "deleteAt": "2099-01-31T13:00:00+01:00",
        "metadata": {"stack": "one"},
    }
    made = make(OBJECT, inputs)
    assert made.id == f"{container.id}/a folder/ä file"
    assert (made.outputs["contentLength"], made.outputs["deleteAt"]) == (5, "2099-01-31T12:00:00Z")
    assert made.outputs["etag"] == hashlib.md5(b"hello", usedforsecurity=False).hexdigest()
    assert swift.download_object("a folder/ä file", container=container.id) == b"hello"
    imported = plugin.import_(OBJECT, made.id)
    assert imported
    fixed = {"containerName", "name", "etag", "contentType", "metadata", "deleteAt", "lastModified"}
    assert {key: imported.outputs[key] for key in fixed} == {key: made.outputs[key] for key in fixed}

    wanted = {"containerName": container.id, "name": "a folder/ä file", "content": "good bye"}
    updated = make.changed(made, plugin.update(made, wanted))
    assert swift.download_object("a folder/ä file", container=container.id) == b"good bye"
    assert not changed(plugin.diff(updated, wanted))
    assert list(plugin.diff(updated, {**wanted, "name": "other"}).replaces) == ["name"]


def test_object_of_a_file_and_a_copy(
    plugin: Plugin, make: Maker, swift: Proxy, container: Resource, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(3 << 20))
    first = make(OBJECT, {"containerName": container.id, "name": "first", "source": str(path)})
    assert first.outputs["contentLength"] == 3 << 20
    second = make(OBJECT, {"containerName": container.id, "name": "second", "copyFrom": f"{container.id}/first"})
    assert second.outputs["etag"] == first.outputs["etag"]
    assert swift.download_object("second", container=container.id) == bytes(3 << 20)
    with pytest.raises(CallError, match="cannot read /none: No such file"):
        plugin.create(OBJECT, {"containerName": container.id, "name": "third", "source": "/none"})
    with pytest.raises(CallError, match="answered 422"):
        plugin.create(OBJECT, {"containerName": container.id, "name": "third", "content": "a", "etag": "0" * 32})
