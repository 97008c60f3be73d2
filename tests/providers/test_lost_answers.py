"""What the plugin does about a create whose answer does not tell what became of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.plugin import CallError, Plugin, Resource

if TYPE_CHECKING:
    from tests.providers.recorder import Recorder

NETWORK = "openstack:networking/network:Network"
INPUTS = {"name": "lab", "tags": ["a"]}
LIST = "/networks?name=lab"


def network(recorder: Recorder, id_: str, **more: Any) -> dict[str, Any]:
    """A network that is being made now, and how the cloud answers when it is asked for it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    item = {"id": id_, "name": "lab", "status": "ACTIVE", "project_id": "p", "tags": [], "created_at": now, **more}
    recorder.answer("GET", f"/networks/{id_}", 200, {"network": item})
    recorder.answer("PUT", f"/networks/{id_}/tags", 200, {"tags": ["a"]})
    return item


def posts(recorder: Recorder) -> int:
    return len(recorder.sent("POST"))


@pytest.mark.parametrize("answer", [(500, {"message": "oops"}), (201, "Sorry!")], ids=["failed", "no JSON"])
def test_what_was_made_is_found_and_completed(recorder: Recorder, recorded: Plugin, answer: tuple[int, Any]) -> None:
    made = f"made-{answer[0]}"
    recorder.answer("POST", "/networks", *answer)
    recorder.answer("GET", LIST, 200, {"networks": [network(recorder, made)]})
    assert recorded.create(NETWORK, INPUTS).id == made
    assert [(request.path, request.body) for request in recorder.sent("PUT")] == [
        (f"/networks/{made}/tags", {"tags": ["a"]})
    ]
    assert posts(recorder) == 1


def test_what_was_not_made_is_made_again(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/networks", 500, {"message": "oops"})
    recorder.answer("POST", "/networks", 201, {"network": network(recorder, "second")})
    recorder.answer("GET", LIST, 200, {"networks": []})
    assert recorded.create(NETWORK, INPUTS).id == "second"
    assert posts(recorder) == 2


def test_what_another_resource_is_was_not_made(recorder: Recorder, recorded: Plugin) -> None:
    """As when a network of a given name is replaced, create-first, soon after it was made."""
    old = network(recorder, "old")
    assert recorded.read(Resource(NETWORK, "thing", "old", dict(INPUTS), dict(INPUTS)))
    recorder.answer("POST", "/networks", 500, {"message": "oops"})
    recorder.answer("POST", "/networks", 201, {"network": network(recorder, "new")})
    recorder.answer("GET", LIST, 200, {"networks": [old]})
    assert recorded.create(NETWORK, INPUTS).id == "new"


def test_a_cloud_that_keeps_failing_is_given_up(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/networks", 500, {"message": "oops"}, x_openstack_request_id="req-1")
    recorder.answer("GET", LIST, 200, {"networks": []})
    with pytest.raises(CallError, match=r"POST network/networks answered 500: oops \(req-1\)") as caught:
        recorded.create(NETWORK, INPUTS)
    assert not caught.value.outcome_unknown
    assert posts(recorder) == 3


def test_what_nobody_can_tell_is_told_so(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/networks", 500, {"message": "oops"})
    recorder.answer("GET", LIST, 200, {"networks": [network(recorder, "one"), network(recorder, "two")]})
    with pytest.raises(CallError, match="answered 500: oops") as caught:
        recorded.create(NETWORK, INPUTS)
    assert caught.value.outcome_unknown
    assert posts(recorder) == 1


def test_what_is_made_late_is_found_when_it_is_in_the_way(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/networks", 500, {"message": "oops"})
    recorder.answer("POST", "/networks", 409, {"message": "There is one of that name"})
    recorder.answer("GET", LIST, 200, {"networks": []})
    recorder.answer("GET", LIST, 200, {"networks": [network(recorder, "late")]})
    assert recorded.create(NETWORK, INPUTS).id == "late"


def test_a_refusal_is_one(recorder: Recorder, recorded: Plugin) -> None:
    recorder.answer("POST", "/networks", 409, {"message": "Quota exceeded"})
    with pytest.raises(CallError, match="answered 409") as caught:
        recorded.create(NETWORK, INPUTS)
    assert not caught.value.outcome_unknown
    assert [request.method for request in recorder.requests] == ["POST"]
