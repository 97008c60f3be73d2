"""`lab backup`: back up the platform's rows and files now, list backups, restore one."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.jobs import MANAGER, follow_job, rendered, start_job
from cli.session import confirm
from cli.text import ago, as_json, table
from cli.workloads import PLATFORM, Object, Platform, report_cluster_errors, rolled_out, wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cli.session import Session
    from providers.kubernetes.objects import Identity

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Back up and restore the platform's rows and files."
)
BEFORE = "before-"
NAME = "%Y%m%dT%H%M%SZ"
CLUSTER, SECOND = "cluster", "second place"
RESTORE = "restore"
REPLICAS = "ml-cluster.dev/replicas-before-restore"
"""Annotation of a Deployment that is stopped during a restore."""
WRITERS = {"tracking": "the tracking server", "promotion": "the promotion service"}
"""Deployments that read and write the rows; each would wait for locks of the restore, and the restore for its locks."""
WRITERS_SECONDS = 600
FORGE = "forge"
FORGE_SECONDS = 900
LIST = ["exec python3 /opt/backup/nights.py list /backup"]
ONLY_HERE = (
    "All of it is in the cluster alone, on one node: platform.backup.copyTo gives it a second place "
    "(docs/how-to/backups.md)."
)


@dataclass(frozen=True)
class Night:
    """A backup of rows and files."""

    name: str
    rows: int
    """Bytes of the database dump."""
    files: int
    size: int
    """Bytes of rows and files."""
    missing: int
    """Number of files that are missing in all places."""
    where: tuple[str, ...]

    @property
    def when(self) -> datetime | None:
        """Its time, from its name."""
        try:
            return datetime.strptime(self.name.rpartition("-")[2], NAME).replace(tzinfo=UTC)
        except ValueError:
            return None

    def __str__(self) -> str:
        text = f"{_size(self.rows)} of rows, {self.files} files, {_size(self.size)} in all"
        return text + (f"; {self.missing} files could not be read then" if self.missing else "")


@app.command("now")
@report_cluster_errors
def now(context: typer.Context) -> None:
    """Make a backup now, like the nightly one, and wait for its end."""
    session: Session = context.obj
    platform = Platform.of(session)
    job = _job(platform)
    _alone(platform)
    result = follow_job(platform, start_job(platform, job, "backup-now", PLATFORM), PLATFORM)
    if result["exit"]:
        kept = f"; the night {result['night']} is kept without them" if result.get("unread") else ""
        raise LabError(
            f"not everything could be copied{kept}",
            remedy="the lines above show what failed; `lab backup ls` lists the backups",
        )
    print(f"Saved as {result['night']}, {'here and at the second place' if result['copied'] else 'in the cluster'}.")
    if not result["copied"]:
        print(ONLY_HERE)


@app.command("ls")
@report_cluster_errors
def ls(
    context: typer.Context,
    json_output: Annotated[bool, typer.Option("--json", "-j", help="Print JSON.")] = False,
) -> None:
    """List backups with their time, size and places, then the copies that restores have made."""
    session: Session = context.obj
    nights, listed = _nights(Platform.of(session))
    if fault := listed.get("fault"):
        print(f"warning: {fault}", file=sys.stderr)
    if json_output:
        print(as_json([_as_json(night) for night in nights]))
        return
    if not nights:
        print("There is no backup yet; `lab backup now` makes one.")
        return
    rows = [
        (
            night.name,
            ago(night.when) if night.when else "",
            _size(night.rows),
            str(night.files),
            _size(night.size),
            ", ".join(night.where),
            f"{night.missing} files missing" if night.missing else "",
        )
        for night in nights
    ]
    print(table(("NIGHT", "MADE", "ROWS", "FILES", "SIZE", "WHERE", ""), rows))
    if "second" not in listed and not fault:
        print(ONLY_HERE)


@app.command("restore")
@report_cluster_errors
def restore(
    context: typer.Context,
    night: Annotated[
        str | None, typer.Argument(help="A backup from `lab backup ls`. Default: the newest.", metavar="[NIGHT]")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Restore rows and files from a backup.

    The current state is saved first. The tracking server and the promotion service are stopped meanwhile; models
    continue to serve.
    """
    session: Session = context.obj
    platform = Platform.of(session)
    if unfinished := [name for name in _at_work(platform) if name.startswith(f"{RESTORE}-")]:
        print(f"A restore is under way, Job {PLATFORM}/{unfinished[0]}: waiting for its end.")
        _finish(platform, unfinished[0])
        return
    _alone(platform)
    nights, listed = _nights(platform)
    chosen = _chosen(nights, night, str(listed.get("fault", "")))
    made = f" ({ago(chosen.when)})" if chosen.when else ""
    confirm(
        session,
        yes,
        f"Rows and files become what they were in {chosen.name}{made}: {chosen}; from the {chosen.where[0]}.\n"
        "Runs and versions made since are gone from the registry, and files made since from the buckets. How all is\n"
        "now is saved first. The tracking server and the promotion service are stopped meanwhile; models continue to\n"
        "serve."
        + ("\nThe forge starts anew, with repositories and pull requests as of then." if _forge(platform) else ""),
    )
    (job,) = [one for one in rendered(session, "platform/backup/restore") if one["kind"] == "Job"]
    for container in job["spec"]["template"]["spec"]["initContainers"]:
        for variable in container["env"]:
            if variable["name"] == "NIGHT":
                variable["value"] = chosen.name
    _stop_writers(platform)
    try:
        name = start_job(platform, job, RESTORE, PLATFORM)
    except BaseException:
        _start_writers(platform)
        raise
    _finish(platform, name)


def _finish(platform: Platform, job: str) -> None:
    """Wait for the end of a restore, start the stopped services again, and report the result."""
    try:
        result = follow_job(platform, job, PLATFORM)
    except KeyboardInterrupt:
        print(
            "The restore goes on in the cluster. `lab backup restore` waits for its end, and starts the tracking\n"
            "server and the promotion service again.",
            file=sys.stderr,
        )
        raise
    _start_writers(platform)
    if result.get(FORGE):
        _restart_forge(platform)
    before = result.get("before")
    if result["exit"]:
        kept = f"; how it was before is kept as {before}: `lab backup restore {before}`" if before else ""
        message = "not everything could be restored" if before else "nothing was restored"
        raise LabError(message, remedy=f"the lines above say why{kept}")
    print(f"Rows and files are as of {result['night']}. How they were before: `lab backup restore {before}`.")


def _job(platform: Platform, arguments: list[str] | None = None) -> Object:
    """A Job like the nightly one, or one with its image and volume but other arguments.

    Raises:
        LabError: the platform has no backups.
    """
    from providers.kubernetes.objects import Identity

    nightly = platform.cluster.find(Identity("batch/v1", "CronJob", PLATFORM, "backup"))
    if nightly is None:
        remedy = (
            f"k8s/clusters/{platform.profile}/kustomization.yaml names ../../platform/backup/base: `lab up` brings it"
        )
        raise LabError("this platform makes no backups", remedy=remedy)
    spec = json.loads(json.dumps(nightly["spec"]["jobTemplate"]["spec"]))
    # Someone is waiting: report a failure at once instead of retrying.
    spec |= {"backoffLimit": 0, "ttlSecondsAfterFinished": 3600}
    if arguments is not None:
        pod = spec["template"]["spec"]
        pod.pop("initContainers", None)
        pod["containers"][0]["args"] = arguments
        spec |= {"activeDeadlineSeconds": 600, "ttlSecondsAfterFinished": 60}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"labels": nightly["metadata"]["labels"]},
        "spec": spec,
    }


def _nights(platform: Platform) -> tuple[list[Night], Mapping[str, Any]]:
    """The backups, the oldest first, and the Job's whole result."""
    # Standard output is for the list only.
    with redirect_stdout(sys.stderr):
        result = follow_job(platform, start_job(platform, _job(platform, LIST), "backup-ls", PLATFORM), PLATFORM)
    if result["exit"]:
        raise LabError(result.get("error", "the backups could not be listed"), remedy="`lab logs backup` shows more")
    return list(_read(result)), result


def _read(result: Mapping[str, Any]) -> Iterator[Night]:
    places = {CLUSTER: result["cluster"], SECOND: result.get("second", {})}
    for name in sorted({*result["cluster"], *places[SECOND]}, key=lambda name: (name.startswith(BEFORE), name)):
        where = tuple(place for place, found in places.items() if name in found)
        rows, files, size, _ = places[where[0]][name]
        missing = min(places[place][name][3] for place in where)
        yield Night(name, rows, files, size, missing, where)


def _chosen(nights: list[Night], name: str | None, fault: str) -> Night:
    """The backup with that name, or the newest.

    Raises:
        LabError: there is none, perhaps because of the `fault` of the second place.
    """
    found = [one for one in nights if (one.name == name if name else not one.name.startswith(BEFORE))]
    if found:
        return found[-1]
    why = f"\n{fault}" if fault else ""
    if not nights:
        raise LabError(f"there is no backup yet{why}", remedy="`lab backup now` makes one", code=ExitCode.CONFIGURATION)
    choices = f"choose one of: {', '.join(one.name for one in nights)}"
    message = f"there is no backup '{name}'" if name else "there is no backup, only copies that restores have made"
    raise LabError(message + why, remedy=choices, code=ExitCode.CONFIGURATION)


def _at_work(platform: Platform) -> list[str]:
    """Names of the Jobs that make or restore a backup now."""
    return [
        one["metadata"]["name"]
        for one in platform.cluster.items("batch/v1", "Job", PLATFORM)
        if one["spec"]["template"]["metadata"].get("labels", {}).get("app") == "backup" and one["status"].get("active")
    ]


def _alone(platform: Platform) -> None:
    if busy := [name for name in _at_work(platform) if not name.startswith("backup-ls-")]:
        message = f"a backup or a restore is in progress: Job {PLATFORM}/{busy[0]}"
        raise LabError(message, remedy="wait for its end; `lab logs backup --follow` shows its progress")


def _identity(name: str) -> Identity:
    from providers.kubernetes.objects import Identity

    return Identity("apps/v1", "Deployment", PLATFORM, name)


def _deployment(platform: Platform, name: str) -> Object:
    live = platform.cluster.find(_identity(name))
    if live is None:
        raise LabError(f"there is no {WRITERS[name].removeprefix('the ')}", remedy="`lab up` creates it")
    return live


def _scale(platform: Platform, name: str, replicas: int, note: str | None) -> None:
    target = _identity(name)
    change = {"metadata": {"annotations": {REPLICAS: note}}, "spec": {"replicas": replicas}}
    platform.cluster.request(
        f"scaling {target}",
        "PATCH",
        platform.cluster.path(target),
        change,
        content_type="application/merge-patch+json",
        fieldManager=MANAGER,
    )
    if note is None:
        # The field's previous owner keeps it.
        wait(lambda: _given_up(platform, name), WRITERS_SECONDS, lambda: f"waiting to release the fields of {target}")


def _given_up(platform: Platform, name: str) -> bool:
    """Release all fields of a Deployment; False if it has changed meanwhile."""
    from providers.kubernetes.client import ClusterError

    live = _deployment(platform, name)["metadata"]
    entries = [one for one in live["managedFields"] if one["manager"] != MANAGER]
    try:
        platform.cluster.replace_managed_fields(_identity(name), entries, live["resourceVersion"])
    except ClusterError as error:
        if error.conflict or error.code == 422:  # the test of its version failed
            return False
        raise
    return True


def _stop_writers(platform: Platform) -> None:
    """Stop what reads and writes the rows, and wait for the end of its pods."""
    for name, live in {name: _deployment(platform, name) for name in WRITERS}.items():
        wanted = live["metadata"].get("annotations", {}).get(REPLICAS) or str(live["spec"].get("replicas", 1))
        _scale(platform, name, 0, wanted)

    def gone() -> bool:
        return not platform.cluster.items("v1", "Pod", PLATFORM, labelSelector=f"app in ({', '.join(WRITERS)})")

    wait(gone, WRITERS_SECONDS, lambda: f"waiting until {' and '.join(WRITERS.values())} have stopped")


def _start_writers(platform: Platform) -> None:
    """Start what a restore has stopped, with as many replicas as before."""
    for name in WRITERS:
        wanted = _deployment(platform, name)["metadata"].get("annotations", {}).get(REPLICAS)
        if wanted is not None:
            _scale(platform, name, int(wanted), None)
    for name, title in WRITERS.items():
        wait(
            lambda name=name: rolled_out(_deployment(platform, name)),  # type: ignore[misc]
            WRITERS_SECONDS,
            lambda title=title: f"waiting until {title} answers again",  # type: ignore[misc]
        )


def _forge(platform: Platform) -> Object | None:
    from providers.kubernetes.objects import Identity

    return platform.cluster.find(Identity("apps/v1", "StatefulSet", PLATFORM, FORGE))


def _restart_forge(platform: Platform) -> None:
    """Restart the forge: on start, it loads the restored rows and files."""
    from providers.kubernetes.objects import Identity

    pod = Identity("v1", "Pod", PLATFORM, f"{FORGE}-0")
    old = platform.cluster.find(pod)
    if old is not None:
        platform.cluster.delete(pod, "Background")

    def started() -> bool:
        live = platform.cluster.find(pod)
        return live is not None and (old is None or live["metadata"]["uid"] != old["metadata"]["uid"]) and _ready(live)

    wait(started, FORGE_SECONDS, lambda: "waiting until the forge answers again")


def _ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _as_json(night: Night) -> dict[str, Any]:
    return {
        "night": night.name,
        "made": night.when.isoformat().replace("+00:00", "Z") if night.when else None,
        "rowsBytes": night.rows,
        "files": night.files,
        "bytes": night.size,
        "filesMissing": night.missing,
        "where": list(night.where),
    }
