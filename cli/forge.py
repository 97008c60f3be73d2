"""Pull requests, comments and issues on GitHub, Gitea and Forgejo.

The parts of their REST APIs that are used here are the same: paths, fields, and the `Link` header for the next page.
Jobs find API, repository and event in environment variables of the same names.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from cli.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests.adapters import HTTPAdapter

Json = dict[str, Any]

TIMEOUT_SECONDS = 30
RETRIES = 7
"""With the pauses between them a minute: the forge may be starting anew."""
PAGE = 50
LOOK_BACK = 500
"""Maximum number of pull requests to search for a commit, latest first."""
VARIABLES = ("GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN")


@dataclass(frozen=True)
class PullRequest:
    """The fields of a pull request that are used."""

    number: int
    title: str
    head: str
    """The last commit of its branch."""
    labels: frozenset[str]
    is_open: bool
    merged: bool
    merge_commit: str
    author: str
    url: str
    """Of its page."""

    @classmethod
    def of(cls, record: Json) -> PullRequest:
        """Parse a pull request from an answer or an event."""
        return cls(
            number=int(record["number"]),
            title=str(record.get("title") or ""),
            head=str((record.get("head") or {}).get("sha") or ""),
            labels=frozenset(str(label["name"]) for label in record.get("labels") or ()),
            is_open=record.get("state") == "open",
            merged=bool(record.get("merged") or record.get("merged_at")),
            merge_commit=str(record.get("merge_commit_sha") or ""),
            author=str((record.get("user") or {}).get("login") or ""),
            url=str(record.get("html_url") or ""),
        )


@dataclass(frozen=True)
class Job:
    """The job that runs this process."""

    api: str
    repository: str
    token: str
    commit: str
    event_path: Path | None
    user: str = ""
    """Whose password the token is; empty where it is a token."""

    @classmethod
    def current(cls) -> Job:
        """The job, from its variables.

        Raises:
            LabError: this is not a job, or it has no token.
        """
        missing = [name for name in VARIABLES if not os.environ.get(name)]
        if missing:
            raise LabError(
                f"not set: {', '.join(missing)}",
                remedy="run it in a workflow, as in .github/workflows, with this in `env`: "
                "GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}; elsewhere set the URL of the API (Gitea's ends in "
                "/api/v1), OWNER/NAME of the repository, and a token that can read pull requests and write comments",
            )
        api, repository = (os.environ[name] for name in VARIABLES[:2])
        # Programs that are started later do not need it.
        token = os.environ.pop("GITHUB_TOKEN")
        path = os.environ.get("GITHUB_EVENT_PATH")
        return cls(api.rstrip("/"), repository, token, os.environ.get("GITHUB_SHA", ""), Path(path) if path else None)

    @cached_property
    def event(self) -> Json:
        """The event that started the job; empty outside of a workflow.

        Raises:
            LabError: its file cannot be read.
        """
        if self.event_path is None:
            return {}
        try:
            event = json.loads(self.event_path.read_text())
        except (OSError, ValueError) as error:
            raise LabError(f"the event of this job, {self.event_path}, cannot be read: {error}") from None
        return event if isinstance(event, dict) else {}

    @property
    def is_of_pull_request(self) -> bool:
        """Whether the event is about a pull request."""
        return isinstance(self.event.get("pull_request"), dict)

    def pull_request(self) -> PullRequest:
        """The pull request of the event.

        Raises:
            LabError: the event is not about a pull request.
        """
        if not self.is_of_pull_request:
            raise LabError("this job was not started by a pull request", remedy="start it `on: pull_request`")
        return PullRequest.of({"number": self.event.get("number"), **self.event["pull_request"]})


class Forge:
    """The REST API, for one repository."""

    def __init__(self, job: Job, adapter: HTTPAdapter | None = None, authority: str = "") -> None:
        """The forge of a job; by an adapter that reaches it in another way, and with the authority in a file."""
        from requests import Session
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        self._repository = job.repository
        self._base = f"{job.api}/repos/{job.repository}"
        self._http = Session()
        self._http.headers["Accept"] = "application/json"
        if job.user:
            self._http.auth = (job.user, job.token)
        else:
            self._http.headers["Authorization"] = f"token {job.token}"
        # POST is not retried: the first request may have succeeded.
        retry = Retry(RETRIES, backoff_factor=0.5, status_forcelist=(502, 503, 504), allowed_methods=("GET", "PATCH"))
        self._remedy = "see `lab status`" if adapter else "check GITHUB_API_URL"
        way = adapter or HTTPAdapter()
        way.max_retries = retry
        if authority:
            # The user's own proxy and authorities are for other servers.
            self._http.trust_env, self._http.verify = False, authority
        self._http.mount(self._base, way)

    def find_pull_request(self, number: int) -> PullRequest:
        """Read a pull request.

        Raises:
            LabError: it does not exist, or the forge refuses.
        """
        return PullRequest.of(self._send("GET", f"/pulls/{number}"))

    def find_merged(self, commit: str) -> PullRequest | None:
        """The pull request whose merge created a commit of the main branch."""
        for index, record in enumerate(self._list("/pulls", state="closed")):
            pull_request = PullRequest.of(record)
            if pull_request.merged and pull_request.merge_commit == commit:
                return pull_request
            if index + 1 >= LOOK_BACK:
                break
        return None

    def put_pull_request(self, branch: str, base: str, title: str, text: str) -> tuple[int, bool]:
        """Open a pull request of a branch, or update the open one; return its number, and whether it is new.

        Raises:
            LabError: the forge does not answer, or refuses.
        """
        if (record := self._open(branch)) is not None:
            if (record.get("title"), _lines(record.get("body"))) != (title, _lines(text)):
                self._send("PATCH", f"/pulls/{record['number']}", {"title": title, "body": text})
            return int(record["number"]), False
        made = self._send("POST", "/pulls", {"title": title, "body": text, "head": branch, "base": base})
        return int(made["number"]), True

    def is_proposed(self, branch: str) -> bool:
        """Whether a branch has an open pull request."""
        return self._open(branch) is not None

    def _open(self, branch: str) -> Json | None:
        for record in self._list("/pulls", state="open"):
            head = record.get("head") or {}
            # A fork's branch may have the same name.
            if (head.get("ref"), (head.get("repo") or {}).get("full_name")) == (branch, self._repository):
                return record
        return None

    def put_comment(self, number: int, text: str) -> None:
        """Comment on a pull request or an issue, or update the comment with the same first line."""
        marker = _first_line(text)
        for comment in self._list(f"/issues/{number}/comments"):
            if _first_line(str(comment.get("body") or "")) == marker:
                if comment["body"] != text:
                    self._send("PATCH", f"/issues/comments/{comment['id']}", {"body": text})
                return
        self._send("POST", f"/issues/{number}/comments", {"body": text})

    def put_issue(self, title: str, text: str) -> int:
        """Open an issue, or update the open one with the same first line; return its number."""
        found = self._find_issue(_first_line(text))
        if found is None:
            return int(self._send("POST", "/issues", {"title": title, "body": text})["number"])
        if (found["title"], found["body"]) != (title, text):
            self._send("PATCH", f"/issues/{found['number']}", {"title": title, "body": text})
        return int(found["number"])

    def close_issue(self, marker: str, comment: str) -> int | None:
        """Close the open issue whose first line is `marker`, with a last comment; return its number."""
        found = self._find_issue(marker)
        if found is None:
            return None
        self._send("POST", f"/issues/{found['number']}/comments", {"body": comment})
        self._send("PATCH", f"/issues/{found['number']}", {"state": "closed"})
        return int(found["number"])

    def _find_issue(self, marker: str) -> Json | None:
        # GitHub lists pull requests among the issues.
        for issue in self._list("/issues", state="open"):
            if not issue.get("pull_request") and _first_line(str(issue.get("body") or "")) == marker:
                return issue
        return None

    def _list(self, path: str, **query: str) -> Iterator[Json]:
        """All entries of a list, page by page. GitHub and Gitea have different names for the page size."""
        params = {**query, "per_page": str(PAGE), "limit": str(PAGE)}
        while params:
            answer = self._answer("GET", self._base + path, params=params)
            yield from answer.json()
            # Gitea's link has its public address, which jobs beside it may not reach; no other host gets the token.
            params = dict(parse_qsl(urlsplit(str(answer.links.get("next", {}).get("url", ""))).query))

    def _send(self, method: str, path: str, body: Json | None = None) -> Json:
        answer: Json = self._answer(method, self._base + path, json=body).json()
        return answer

    def _answer(self, method: str, url: str, **arguments: Any) -> Any:
        from requests.exceptions import RequestException

        request = f"{method} {url}"
        try:
            answer = self._http.request(method, url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **arguments)
        except RequestException as error:
            raise LabError(
                f"{request}: the forge does not answer: {error}",
                remedy=f"{self._remedy}, then run it again",
            ) from None
        if not 200 <= answer.status_code < 300:
            remedy = "see the forge's log"
            if answer.status_code in {401, 403, 404}:
                remedy = "the job's token has no permission, or it does not exist: see `permissions` in the workflow"
            raise LabError(f"{request}: {answer.status_code} {_explain(answer.text)}", remedy=remedy)
        return answer


def _lines(text: object) -> list[str]:
    return [line.rstrip() for line in str(text or "").splitlines()]


def _first_line(text: str) -> str:
    # Forges store line endings differently.
    return text.splitlines()[0].strip() if text else ""


def _explain(text: str) -> str:
    """The message in an error of the forge."""
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return " ".join(str(message).split())[:300]
