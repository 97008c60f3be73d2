"""The forge in the box on loopback: the real programs, with the scripts and settings of k8s/platform/forge."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from bundle.files import link
from infra.manifests import TREE
from tests.engine.harness import wait_for
from tests.providers.kubernetes.control_plane import free_port, program
from tests.services.delivery.postgres import PROGRAMS, postgres

FOLDER = TREE / "platform" / "forge"
SERVER, JOBS = FOLDER / "server", FOLDER / "jobs"
USER = 65532
PYTHON = "/usr/bin/python3"
"""A Python that every user can run."""
BOUND = ("setpriv", "--pdeathsig", "KILL")
"""Begins the command of a program that ends with the tests."""
REPOSITORY = "lab/cluster"
PATIENCE_SECONDS = 300.0


def job_pod() -> dict[str, Any]:
    """The specification of a job's pod."""
    template: dict[str, Any] = yaml.safe_load((JOBS / "job.yaml").read_text())["template"]
    return dict(template["spec"])


@dataclass
class Answer:
    """What the forge said."""

    status: int
    body: Any


@dataclass
class Box:
    """Use as a context manager: what was started ends with it."""

    passwords: dict[str, str] = field(
        default_factory=lambda: {name: secrets.token_hex(16) for name in ("admin", "ada", "grace", "eve", "gitops")}
    )
    members: tuple[str, ...] = ("admin", "ada", "grace", "gitops")
    """Who has a password in the Secret."""
    jobs: int = 0
    """How many jobs run, or wait for one, at a time."""
    pods: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """By their names."""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="forge-"))
        self._database = postgres()
        self._dsn = self._database.__enter__()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.copies_port = free_port()
        self.copies_url = f"http://127.0.0.1:{self.copies_port}"
        self._started: list[subprocess.Popen[bytes]] = []
        for name in ("bin", "etc", "run", "setup", "data", "users", "scratch", "secrets"):
            (self.folder / name).mkdir()
        for family, name in (("forge", "gitea"), ("forge-runner", "gitea-runner")):
            link(program(family, name), self.folder / "bin" / name)
        for name in ("app.ini", "configure.sh", "copies.py", "database.sh", "database.sql", "people.py"):
            shutil.copy(SERVER / name, self.folder / "etc")
        keys = ("database-password", "secret-key", "internal-token", "token", "copies-token", "metrics-token")
        contents = {**{key: secrets.token_hex(16) for key in keys}, "jwt-secret": jwt_secret()}
        for name, text in contents.items():
            (self.folder / "secrets" / name).write_text(text)
        for name in self.members:
            (self.folder / "users" / name).write_text(self.passwords[name])
        self._own()
        self._ended, self._numbers = threading.Event(), itertools.count()
        self._keeper = threading.Thread(target=self._keep)
        try:
            self.start()
            self._keeper.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for process in [*self.pods.values(), *reversed(self._started)]:
            end(process)
        self._database.__exit__(None, None, None)
        shutil.rmtree(self.folder)

    def _own(self) -> None:
        if os.geteuid() == 0:
            for path in [self.folder, *self.folder.rglob("*")]:
                if path.parent != self.folder / "bin":
                    os.chown(path, USER, USER)

    def _environment(self) -> dict[str, str]:
        keys = {
            "database__PASSWD": "database-password",
            "security__SECRET_KEY": "secret-key",
            "security__INTERNAL_TOKEN": "internal-token",
            "oauth2__JWT_SECRET": "jwt-secret",
            "metrics__TOKEN": "metrics-token",
        }
        own = {
            "HOME": str(self.folder / "data/home"),
            "USER": "forge",
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "TMPDIR": str(self.folder / "scratch"),
            "TEMPLATE": str(self.folder / "etc/app.ini"),
            "CONFIGURATION": str(self.folder / "run"),
            "TOKEN": str(self.folder / "setup/token"),
            "GITEA_WORK_DIR": str(self.folder / "data"),
            # What differs from the cluster: where things are.
            "GITEA__server__APP_DATA_PATH": str(self.folder / "data"),
            "GITEA__server__HTTP_ADDR": "127.0.0.1",
            "GITEA__server__HTTP_PORT": str(self.port),
            "GITEA__server__LOCAL_ROOT_URL": f"{self.url}/",
            "GITEA__session__COOKIE_SECURE": "false",
            "GITEA__repository__ROOT": str(self.folder / "data/repositories"),
            "GITEA__repository_0x2E_local__LOCAL_COPY_PATH": str(self.folder / "scratch/local"),
            "GITEA__repository_0x2E_upload__TEMP_PATH": str(self.folder / "scratch/uploads"),
            "GITEA__queue__DATADIR": str(self.folder / "data/queues"),
            "GITEA__database__HOST": "{PGHOST}:{PGPORT}".format(**self.rows),
            # And how patient it is.
            "GITEA__actions__ZOMBIE_TASK_TIMEOUT": "30s",
            "GITEA__cron_0x2E_stop_zombie_tasks__SCHEDULE": "@every 2s",
        }
        files = {f"GITEA__{key}__FILE": str(self.folder / "secrets" / name) for key, name in keys.items()}
        return {**own, **files}

    def _as_server(self, *command: str | Path) -> list[str]:
        """Gitea does not run as root."""
        rights = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
        return [*BOUND, *rights, *map(str, command)]

    def start(self) -> None:
        """Do what the pod does: database, configuration, server, users and repository."""
        data = str(self.folder / "data")
        token = str(self.folder / "secrets/copies-token")
        own = {"FOLDER": data, "TOKEN": token, "PORT": str(self.copies_port)}
        self._start("copies", *self._as_server(PYTHON, self.folder / "etc/copies.py"), **own)
        for script in ("database.sh", "configure.sh"):
            self.prepare(script)
        self.serve()
        self.setup = self._start("setup", *BOUND, sys.executable, str(self.folder / "etc/people.py"))
        wait_for(lambda: self.ask("GET", f"/repos/{REPOSITORY}").status == 200, "the repository", PATIENCE_SECONDS)

    def prepare(self, script: str) -> None:
        """Do what one of the pod's first containers does."""
        database = {
            "FOLDER": str(self.folder / "data"),
            "SCRIPTS": str(self.folder / "etc"),
            "FORGE_PASSWORD": (self.folder / "secrets/database-password").read_text(),
            **self.rows,
        }
        environment = {**self._environment(), **(database if script == "database.sh" else {})}
        command = self._as_server("sh", self.folder / "etc" / script)
        subprocess.run(command, env=environment, cwd=self.folder, check=True)

    def stop(self) -> None:
        """End all that the pod's containers run."""
        while self._started:
            end(self._started.pop())

    def restart(self) -> None:
        """Do what happens where the pod is deleted."""
        self.stop()
        shutil.rmtree(self.folder / "run")
        (self.folder / "run").mkdir()
        if os.geteuid() == 0:
            os.chown(self.folder / "run", USER, USER)
        self.start()

    @property
    def rows(self) -> dict[str, str]:
        """How the owner of the database reaches it."""
        host, _, port = self._dsn.rpartition("@")[2].partition("/")[0].partition(":")
        return {
            "PGHOST": host, "PGPORT": port, "PGUSER": "postgres", "PGDATABASE": "postgres",
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        }  # fmt: skip

    def serve(self) -> None:
        """Start the server, and wait until it answers."""
        settings = self.folder / "run/app.ini"
        self.server = self._start("server", *self._as_server(self.folder / "bin/gitea", "--config", settings, "web"))

        def answers() -> bool:
            assert self.server.poll() is None, self.log("server")
            try:
                with urllib.request.urlopen(f"{self.url}/api/healthz", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_for(answers, "the forge", PATIENCE_SECONDS)

    def log(self, name: str) -> str:
        """The end of what a program wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def _start(self, name: str, *command: str, **more: str) -> subprocess.Popen[bytes]:
        added = {
            "FORGE": self.url,
            "USERS": str(self.folder / "users"),
            "ALIVE": str(self.folder / "scratch/alive"),
            "GITEA_RUNNER_REGISTRATION_TOKEN_FILE": str(self.folder / "secrets/token"),
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env={**self._environment(), **added, **more},
                stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def _keep(self) -> None:
        """Do what the keeper of pods does: a new one for each that has ended."""
        while not self._ended.wait(0.2):
            for _ in range(self.jobs - sum(one.poll() is None for one in list(self.pods.values()))):
                # One that cannot register has failed, as while the forge starts anew.
                with suppress(subprocess.CalledProcessError):
                    self.pod()

    def pod(self) -> Path:
        """Do what a job's pod does, in a folder of its own: register, take one job, end."""
        pod = f"pod-{next(self._numbers)}"
        folder = self.folder / pod
        for name in ("run", "work"):
            (folder / name).mkdir(parents=True)
        settings = (
            (JOBS / "runner.yaml")
            .read_text()
            .replace("/run/runner", f"{folder}/run")
            .replace("/work", f"{folder}/work")
        )
        (folder / "runner.yaml").write_text(settings)
        spec = job_pod()

        def adapted(text: str) -> str:
            text = text.replace("http://forge.platform:3000", self.url).replace("$(hostname)", pod)
            text = text.replace("/run/secrets/runner/token", str(self.folder / "secrets/token"))
            return text.replace("/etc/runner/runner.yaml", str(folder / "runner.yaml"))

        environment = {
            "HOME": str(folder / "work"),
            "TMPDIR": str(folder / "work"),
            "USER": "job",
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
        }
        register, job = (
            [adapted(word) for word in one["command"]] for one in (*spec["initContainers"], *spec["containers"])
        )
        subprocess.run(register, env=environment, cwd=folder, check=True, capture_output=True)
        with (self.folder / f"{pod}.log").open("wb") as log:
            process = subprocess.Popen(
                [*BOUND, *job], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.pods[pod] = process
        return folder

    def is_alive(self, pod: Path) -> bool:
        """What the probe of a pod's container says."""
        environment = {"REGISTRATION": str(pod / "run/registration"), "WORK": str(pod / "work")}
        return subprocess.run([sys.executable, JOBS / "known.py"], env=environment, check=False).returncode == 0

    def ask(self, method: str, path: str, body: Any = None, *, user: str = "admin", token: str | None = None) -> Answer:
        """Call the API as a user, or with a token."""
        request = urllib.request.Request(
            f"{self.url}/api/v1{path}", None if body is None else json.dumps(body).encode(), method=method
        )
        request.add_header("Content-Type", "application/json")
        login = f"{user}:{self.passwords[user]}"
        basic = f"Basic {base64.b64encode(login.encode()).decode()}"
        request.add_header("Authorization", f"token {token}" if token else basic)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = answer.read()
                return Answer(answer.status, json.loads(content) if content else None)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(errors="replace"))

    def anonymously(self, path: str) -> int | str:
        """What somebody without a password gets: a status, or the page that they are sent to."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
                return str(answer.url).removeprefix(self.url).partition("?")[0]
        except urllib.error.HTTPError as error:
            return error.code

    def text(self, path: str, *, user: str = "admin") -> str:
        """What the API answers, as it is."""
        request = urllib.request.Request(f"{self.url}/api/v1{path}")
        login = f"{user}:{self.passwords[user]}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode(errors="replace"))

    def git(self, clone: Path, *words: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        """Run git with a user's password, which is on no command line."""
        helper = '!f() { echo "username=$FORGE_USER"; echo "password=$FORGE_PASSWORD"; }; f'
        environment = {
            **os.environ,
            "FORGE_USER": user,
            "FORGE_PASSWORD": self.passwords[user],
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "credential.helper",
            "GIT_CONFIG_VALUE_0": helper,
            **{
                f"GIT_{who}_{what}": f"{user}@lab.internal"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        return subprocess.run(
            ["git", "-C", str(clone), *words], env=environment, check=False, capture_output=True, text=True
        )

    def runs(self) -> list[dict[str, Any]]:
        """The jobs of the repository, the newest first."""
        return self.ask("GET", f"/repos/{REPOSITORY}/actions/jobs?limit=50&sort=id&order=desc").body["jobs"] or []

    def job(self, name: str, commit: str) -> dict[str, Any]:
        """The job of a commit; nothing before there is one."""
        return next((job for job in self.runs() if (job["name"], job["head_sha"]) == (name, commit)), {})

    def is_quiet(self) -> bool:
        """Whether no job runs or is going to."""
        return all(job["status"] == "completed" for job in self.runs())

    def kill(self, job: dict[str, Any]) -> None:
        """Kill the pod of a job at once, as with its node."""
        pod = psutil.Process(self.pods[job["runner_name"]].pid)
        for one in (pod, *pod.children(recursive=True)):
            one.kill()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def jwt_secret() -> str:
    """As Gitea wants it: 32 bytes, base64."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def resident(process: subprocess.Popen[bytes]) -> int:
    """Memory that a process holds, in MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) // 1024
