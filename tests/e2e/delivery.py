"""A stack whose changes come by pull request: its forge on the cluster, its clones, and a runner beside the bundle."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.util import make_headers

from cli.box import settings_of_git
from tests.cli.harness import ROOT, Lab
from tests.devcloud import support
from tests.e2e.harness import VERSION, Deployment
from tests.e2e.platform_stack import PlatformStack
from tests.forge.box import BOUND, REPOSITORY, Answer, end
from tests.forge.pulls import approve, checked, merge
from tests.providers.kubernetes.control_plane import BUNDLE, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.workloads import Platform
    from tests.e2e.harness import Cloud

RUNNER = "lab"
"""Label of the runner that has the bundle."""
PEOPLE = ("ada", "grace")
PATIENCE_SECONDS = 1800.0
"""A deployment, which may begin after another one's end."""
CACHE = Path.home() / ".cache"
SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
COMMITTER = {f"GIT_{who}_{what}": "lab@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def wait(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; return it."""
    return support.wait(condition, PATIENCE_SECONDS, what)


class Clone(Deployment):
    """A clone of this repository, as it is committed: what the stack's program is, and what is pushed to its forge."""

    def _provide_program(self) -> None:
        self._git("clone", "--quiet", str(ROOT), ".")
        self._git("switch", "--quiet", "--force-create", "main")
        (self.project / ".git/info/exclude").write_text(".venv\n")

    def commit(self) -> None:
        """Commit the stack's file, with what `stack init` has written into it."""
        self._git("add", self._file.name)
        self._git("commit", "--quiet", "--message=Settings of the stack")

    @property
    def settings(self) -> str:
        """Name of the stack's file."""
        return self._file.name

    def beside(self, clone: Path) -> Lab:
        """`lab` for the same stack with the program and the settings of another clone."""
        other = Lab(self.home / "others")
        other.project, other.home, other.backend = clone, self.home, self.backend
        other.env, other.patience_seconds = self.env, self.patience_seconds
        (clone / ".git/info/exclude").write_text(".venv\n")
        (clone / ".venv").symlink_to(self.project / ".venv")
        return other

    def _git(self, *words: str) -> None:
        command = ["git", "-C", str(self.project), *words]
        subprocess.run(command, env={**os.environ, **COMMITTER}, check=True)


class ClusterForge:
    """The forge through the gateway, as its users reach it: API and Git, its certificate checked."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform = platform
        self.passwords: Any = platform.credentials["forge"]
        self.authority = folder / "authority.pem"
        self.authority.write_text(platform.authority)
        self.url = platform.url("forge")

    def ask(self, method: str, path: str, body: Any = None, *, user: str = "admin") -> Answer:
        """Call the API as a user.

        Raises:
            urllib3.exceptions.HTTPError: it does not answer.
        """
        answer = self._send(method, path, body, user)
        is_json = "json" in answer.headers.get("Content-Type", "")
        return Answer(answer.status, answer.json() if is_json and answer.data else answer.data.decode(errors="replace"))

    def git(self, clone: Path, *words: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        """Run git with a user's password, which is on no command line."""
        login = {"LAB_FORGE_USER": user, "LAB_FORGE_PASSWORD": self.passwords[user]}
        settings = {**settings_of_git(self.platform, self.authority), **login}
        return subprocess.run(
            ["git", "-C", str(clone), *words], env={**os.environ, **COMMITTER, **settings},
            check=False, capture_output=True, text=True,
        )  # fmt: skip

    def clone(self, folder: Path, user: str = "ada") -> Path:
        """The repository as a user clones it, in a new folder."""
        folder.mkdir(parents=True)
        done = self.git(folder, "clone", "--quiet", f"{self.url}/{REPOSITORY}.git", ".", user=user)
        assert done.returncode == 0, done.stderr
        return folder

    def job(self, name: str, commit: str) -> dict[str, Any]:
        """The job of a commit; nothing before there is one."""
        found = self.ask("GET", f"/repos/{REPOSITORY}/actions/jobs?limit=50&sort=id&order=desc").body["jobs"] or []
        return next((job for job in found if (job["name"], job["head_sha"]) == (name, commit)), {})

    def log(self, job: dict[str, Any]) -> str:
        """What a job has printed."""
        return self._send("GET", f"/repos/{REPOSITORY}/actions/jobs/{job['id']}/logs").data.decode(errors="replace")

    def ended(self, name: str, commit: str) -> bool:
        """Whether a commit's job has ended; a forge that does not answer has not said so."""
        try:
            return self.job(name, commit).get("status") == "completed"
        except urllib3.exceptions.HTTPError:
            return False

    def _send(self, method: str, path: str, body: Any = None, user: str = "admin") -> urllib3.BaseHTTPResponse:
        pool = self.platform.connect("forge")
        login = make_headers(basic_auth=f"{user}:{self.passwords[user]}")
        return pool.request(method, f"/api/v1{path}", json=body, headers={**(pool.headers or {}), **login})


class Delivery:
    """What people do: propose, wait for the checks, approve, merge; the jobs run beside the bundle."""

    def __init__(self, lab: Clone, stack: PlatformStack, folder: Path) -> None:
        self.lab, self.stack, self.folder = lab, stack, folder
        self.forge = ClusterForge(stack.platform, folder)

    def configure(self) -> None:
        """The variables and secrets that the workflows need (docs/how-to/pull-request.md)."""
        url = f"/repos/{REPOSITORY}/actions"
        given = {"LAB_STACK": self.lab.stack, "LAB_BACKEND_URL": self.lab.env["PULUMI_BACKEND_URL"],
                 "LAB_RUNNER": RUNNER}  # fmt: skip
        for name, text in given.items():
            assert self.forge.ask("POST", f"{url}/variables/{name}", {"value": text}).status == 201
        secrets = {"CLOUDS_YAML": self.lab.cloud.clouds_yaml.read_text(),
                   "PULUMI_CONFIG_PASSPHRASE": self.lab.env["PULUMI_CONFIG_PASSPHRASE"]}  # fmt: skip
        for name, text in secrets.items():
            assert self.forge.ask("PUT", f"{url}/secrets/{name}", {"data": text}).status == 201

    @contextmanager
    def runner(self) -> Iterator[None]:
        """The forge's runner on this machine, as docs/how-to/forge.md has it; it knows the forge by name."""
        folder = self.folder / "runner"
        home = folder / "home"
        home.mkdir(parents=True)
        # Programs, packages and the bundle need not be had again; checkouts go into this folder too.
        (home / ".cache").mkdir()
        for name in ("ml-cluster", "uv"):
            (home / ".cache" / name).symlink_to(CACHE / name)
        hosts, trusted = folder / "hosts", folder / "ca.pem"
        platform = self.stack.platform
        hosts.write_text(f"127.0.0.1 localhost\n{platform.address} forge.{platform.domain}\n")
        trusted.write_text(SYSTEM_AUTHORITIES.read_text() + self.stack.platform.authority)
        trust = dict.fromkeys(("SSL_CERT_FILE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE"), str(trusted))
        foreign = ("OS_", "PULUMI_", "XDG_", "VIRTUAL_ENV", "LAB_", "CI")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment = {**inherited, "HOME": str(home), **trust}
        within = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
        settings = folder / "runner.yaml"
        # A deployment does not wait for the check of the same commit.
        settings.write_text("runner: {capacity: 2}\ncache: {enabled: false}\n")
        command = [*within, str(program("forge-runner", "gitea-runner")), "--config", str(settings)]
        token = self.forge.ask("POST", f"/repos/{REPOSITORY}/actions/runners/registration-token").body["token"]
        register = ["register", "--instance", self.forge.url, "--name", RUNNER, "--labels", f"{RUNNER}:host"]
        done = subprocess.run(
            [*command, *register], input=f"{token}\n", env=environment, cwd=folder, check=False, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*BOUND, *command, "daemon"], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            end(process)

    def until(self, number: int, **wanted: str) -> None:
        """Wait for the checks of a pull request."""
        wait(partial(checked, self.forge, number, **wanted), f"the checks of pull request {number}")

    def merge(self, number: int) -> str:
        """Merge an approved and checked pull request; the commit."""
        approve(self.forge, number)
        assert merge(self.forge, number) == 200
        made: str = self.forge.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body["merge_commit_sha"]
        return made

    def deployed(self, commit: str) -> str:
        """Wait for the deployment of a merge, which must succeed; what it said."""
        wait(partial(self.forge.ended, "deploy", commit), f"the deployment of {commit}")
        job = self.forge.job("deploy", commit)
        log = self.forge.log(job)
        assert job["conclusion"] == "success", log[-6000:]
        return log


@contextmanager
def delivered(cloud: Cloud, folder: Path, stack: str, platform: dict[str, Any], *, workers: int) -> Iterator[Delivery]:
    """A stack with a forge, as `lab up` makes it of a clone, and its runner; nothing is left of it at the end."""
    lab = Clone(folder, cloud, stack)
    lab.run("sweep", "--yes")
    try:
        lab.change(
            lease="none",
            cluster={"kubernetesVersion": VERSION, "bundle": str(BUNDLE)},
            platform={**platform, "forge": {"users": list(PEOPLE), "jobs": 1}},
            storage__volumes={"stores": {"sizeGb": 8, "attachTo": "worker-0", "holds": "stores"}},
            nodes__groups__control__flavor="m1.medium",
            nodes__groups__worker__flavor="m1.large",
        )
        lab.change(nodes__groups__worker__count=workers)
        lab.commit()
        lab.run("up", "--yes", "--skip-preview")
        made = Delivery(lab, PlatformStack(lab, folder), folder)
        made.configure()
        with made.runner():
            yield made
        lab.perform("destroy")
        assert lab.run("sweep", "--json").json == []
    finally:
        lab.run("sweep", "--yes")
