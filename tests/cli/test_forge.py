"""The REST calls of `lab ci`: paging, retries, refusals; against a server that speaks Gitea's paths."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cli.errors import LabError
from cli.forge import Forge, Job
from tests.cli.forge_server import REPOSITORY, TOKEN
from tests.cli.forge_server import Forge as Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKER = "<!-- ml-cluster: preview of stack dev -->"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def forge(server: Server) -> Forge:
    return Forge(Job(server.url, REPOSITORY, TOKEN, "", None))


def test_a_comment_is_changed_in_place(server: Server, forge: Forge) -> None:
    server.pull(7, "a" * 40)
    forge.put_comment(7, "somebody's\nword")
    forge.put_comment(7, f"{MARKER}\nfirst")
    forge.put_comment(7, f"{MARKER}\nsecond")
    assert [body.splitlines()[-1] for body in server.bodies(7)] == ["word", "second"]
    server.requests.clear()
    forge.put_comment(7, f"{MARKER}\nsecond")
    assert {method for method, _ in server.requests} == {"GET"}


def test_the_pull_request_of_a_merge_is_found_on_any_page(server: Server, forge: Forge) -> None:
    for number in range(1, 10):
        server.pull(number, f"{number:040}")
        server.merge(number, f"{number + 100:040}")
    server.pull(20, "b" * 40, state="closed", merge_commit_sha="c" * 40)  # closed, not merged
    found = forge.find_merged(f"{101:040}")
    assert found is not None
    assert (found.number, found.head) == (1, f"{1:040}")
    assert sum(path == "/pulls" for _, path in server.requests) == 5
    assert forge.find_merged("c" * 40) is None


def test_an_issue_is_opened_once_and_closed(server: Server, forge: Forge) -> None:
    for number in range(1, 6):
        server.pull(number, "a" * 40)
    first = forge.put_issue("Drift", f"{MARKER}\none")
    assert forge.put_issue("Drift", f"{MARKER}\ntwo") == first
    (issue,) = server.issues
    assert (issue["state"], issue["body"]) == ("open", f"{MARKER}\ntwo")
    assert forge.close_issue(MARKER, "healed") == first
    assert issue["state"] == "closed"
    assert server.bodies(first) == ["healed"]
    assert forge.close_issue(MARKER, "healed") is None
    assert forge.put_issue("Drift", f"{MARKER}\nagain") != first


def test_a_forge_that_stumbles_is_asked_again_but_nothing_is_made_twice(server: Server, forge: Forge) -> None:
    server.pull(7, "a" * 40)
    server.failures = [502, 503]
    assert forge.find_pull_request(7).number == 7
    server.failures = [502]
    with pytest.raises(LabError, match="502 planted failure"):
        forge._send("POST", "/issues/7/comments", {"body": "x"})
    assert server.bodies(7) == []


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "permissions"), (403, "permissions"), (404, "permissions"), (500, "log"), (302, "log")]
)
def test_a_refusal_says_what_was_asked_and_what_to_do(server: Server, forge: Forge, status: int, remedy: str) -> None:
    server.failures = [status]
    with pytest.raises(LabError, match=rf"GET http.*/pulls/7: {status} planted failure") as caught:
        forge.find_pull_request(7)
    assert remedy in str(caught.value.remedy)
    assert TOKEN not in str(caught.value)


def test_pages_are_read_from_the_host_that_was_asked_and_the_token_goes_to_no_other(
    server: Server, forge: Forge
) -> None:
    """Gitea links to its public address, whatever it was asked at."""
    for number in range(1, 6):
        server.pull(number, f"{number:040}")
        server.merge(number, f"{number + 100:040}")
    with Server() as other:
        server.next_host = other.url.removesuffix("/api/v1")
        found = forge.find_merged(f"{101:040}")
        assert found is not None
        assert found.number == 1
        assert other.requests == []


def test_a_forge_that_is_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.forge.RETRIES", 1)
    forge = Forge(Job(server.url, REPOSITORY, TOKEN, "", None))
    server._server.shutdown()
    server._server.server_close()
    with pytest.raises(LabError, match="does not answer"):
        forge._send("POST", "/issues/7/comments", {"body": "x"})


def test_a_job_without_its_variables_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LabError, match="not set: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_TOKEN"):
        Job.current()


def test_the_event_says_which_pull_request(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "event.json"
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(path))
    path.write_text(json.dumps({"number": 7, "pull_request": server.pull(7, "a" * 40, "destructive")}))
    assert Job.current().pull_request().labels == {"destructive"}
    for event, saying in (({"ref": "refs/heads/main"}, "was not started by a pull request"), (None, "cannot be read")):
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        path.write_text("{" if event is None else json.dumps(event))
        with pytest.raises(LabError, match=saying):
            Job.current().pull_request()
