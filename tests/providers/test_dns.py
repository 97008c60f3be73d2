"""What the DNS types send, without a Designate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.plugin import CallError, Plugin, changed

if TYPE_CHECKING:
    from tests.providers.recorder import Recorder

ZONE = "openstack:dns/zone:Zone"
RECORDS = "openstack:dns/recordSet:RecordSet"


def zone(status: str = "ACTIVE", **more: Any) -> dict[str, Any]:
    found = {"id": "z", "name": "a.org.", "status": status, "project_id": "p", "type": "PRIMARY", "ttl": 3600}
    return {**found, "email": "me@a.org", "description": None, "masters": [], "attributes": {}, **more}


def records(status: str = "ACTIVE", **more: Any) -> dict[str, Any]:
    found = {"id": "r", "name": "www.a.org.", "status": status, "project_id": "p", "type": "A", "ttl": None}
    return {**found, "records": ["10.0.0.2", "10.0.0.1"], "description": None, **more}


def test_zone(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/zones", 202, zone("PENDING"))
    recorder.answer("GET", "/zones/z", 200, zone("PENDING"))
    recorder.answer("GET", "/zones/z", 200, zone())
    inputs = {"name": "a.org.", "email": "me@a.org", "valueSpecs": {"x": "y"}}
    made = recorded.create(ZONE, inputs)
    assert recorder.sent("POST")[0].body == {"name": "a.org.", "email": "me@a.org", "x": "y"}
    assert (made.id, made.outputs["ttl"], made.outputs["type"]) == ("z", 3600, "PRIMARY")
    assert not changed(recorded.diff(made, inputs))
    assert list(recorded.diff(made, {**inputs, "name": "b.org."}).replaces) == ["name"]

    recorder.answer("PATCH", "/zones/z", 202, zone("PENDING"))
    recorded.update(made, {**inputs, "email": "you@a.org", "ttl": 60, "description": "of a test"})
    assert recorder.sent("PATCH")[0].body == {"email": "you@a.org", "ttl": 60, "description": "of a test"}

    recorder.answers.clear()
    recorder.answer("DELETE", "/zones/z", 202)
    recorder.answer("GET", "/zones/z", 404)
    recorded.delete(made)
    assert recorded.read(made) is None


def test_a_zone_that_fails_is_not_lost(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/zones", 202, zone("PENDING"))
    recorder.answer("GET", "/zones/z", 200, zone("ERROR"))
    with pytest.raises(CallError, match="zone z is in status ERROR") as caught:
        recorded.create(ZONE, {"name": "a.org.", "email": "me@a.org"})
    assert caught.value.partial
    assert caught.value.partial.id == "z"


def test_without_status_check(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/zones", 202, zone("PENDING"))
    recorder.answer("GET", "/zones/z", 200, zone("PENDING"))
    made = recorded.create(ZONE, {"name": "a.org.", "email": "me@a.org", "disableStatusCheck": True})
    recorder.answer("DELETE", "/zones/z", 202)
    recorded.delete(made)
    assert made.id == "z"


def test_record_set(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/zones/z/recordsets", 202, records("PENDING"))
    recorder.answer("GET", "/zones/z/recordsets/r", 200, records())
    inputs = {"zoneId": "z", "name": "www.a.org.", "type": "A", "records": ["10.0.0.1", "10.0.0.2"]}
    made = recorded.create(RECORDS, inputs)
    assert recorder.sent("POST")[0].body == {"name": "www.a.org.", "type": "A", "records": ["10.0.0.1", "10.0.0.2"]}
    assert made.id == "z/r"
    assert not changed(recorded.diff(made, inputs)), "the order of records makes no difference"

    recorder.answer("PUT", "/zones/z/recordsets/r", 202, records("PENDING"))
    recorded.update(made, {**inputs, "records": ["10.0.0.3"]})
    assert recorder.sent("PUT")[0].body == {"records": ["10.0.0.3"]}


def test_imports(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("GET", "/zones/z", 200, zone())
    recorder.answer("GET", "/zones/z/recordsets/r", 200, records())
    for token, given, expected in (
        (ZONE, "z", "z"),
        (ZONE, "z:other", "z"),
        (RECORDS, "z/r", "z/r"),
        (RECORDS, "other/z/r", "z/r"),
    ):
        imported = recorded.import_(token, given)
        assert imported
        assert imported.id == expected
    sudo = [request.headers.get("X-Auth-Sudo-Tenant-ID") for request in recorder.sent("GET")]
    assert sudo == [None, "other", None, "other"]
    with pytest.raises(CallError, match="is not the id of a record set"):
        recorded.import_(RECORDS, "z")
