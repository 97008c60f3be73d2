"""The repository of a stack on its forge: files of a branch by git, pull requests by REST.

It is that of the forge on the cluster, reached through the gateway by address, or the one that a job's variables name.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

from cli.box import ADMIN, API, FORGE, MAIN, REPOSITORY, settings_of_git
from cli.errors import LabError
from cli.forge import VARIABLES, Forge, Job
from cli.git_command import configured, git

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cli.forge import PullRequest
    from cli.workloads import Platform

HELPER = '!f() { echo username=x-access-token; echo "password=$LAB_GIT_TOKEN"; }; f'
BASE = "refs/heads/base"
"""The branch that was read, in the clone that holds it."""


class ByAddress(HTTPAdapter):
    """Connects to an address, whatever the name resolves to, and checks the certificate of the name."""

    def __init__(self, name: str, address: str) -> None:
        self._name, self._address = name, address
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        """Have the pools ask for the name."""
        super().init_poolmanager(*args, **more, server_hostname=self._name, assert_hostname=self._name)

    def send(self, request: Any, *args: Any, **more: Any) -> Any:
        """Send a request to the address."""
        parts = urlsplit(request.url)
        request.headers["Host"] = parts.netloc
        request.url = parts._replace(netloc=f"{self._address}:{parts.port}").geturl()
        return super().send(request, *args, **more)


@dataclass(frozen=True)
class Snapshot:
    """Files of a commit, by path."""

    commit: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Repository:
    """A repository on a forge."""

    forge: Forge
    url: str
    variables: Mapping[str, str]
    """By which git reaches it."""
    author: str
    clone: Path

    def read(self, folder: str, branch: str = MAIN) -> Snapshot:
        """The last commit of a branch, with the files below a folder.

        Raises:
            LabError: the forge does not answer, or has no such branch.
        """
        self._git("fetch", "--quiet", "--depth=1", "--force", self.url, f"refs/heads/{branch}:{BASE}")
        # Paths between NULs are as they are; others may be quoted.
        listed = self._git("ls-tree", "-r", "-z", "--name-only", BASE, "--", f"{folder}/").split("\0")
        files = {path: self._git("show", f"{BASE}:{path}", strip=False) for path in listed if path.endswith(".yaml")}
        return Snapshot(self._git("rev-parse", BASE), files)

    def propose(self, branch: str, files: Mapping[str, str], title: str, text: str) -> PullRequest:
        """Have a branch be the last commit of `main` with other files, and a pull request of it open; return that.

        The same files on the same commit are the same branch: a push that changes nothing takes no approval away.

        Raises:
            LabError: the forge does not answer, or refuses.
        """
        self._git("fetch", "--quiet", "--depth=1", "--force", self.url, f"refs/heads/{MAIN}:{BASE}")
        self._git("read-tree", BASE)
        for path, content in files.items():
            blob = Path(self.clone, "blob")
            blob.write_text(content)
            name = self._git("hash-object", "-w", str(blob))
            self._git("update-index", "--add", "--cacheinfo", f"100644,{name},{path}")
        commit = self._commit(self._git("write-tree"), title)
        self._git("push", "--quiet", "--force", self.url, f"{commit}:refs/heads/{branch}")
        number, _ = self.forge.put_pull_request(branch, MAIN, title, text)
        return self.forge.find_pull_request(number)

    def _commit(self, tree: str, title: str) -> str:
        date = self._git("show", "--no-patch", "--format=%cI", BASE)
        who = {"NAME": self.author, "EMAIL": f"{self.author}@lab.internal", "DATE": date}
        variables = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
        return self._git("commit-tree", tree, "-p", BASE, "-m", title, variables=variables)

    def _git(self, *words: str, variables: Mapping[str, str] | None = None, strip: bool = True) -> str:
        done = git(self.clone, *words, environment={**self.variables, **(variables or {})})
        if done.returncode:
            raise LabError(
                f"git {words[0]}: {self.url} does not answer, or refuses: {done.stderr.strip()[-500:]}",
                remedy="check `lab status`, and that this user may write to the repository; then run it again",
            )
        return done.stdout.strip() if strip else done.stdout


@contextmanager
def repository_of(platform: Platform, user: str = ADMIN) -> Iterator[Repository]:
    """The stack's repository: on the forge on the cluster, as one of its users, or where a job's variables say.

    Raises:
        LabError: there is neither; the forge has no such user.
    """
    users = platform.credentials.get(FORGE)
    if users is None:
        if not all(os.environ.get(name) for name in VARIABLES):
            raise LabError(
                "the stack has no forge",
                remedy=f"add platform.forge to its settings, or set {', '.join(VARIABLES)} for a forge elsewhere",
            )
        with repository_of_job(Job.current()) as found:
            yield found
        return
    if user not in users:
        raise LabError(f"the forge has no user '{user}'", remedy=f"choose one of: {', '.join(users)}")
    name = f"{FORGE}.{platform.domain}"
    base = API.removesuffix(f"/repos/{REPOSITORY}")
    job = Job(f"{platform.url(FORGE)}{base}", REPOSITORY, users[user], "", None, user)
    with tempfile.TemporaryDirectory() as folder:
        authority = Path(folder, "authority.pem")
        authority.write_text(platform.authority)
        forge = Forge(job, ByAddress(name, platform.address), str(authority))
        url = f"{platform.url(FORGE)}/{REPOSITORY}.git"
        yield Repository(forge, url, settings_of_git(platform, authority, user), user, _clone(folder))


@contextmanager
def repository_of_job(job: Job, forge: Forge | None = None) -> Iterator[Repository]:
    """The repository of a job, with the job's token."""
    url = f"{os.environ.get('GITHUB_SERVER_URL', '').rstrip('/')}/{job.repository}"
    variables = {"LAB_GIT_TOKEN": job.token, **configured({"credential.helper": HELPER})}
    with tempfile.TemporaryDirectory() as folder:
        yield Repository(forge or Forge(job), url, variables, "lab", _clone(folder))


def _clone(folder: str) -> Path:
    """An empty repository, which takes no more than is fetched into it."""
    made = Path(folder, "clone")
    made.mkdir()
    if (done := git(made, "init", "--quiet", "--bare")).returncode:
        raise LabError(f"git init: {done.stderr.strip()}")
    return made
