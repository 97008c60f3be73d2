"""A forge that speaks as much of Gitea's REST API as `lab ci` uses, over HTTP, with its paging and its refusals."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]
REPOSITORY = "lab/cluster"
TOKEN = "planted-forge-token"  # noqa: S105
PAGE = 2
"""Entries of a page, whatever is asked for: Gitea has a largest page too."""


@dataclass
class Forge:
    """What the forge holds; tests write into it, and read what jobs have made of it."""

    pulls: list[Json] = field(default_factory=list)
    issues: list[Json] = field(default_factory=list)
    comments: dict[int, list[Json]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    """Status codes that the next requests are answered with."""
    next_host: str = ""
    """Where the links to next pages lead, instead of here."""
    ids: int = 100

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The API's root, as Gitea's jobs find it in GITHUB_API_URL."""
        return f"http://127.0.0.1:{self._server.server_port}/api/v1"

    @property
    def environment(self) -> dict[str, str]:
        """What a job has of it."""
        return {"GITHUB_API_URL": self.url, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_TOKEN": TOKEN}

    def pull(self, number: int, head: str, *labels: str, **more: Any) -> Json:
        """Open a pull request."""
        record = {
            "number": number,
            "title": f"Change {number}",
            "state": "open",
            "merged": False,
            "merge_commit_sha": None,
            "head": {"sha": head, "repo": {"full_name": REPOSITORY}},
            "labels": [{"id": index, "name": name} for index, name in enumerate(labels)],
            **more,
        }
        self.pulls = [pull for pull in self.pulls if pull["number"] != number] + [record]
        return record

    def merge(self, number: int, commit: str) -> Json:
        """Merge a pull request."""
        (record,) = [pull for pull in self.pulls if pull["number"] == number]
        record.update(state="closed", merged=True, merge_commit_sha=commit)
        return record

    def bodies(self, number: int) -> list[str]:
        """The comments on a pull request or an issue."""
        return [comment["body"] for comment in self.comments.get(number, [])]

    def answer(self, method: str, path: str, body: Json) -> tuple[int, Any]:
        """What the API answers."""
        routes: tuple[tuple[str, str, Callable[[int], Any]], ...] = (
            ("GET", r"/pulls/(\d+)", lambda number: _find(self.pulls, "number", number)),
            ("GET", r"/issues/(\d+)/comments", lambda number: self.comments.get(number, [])),
            ("POST", r"/issues/(\d+)/comments", lambda number: self._comment(number, body["body"])),
            ("PATCH", r"/issues/comments/(\d+)", lambda number: _change(self._all_comments, "id", number, body)),
            ("POST", r"/issues()", lambda _: self._open(body)),
            ("POST", r"/pulls()", lambda _: self._propose(body)),
            ("PATCH", r"/pulls/(\d+)", lambda number: _change(self.pulls, "number", number, body)),
            ("PATCH", r"/issues/(\d+)", lambda number: _change(self.issues, "number", number, body)),
        )
        for wanted, pattern, act in routes:
            if method == wanted and (found := re.fullmatch(pattern, path)):
                answer = act(int(found[1] or 0))
                return (404, {"message": "not there"}) if answer is None else (201 if method == "POST" else 200, answer)
        return 404, {"message": "The target couldn't be found."}

    @property
    def _all_comments(self) -> list[Json]:
        return [comment for comments in self.comments.values() for comment in comments]

    def _comment(self, number: int, text: str) -> Json:
        # Forges store line ends as browsers send them.
        comment = {"id": self._id(), "body": text.replace("\n", "\r\n")}
        self.comments.setdefault(number, []).append(comment)
        return comment

    def _open(self, body: Json) -> Json:
        self.issues.append({"number": self._id(), "state": "open", **body})
        return self.issues[-1]

    def _propose(self, body: Json) -> Json:
        head = {"ref": body["head"], "sha": "", "repo": {"full_name": REPOSITORY}}
        record = self.pull(self._id(), "")
        record.update(body, head=head)
        return record

    def listed(self, path: str, state: str) -> list[Json] | None:
        """The list at a path that has pages."""
        if path == "/pulls":
            return [pull for pull in reversed(self.pulls) if pull["state"] == state]
        if path == "/issues":
            # GitHub has pull requests among the issues.
            disguised = [{**pull, "body": "", "pull_request": {}} for pull in self.pulls if pull["state"] == state]
            return disguised + [issue for issue in self.issues if issue["state"] == state]
        return None

    def _id(self) -> int:
        self.ids += 1
        return self.ids


def _find(records: list[Json], key: str, value: int) -> Json | None:
    return next((record for record in records if record[key] == value), None)


def _change(records: list[Json], key: str, value: int, body: Json) -> Json | None:
    record = _find(records, key, value)
    if record is not None:
        record.update(body)
    return record


def _handler(forge: Forge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle()

        do_POST = do_PATCH = do_GET  # noqa: N815

        def _handle(self) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            prefix = f"/api/v1/repos/{REPOSITORY}"
            forge.requests.append((self.command, parts.path.removeprefix(prefix)))
            if forge.failures:
                self._reply(forge.failures.pop(0), {"message": "planted failure"})
            elif self.headers.get("Authorization") != f"token {TOKEN}":
                self._reply(401, {"message": "invalid username, password or token"})
            elif not parts.path.startswith(prefix):
                self._reply(404, {"message": "Not Found"})
            else:
                self._dispatch(parts.path.removeprefix(prefix), parse_qs(parts.query), body)

        def _dispatch(self, path: str, query: dict[str, list[str]], body: Json) -> None:
            listed = forge.listed(path, query.get("state", ["open"])[0]) if self.command == "GET" else None
            if listed is None:
                self._reply(*forge.answer(self.command, path, body))
                return
            page = int(query.get("page", ["1"])[0])
            link = ""
            if page * PAGE < len(listed):
                host = forge.next_host or forge.url.removesuffix("/api/v1")
                state = query.get("state", ["open"])[0]
                link = f'<{host}{urlsplit(self.path).path}?page={page + 1}&state={state}>; rel="next"'
            self._reply(200, listed[(page - 1) * PAGE : page * PAGE], link)

        def _reply(self, status: int, content: Any, link: str = "") -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if link:
                self.send_header("Link", link)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
