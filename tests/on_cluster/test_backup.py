"""`lab backup` against a real API server; what a kubelet and the backup's programs do, the tests do."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cli import backup
from cli.errors import LabError
from cli.jobs import MANAGER, start_job
from cli.workloads import Platform
from providers.kubernetes.client import ClusterError
from providers.kubernetes.objects import Identity
from tests.engine.harness import wait_for
from tests.k8s.conftest import apply, rendered
from tests.on_cluster.kubelet import Kubelet

if TYPE_CHECKING:
    import typer

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
NIGHT, OLDER, BEFORE = "20261128T031700Z", "20261127T031700Z", "before-restore-20261129T090000Z"
WRITERS = [Identity("apps/v1", "Deployment", "platform", name) for name in ("tracking", "promotion")]
LISTED = {"cluster": {NIGHT: [2_000_000, 34, 12_000_000, 0]}, "second": {OLDER: [1_000_000, 33, 11_000_000, 0]}}
SAID: dict[str, dict[str, Any]] = {
    "backup-ls": {"files": LISTED},
    "backup-now": {"files": {"night": NIGHT, "unread": 0, "copied": True}},
    "restore": {"prepare": {"night": NIGHT, "before": BEFORE}},
}
"""What the containers of each Job end with."""


@pytest.fixture(scope="module")
def platform(control_plane: ControlPlane) -> Platform:
    """The parts that a backup has to do with, without pods that run."""
    apply(control_plane, "infrastructure/gateway-api", "infrastructure/base")
    apply(control_plane, "platform/backup/base", "platform/backup/to-volume")
    apply(control_plane, "platform/tracking/base", "platform/promotion/base")
    return Platform("lab", "lab.example", "192.0.2.7", 30443, "", {}, control_plane.kubeconfig.read_text())


class BackupKubelet(Kubelet):
    """Ends the pods of the backup's Jobs, and runs those of what reads and writes the rows."""

    def __init__(self, plane: ControlPlane, failing: str = "") -> None:
        super().__init__(plane, "platform")
        self._failing = failing
        self.jobs: list[str] = []
        self.nights: list[str] = []
        self.servers: list[int] = []
        """How many servers of the rows' there were to be, as each restore ran."""

    def _see(self, pod: dict[str, Any]) -> None:
        job = pod["metadata"]["labels"].get("batch.kubernetes.io/job-name")
        if job is None:
            self._serve(pod)
        elif pod["status"].get("phase") == "Pending":
            self._end(pod, job.rpartition("-")[0])

    def _serve(self, pod: dict[str, Any]) -> None:
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        try:
            self._plane.report("Pod", f"platform/{pod['metadata']['name']}", ready)
        except ClusterError as error:
            if error.code != 404:
                raise

    def _end(self, pod: dict[str, Any], job: str) -> None:
        self.jobs.append(job)
        if job == "restore":
            self.servers.append(sum(one["spec"]["replicas"] for one in writers(self._plane)))
            prepare = next(one for one in pod["spec"]["initContainers"] if one["name"] == "prepare")
            self.nights += [one["value"] for one in prepare["env"] if one["name"] == "NIGHT"]
        statuses: dict[str, list[dict[str, Any]]] = {}
        failed = False
        for kind in ("initContainers", "containers"):
            for container in pod["spec"].get(kind, ()):
                name = container["name"]
                message = json.dumps(SAID[job][name]) if name in SAID[job] else ""
                end = {"exitCode": int(name == self._failing), "message": message, "reason": "Error"}
                # After one that fails, none is run.
                state = {"waiting": {"reason": "PodInitializing"}} if failed else {"terminated": end}
                about = {"name": name, "ready": False, "restartCount": 0, "image": "i", "imageID": "i"}
                statuses.setdefault(kind, []).append({**about, "state": state})
                failed = failed or name == self._failing
        status = {
            "phase": "Failed" if self._failing else "Succeeded",
            "containerStatuses": statuses["containers"],
            "initContainerStatuses": statuses.get("initContainers", []),
        }
        self._plane.report("Pod", f"platform/{pod['metadata']['name']}", status)


@pytest.fixture
def context(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> typer.Context:
    """A command's; nobody is there to ask."""
    monkeypatch.setattr(Platform, "of", lambda *_: platform)
    monkeypatch.setattr(backup, "rendered", lambda _session, folder: rendered(folder))
    return cast("typer.Context", SimpleNamespace(obj=SimpleNamespace(interactive=False)))


def writers(plane: ControlPlane) -> list[dict[str, Any]]:
    """The Deployments of what reads and writes the rows."""
    found = [live for one in WRITERS if (live := plane.cluster.find(one))]
    assert len(found) == len(WRITERS)
    return found


def generations(plane: ControlPlane) -> list[int]:
    return [one["metadata"]["generation"] for one in writers(plane)]


def is_as_the_stack_has_it(plane: ControlPlane) -> bool:
    """Whether they run again, and their stack alone says how many there are."""
    return all(
        live["spec"]["replicas"] == 1
        and not any(one["manager"] == MANAGER for one in live["metadata"]["managedFields"])
        and backup.REPLICAS not in live["metadata"].get("annotations", {})
        for live in writers(plane)
    )


def test_a_night_is_made_and_listed(
    control_plane: ControlPlane, context: typer.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    with BackupKubelet(control_plane) as kubelet:
        backup.now(context)
        assert f"Saved as {NIGHT}, here and at the second place." in capsys.readouterr().out
        backup.ls(context, json_output=True)
        listed = json.loads(capsys.readouterr().out)
        assert [(one["night"], one["files"], one["where"]) for one in listed] == [
            (OLDER, 33, ["second place"]),
            (NIGHT, 34, ["cluster"]),
        ]
        backup.ls(context, json_output=False)
        rows = capsys.readouterr().out.splitlines()
    assert kubelet.jobs == ["backup-now", "backup-ls", "backup-ls"]
    assert rows[1].split()[0] == OLDER
    assert "1.0 MB" in rows[1]
    assert rows[1].rstrip().endswith("second place")


def test_the_server_is_stopped_while_a_night_is_restored_and_started_again(
    control_plane: ControlPlane, context: typer.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    with BackupKubelet(control_plane) as kubelet:
        backup.restore(context, night=None, yes=True)
        said = capsys.readouterr().out
        backup.restore(context, night=OLDER, yes=True)
    assert f"Rows and files are as of {NIGHT}. How they were before: `lab backup restore {BEFORE}`." in said
    assert kubelet.nights == [NIGHT, OLDER]
    assert kubelet.servers == [0, 0]
    assert is_as_the_stack_has_it(control_plane)
    # So the stack can change how many there are, without a conflict.
    for writer in WRITERS:
        control_plane.cluster.apply(writer, {"spec": {"replicas": 1}}, "another", force=False)


def test_the_forge_starts_anew_where_a_restore_has_left_it_something(
    control_plane: ControlPlane,
    context: typer.Context,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    apply(control_plane, "platform/forge")

    def forge() -> str:
        found = control_plane.get("Pod", "platform/forge-0")
        return str(found["metadata"]["uid"]) if found else ""

    try:
        wait_for(forge, "the forge's pod")
        first = forge()
        with BackupKubelet(control_plane):
            backup.restore(context, night=None, yes=True)
            assert forge() == first
            monkeypatch.setitem(SAID, "restore", {**SAID["restore"], "files": {"forge": True}})
            backup.restore(context, night=None, yes=True)
        assert forge() not in {"", first}
        assert "waiting until the forge answers again" in capsys.readouterr().out
    finally:
        control_plane.cluster.delete(Identity("apps/v1", "StatefulSet", "platform", "forge"), "Background")


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        ("files", ("not everything could be restored", f"`lab backup restore {BEFORE}`")),
        ("prepare", ("nothing was restored", "the lines above say why")),
    ],
)
def test_the_server_is_started_again_where_a_restore_fails(
    control_plane: ControlPlane,
    context: typer.Context,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    told: tuple[str, str],
) -> None:
    monkeypatch.setattr(backup, "_nights", lambda _platform: (list(backup._read(LISTED)), LISTED))
    if failing == "prepare":
        monkeypatch.setitem(SAID, "restore", {})
    with BackupKubelet(control_plane, failing), pytest.raises(LabError, match=told[0]) as failed:
        backup.restore(context, night=None, yes=True)
    assert told[1] in (failed.value.remedy or "")
    wait_for(lambda: is_as_the_stack_has_it(control_plane), "the servers are as they were")


def test_nothing_is_stopped_before_somebody_agrees_or_for_a_night_that_is_not_there(
    control_plane: ControlPlane, context: typer.Context
) -> None:
    before = generations(control_plane)
    with BackupKubelet(control_plane) as kubelet:
        with pytest.raises(LabError, match="--yes must be passed in"):
            backup.restore(context, night=None, yes=False)
        with pytest.raises(LabError, match="there is no backup '2020'"):
            backup.restore(context, night="2020", yes=True)
    assert set(kubelet.jobs) == {"backup-ls"}
    assert generations(control_plane) == before


def test_two_do_not_work_at_once_and_a_restore_that_was_left_is_waited_for(
    control_plane: ControlPlane, platform: Platform, context: typer.Context, capsys: pytest.CaptureFixture[str]
) -> None:
    start_job(platform, backup._job(platform), "backup-now", "platform")
    wait_for(lambda: backup._at_work(platform), "the Job has a pod")
    for verb in (backup.now, lambda context: backup.restore(context, night=None, yes=True)):
        with pytest.raises(LabError, match="a backup or a restore is in progress: Job platform/backup-now-"):
            verb(context)
    with BackupKubelet(control_plane):
        wait_for(lambda: not backup._at_work(platform), "its end")
    # Somebody has interrupted `lab backup restore`: the server is stopped, the Job goes on.
    (job,) = (one for one in rendered("platform/backup/restore") if one["kind"] == "Job")
    with BackupKubelet(control_plane) as kubelet:
        backup._stop_writers(platform)
    start_job(platform, job, "restore", "platform")
    wait_for(lambda: backup._at_work(platform), "the Job has a pod")
    with BackupKubelet(control_plane) as kubelet:
        backup.restore(context, night=None, yes=True)
    assert kubelet.jobs == ["restore"]
    assert "A restore is under way" in capsys.readouterr().out
    assert is_as_the_stack_has_it(control_plane)
