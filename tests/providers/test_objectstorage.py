"""What the object storage types send, header by header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.providers.plugin import CallError, Plugin, Resource, changed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.recorder import Recorder

CONTAINER = "openstack:objectstorage/container:Container"
OBJECT = "openstack:objectstorage/containerObject:ContainerObject"


def test_container(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("PUT", "/c%20d", 201)
    # Swift answers with the keys' case changed.
    recorder.answer(
        "HEAD", "/c%20d", 204, X_Container_Meta_Mystack="one", X_Container_Read=".r:*", X_Storage_Policy="gold"
    )
    inputs = {"name": "c d", "containerRead": ".r:*", "metadata": {"myStack": "one"}, "storagePolicy": "gold"}
    made = recorded.create(CONTAINER, inputs)
    (put,) = recorder.sent("PUT")
    sent = {key: value for key, value in put.headers.items() if key.startswith("X-") and key != "X-Auth-Token"}
    assert sent == {"X-Container-Read": ".r:*", "X-Container-Meta-myStack": "one", "X-Storage-Policy": "gold"}
    assert made.id == "c d"
    assert made.outputs["metadata"] == {"myStack": "one"}
    assert not changed(recorded.diff(made, inputs))
    assert list(recorded.diff(made, {**inputs, "name": "e"}).replaces) == ["name"]

    recorder.answer("POST", "/c%20d", 204)
    recorded.update(made, {"name": "c d", "metadata": {"other": "two"}, "versioning": True, "storagePolicy": "gold"})
    (post,) = recorder.sent("POST")
    assert {key: post.headers[key] for key in post.headers if key.startswith(("X-Container", "X-Versions"))} == {
        "X-Container-Read": "",
        "X-Container-Meta-myStack": "",
        "X-Container-Meta-other": "two",
        "X-Versions-Enabled": "true",
    }


def test_one_way_of_versioning_goes_before_the_other_comes(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/c", 204)
    recorder.answer("HEAD", "/c", 204)
    old = Resource(
        CONTAINER, "thing", "c", {"name": "c"}, {"name": "c", "versioningLegacy": {"type": "versions", "location": "v"}}
    )
    recorded.update(old, {"name": "c", "versioning": True})
    first, second = recorder.sent("POST")
    assert first.headers["X-Remove-Versions-Location"] == "true"
    assert second.headers["X-Versions-Enabled"] == "true"


def test_a_full_container(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("DELETE", "/c", 409, {"message": "There was a conflict"})
    recorder.answer("DELETE", "/c", 204)
    with pytest.raises(CallError, match=r"container c is not empty.*\n.*forceDestroy"):
        recorded.delete(Resource(CONTAINER, "thing", "c", {}, {"name": "c"}))
    recorder.answers.clear()
    recorder.answer("DELETE", "/c", 409, {"message": "There was a conflict"})
    recorder.answer("DELETE", "/c", 204)
    recorder.answer("GET", "/c?format=json&limit=1000", 200, [{"name": "a/b c"}])
    recorder.answer("GET", "/c?format=json&limit=1000", 200, [])
    recorder.answer("DELETE", "/c/a/b%20c", 204)
    recorded.delete(Resource(CONTAINER, "thing", "c", {}, {"name": "c", "forceDestroy": True}))
    assert [request.path for request in recorder.sent("DELETE")][-3:] == ["/c", "/c/a/b%20c", "/c"]


def test_object(recorder: Recorder, recorded: Plugin, tmp_path: Path) -> None:
    recorder.answer("PUT", "/c/a%20b", 201)
    recorder.answer(
        "HEAD",
        "/c/a%20b",
        200,
        ETag="900150983cd24fb0d6963f7d28e17f72",
        Last_Modified="Fri, 31 Jan 2025 12:00:00 GMT",
        Content_Type="text/plain",
        X_Delete_At="4073544000",
        X_Object_Meta_K="v",
    )
    inputs = {"containerName": "c", "name": "a b", "content": "abc", "deleteAt": "2099-01-31T13:00:00+01:00"}
    made = recorded.create(OBJECT, {**inputs, "contentType": "text/plain", "metadata": {"k": "v"}})
    (put,) = recorder.sent("PUT")
    assert put.body == "abc"
    assert (put.headers["Content-Type"], put.headers["X-Object-Meta-k"]) == ("text/plain", "v")
    assert put.headers["X-Delete-At"] == "4073544000"
    assert made.id == "c/a b"
    assert made.outputs["lastModified"] == "2025-01-31T12:00:00Z"
    assert made.outputs["deleteAt"] == "2099-01-31T12:00:00Z"
    assert changed(recorded.diff(made, inputs)) == {"metadata"}

    path = tmp_path / "data"
    path.write_text("from a file")
    given = {"containerName": "c", "name": "a b", "source": str(path)}
    assert not recorded.diff(made, given).replaces
    recorded.update(made, given)
    assert recorder.sent("PUT")[-1].body == "from a file"


def test_faults(offline: Plugin) -> None:
    _, failures = offline.check_failures(OBJECT, {"containerName": "c"})
    assert failures == {"content": "or source, copyFrom or objectManifest is required"}
    _, failures = offline.check_failures(
        OBJECT, {"containerName": "c", "content": "a", "source": "b", "deleteAt": "tomorrow"}
    )
    assert set(failures) == {"content", "deleteAt"}
    _, failures = offline.check_failures(
        CONTAINER, {"name": "a/b", "versioningLegacy": {"type": "old", "location": "l"}}
    )
    assert set(failures) == {"name", "versioningLegacy.type"}
