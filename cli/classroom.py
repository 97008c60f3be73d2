"""`lab class`: a stack for each student of a roster."""

from __future__ import annotations

import json as json_module
import sys
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.policies import declared_packs, fingerprint
from cli.session import confirm
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import ago, as_json, table, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from openstack.connection import Connection

    from cli.invocation import Kind
    from cli.roster import Plan, Roster, Row
    from cli.rows import Result
    from cli.session import Session
    from cli.sweep import Leftover
    from engine.policypack import PolicyPack

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="A stack for each student of a roster (docs/how-to/class.md)."
)

File = Annotated[Path, typer.Argument(help="The roster, a CSV file with columns id, key, ...", metavar="ROSTER.csv")]
Only = Annotated[str | None, typer.Option("--only", metavar="ID,...", help="Only these students.")]
Even = Annotated[bool, typer.Option("--even", help="Only students with even ids.")]
Odd = Annotated[bool, typer.Option("--odd", help="Only students with odd ids.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
# Each row in progress takes about 0.2 GB of memory for its engine, program and provider.
Parallel = Annotated[
    int, typer.Option("--parallel", "-p", min=1, metavar="N", help="Number of stacks to update at once.")
]


@app.command()
def up(
    context: typer.Context,
    roster: File,
    template: Annotated[
        str, typer.Option("--template", metavar="STACK", help="The stack whose file has the shared settings.")
    ] = "dev",
    only: Only = None,
    even: Even = False,
    odd: Odd = False,
    parallel: Parallel = 4,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", "-r", help="Refresh each stack first, and do not skip stacks that are up to date."),
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Create or update a stack for each row. Unchanged stacks are skipped: run it again after a failure.

    These are ordinary stacks: use `lab --stack ID ...` for one of them. Keys, logs and results are in ROSTER.class/.
    """
    from cli.roster import Roster

    session: Session = context.obj
    file = Roster(roster)
    plans = file.plan(session, template)
    rows = _select(file, [plan.row for plan in plans], only, even, odd)
    plans = [plan for plan in plans if plan.row in rows]
    records = Records(file.folder)
    program = _program(session)
    packs = {plan.row.id: declared_packs(session.project, plan.config) for plan in plans}
    digests = {plan.row.id: _digest(program, plan, packs[plan.row.id]) for plan in plans}
    changed = [plan for plan in plans if refresh or records.fingerprint(session, plan.row.id) != digests[plan.row.id]]
    unchanged = [plan.row.id for plan in plans if plan not in changed]
    if changed:
        _check_quotas(session.on(template), changed)
    nodes = sum(plan.settings.nodes.total for plan in changed)
    confirm(session, yes, f"{len(changed)} stacks with {nodes} nodes to create or update, {len(unchanged)} unchanged.")
    session.passphrase(create=True)
    file.folder.mkdir(mode=0o700, exist_ok=True)
    for plan in changed:
        file.key_file(plan.row.id).write_text(plan.row.key + "\n")
        plan.config.save()
    due = [plan.row.id for plan in changed]
    # With a preview, policies refuse before anything is created.
    given = {"refresh": refresh, "skip_preview": not any(packs.values())}
    results = _run(session, file, "update", due, parallel, given, digests)
    _finish(file, [*results, *_unchanged(unchanged)], rows, json)


@app.command()
def down(
    context: typer.Context,
    roster: File,
    only: Only = None,
    even: Even = False,
    odd: Odd = False,
    parallel: Parallel = 4,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Destroy the stack of each row, check that nothing is left in the cloud, and remove the stack."""
    from cli.roster import Roster
    from cli.rows import Result
    from cli.stack import remove_stack

    session: Session = context.obj
    file = Roster(roster)
    rows = _select(file, file.read(), only, even, odd)
    ids = [row.id for row in rows]
    existing = [
        row.id for row in rows if file.owns(session, row) and session.backend.exists(session.project.name, row.id)
    ]
    confirm(session, yes, f"{len(existing)} stacks to delete, with all their resources.")
    results = _run(session, file, "destroy", existing, parallel, {"delete_data": True}, {}) if existing else []
    results += [Result(stack, "unchanged") for stack in ids if stack not in existing]
    configured = next((stack for stack in ids if session.project.stack_config_path(stack).exists()), None)
    left = _leftovers(session.on(configured), ids) if configured else {}
    final = []
    for result in results:
        if leftovers := left.get(result.id):
            listed = ", ".join(f"{count} {kind}" for kind, count in Counter(item.kind for item in leftovers).items())
            error = f"left in the cloud: {listed}; delete them with `lab --stack {result.id} sweep --yes`"
            final.append(replace(result, result="failed", error=result.error or error))
            continue
        final.append(result)
        if result.id in existing and result.good:
            remove_stack(session, result.id)
            file.key_file(result.id).unlink(missing_ok=True)
            Records(file.folder).forget(result.id)
    if configured and not left:
        print(f"Nothing is left in the cloud of {len(ids)} stacks.", file=sys.stderr)
    _finish(file, final, rows, json)


@app.command()
def status(
    context: typer.Context, roster: File, only: Only = None, even: Even = False, odd: Odd = False, json: Json = False
) -> None:
    """Show each student's stack: state, nodes, remaining time of the lease, last update, error."""
    from cli.roster import Roster
    from terminal.text import duration

    session: Session = context.obj
    file = Roster(roster)
    rows = _select(file, file.read(), only, even, odd)
    records = Records(file.folder)
    entries = [_describe(session, records, row.id) for row in rows]
    if json:
        print(as_json(entries))
        return
    now = datetime.now(UTC)
    lines = []
    for entry in entries:
        end = datetime.fromisoformat(entry["leaseEnd"]) if entry["leaseEnd"] else None
        left = "-" if end is None else "ended" if end <= now else duration((end - now).total_seconds())
        updated = ago(datetime.fromisoformat(entry["lastUpdate"]), now) if entry["lastUpdate"] else "-"
        error = (entry["error"].splitlines() or [""])[0]
        lines.append((entry["id"], entry["state"], str(entry["nodes"]), left, updated, error))
    print(table(("ID", "STATE", "NODES", "LEASE LEFT", "LAST UPDATE", "ERROR"), lines))
    counts = Counter(entry["state"] for entry in entries)
    print("\n" + ", ".join(f"{count} {state}" for state, count in counts.most_common()))


class Records:
    """Results of each student's last run, in `<id>.json` in the class's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, stack: str) -> dict[str, Any]:
        """The record; empty if there is none that can be read."""
        try:
            record: dict[str, Any] = json_module.loads(self._path(stack).read_text())
        except (OSError, ValueError):
            return {}
        return record

    def write(self, stack: str, record: dict[str, Any]) -> None:
        """Replace the record."""
        temporary = self._path(stack).with_suffix(".tmp")
        temporary.write_text(as_json(record) + "\n")
        temporary.replace(self._path(stack))

    def forget(self, stack: str) -> None:
        """Remove the record."""
        self._path(stack).unlink(missing_ok=True)

    def fingerprint(self, session: Session, stack: str) -> str | None:
        """Fingerprint of the stack's last successful run, if nobody has changed the stack since."""
        record = self.read(stack)
        if record.get("result") != "done" or record.get("lastUpdate") != _last_update(session, stack):
            return None
        return record.get("fingerprint")

    def _path(self, stack: str) -> Path:
        return self._folder / f"{stack}.json"


def _select(file: Roster, rows: list[Row], only: str | None, even: bool, odd: bool) -> list[Row]:
    if even and odd:
        raise LabError("--even and --odd cannot be used together", code=ExitCode.CONFIGURATION)
    if only is not None:
        wanted = {name.strip() for name in only.split(",") if name.strip()}
        if unknown := sorted(wanted - {row.id for row in rows}):
            raise LabError(f"--only: {file.path} has no {', '.join(unknown)}", code=ExitCode.CONFIGURATION)
        rows = [row for row in rows if row.id in wanted]
    if even or odd:
        unclear = [
            f"line {row.line}: '{row.id}' does not end with a number, and has no parity"
            for row in rows
            if not row.parity
        ]
        if unclear:
            raise file.refusal(unclear)
        rows = [row for row in rows if row.parity == ("even" if even else "odd")]
    if not rows:
        raise LabError("no rows selected", code=ExitCode.CONFIGURATION)
    return rows


def _program(session: Session) -> bytes:
    """Digest of the program; if it changes, every stack is updated."""
    import hashlib

    digest = hashlib.sha256()
    root = session.project.root
    packages = [path for package in ("infra", "kubeyaml") for path in root.glob(f"{package}/**/*.py")]
    for path in sorted([session.project.file, root / "__main__.py", *packages]):
        digest.update(path.read_bytes())
    return digest.digest()


def _digest(program: bytes, plan: Plan, packs: Sequence[PolicyPack]) -> str:
    values = "".join(f"{key}={value.value}\n" for key, value in plan.config.items())
    import hashlib

    return hashlib.sha256(program + values.encode() + plan.row.key.encode() + fingerprint(packs)).hexdigest()


def _last_update(session: Session, stack: str) -> str | None:
    if not session.backend.exists(session.project.name, stack):
        return None
    manifest = (session.backend.load(session.project.name, stack).get("deployment") or {}).get("manifest") or {}
    return str(manifest.get("time") or "")


def _check_quotas(session: Session, plans: Sequence[Plan]) -> None:
    """Refuse a class that exceeds the project's quotas.

    Raises:
        LabError: lists every quota that is too small.
    """
    from cli import quota
    from cli.cloud import CloudError, connect, explain, offers

    try:
        cloud = connect(session)
        flavors = {flavor.name: flavor for flavor in cloud.compute.flavors()}
        own: dict[str, Counter[str]] = {plan.row.id: Counter() for plan in plans}
        for leftover in _find(cloud, own):
            own[leftover.stack][leftover.kind] += 1
        needs: Counter[str] = Counter()
        for plan in plans:
            have = own[plan.row.id]
            groups = plan.settings.nodes.groups.values()
            # A row whose flavor does not exist fails later, without affecting the others.
            if all(group.flavor in flavors for group in groups if group.count):
                needs.update(quota.compute_needs(plan.settings, flavors, have))
            needs.update(quota.network_needs(plan.settings, have))
            needs.update(quota.volume_needs(plan.settings, have))
        limits = quota.compute_limits(cloud) | quota.network_limits(cloud, str(cloud.current_project_id))
        if needs["volumes"] and offers(cloud, "volumev3", "block-storage", "volume"):
            limits |= quota.volume_limits(cloud)
    except CloudError as error:
        raise LabError(f"the quotas could not be read: {explain(error)}", remedy="run `lab doctor`") from None
    short = [each for each in quota.quotas(needs, limits) if not each.fits]
    if short:
        lines = [(each.name, str(each.needed), str(each.free), str(each.limit)) for each in short]
        listed = table(("QUOTA", "NEEDED", "FREE", "LIMIT"), lines, prefix="  ")
        raise LabError(
            f"the project's quotas are too small for {len(plans)} stacks:\n{listed}",
            remedy="request more quota, delete leftovers (`lab sweep --all` shows them), or select rows (--only)",
        )


def _find(cloud: Connection, stacks: Iterable[str]) -> list[Leftover]:
    from cli.sweep import Scope, find

    wanted = set(stacks)
    return [leftover for leftover in find(cloud, Scope(None, set(wanted))) if leftover.stack in wanted]


def _leftovers(session: Session, stacks: Sequence[str]) -> dict[str, list[Leftover]]:
    """Resources of `stacks` in the cloud, found without their states."""
    from cli.cloud import connect

    left: dict[str, list[Leftover]] = {}
    for leftover in _find(connect(session), stacks):
        left.setdefault(leftover.stack, []).append(leftover)
    return left


def _run(
    session: Session,
    file: Roster,
    kind: Kind,
    stacks: Sequence[str],
    parallel: int,
    given: dict[str, Any],
    digests: dict[str, str],
) -> list[Result]:
    from cli.invocation import interruptible
    from cli.rows import PRELOADED, Rows

    for module in PRELOADED:
        import_module(module)
    records = Records(file.folder)

    def ended(result: Result) -> None:
        record = asdict(result) | {"kind": kind, "ended": timestamp(datetime.now(UTC))}
        record |= {"fingerprint": digests.get(result.id), "lastUpdate": _last_update(session, result.id)}
        records.write(result.id, record)

    rows = Rows(session, file.folder, parallel, lambda line: print(line, file=sys.stderr, flush=True))
    given = {"yes": True, "skip_preview": True, **given}
    with interruptible(rows):
        return rows.run(kind, stacks, given, ended)


def _unchanged(stacks: Iterable[str]) -> list[Result]:
    from cli.rows import Result

    return [Result(stack, "unchanged") for stack in stacks]


def _finish(file: Roster, results: list[Result], rows: Sequence[Row], json: bool) -> None:
    """Print the result of each row, in the roster's order, and exit accordingly."""
    by_id = {result.id: result for result in results}
    ordered = [by_id[row.id] for row in rows]
    if json:
        print(as_json([asdict(result) | {"log": str(file.folder / f"{result.id}.log")} for result in ordered]))
    else:
        lines = [
            (each.id, each.result, f"{each.seconds:.1f} s", (each.error.splitlines() or [""])[0]) for each in ordered
        ]
        print("\n" + table(("ID", "RESULT", "TIME", "ERROR"), lines))
    counts = Counter(result.result for result in ordered)
    print("\n" + ", ".join(f"{count} {result}" for result, count in counts.most_common()), file=sys.stderr)
    bad = [result for result in ordered if not result.good]
    if bad:
        print(f"Logs: {file.folder}/<id>.log. Run the command again to continue.", file=sys.stderr)
        cancelled = any(result.result in {"cancelled", "not started"} for result in bad)
        raise typer.Exit(ExitCode.CANCELLED if cancelled else ExitCode.ERROR)


def _describe(session: Session, records: Records, stack: str) -> dict[str, Any]:
    """One row of `class status`."""
    from cli.stack import stack_outputs

    entry: dict[str, Any] = {"id": stack, "state": "not created", "nodes": 0, "leaseEnd": None, "lastUpdate": None}
    entry["error"] = ""
    project = session.project.name
    if not session.backend.exists(project, stack):
        return entry
    deployment = session.backend.load(project, stack).get("deployment") or {}
    resources = deployment.get("resources") or []
    latest = next(iter(session.backend.history(project, stack)), None)
    entry["nodes"] = sum(r["type"] == "openstack:compute/instance:Instance" for r in resources)
    entry["leaseEnd"] = stack_outputs(session, stack, show_secrets=False).get("leaseEnd")
    entry["lastUpdate"] = (deployment.get("manifest") or {}).get("time")
    record = records.read(stack)
    lock = session.backend.lock_state(project, stack)
    if lock == "held":
        entry["state"] = "in progress"
    elif lock == "abandoned" or deployment.get("pending_operations"):
        entry["state"] = "interrupted"
    elif latest is None or not resources:
        entry["state"] = "empty"
    else:
        entry["state"] = "up" if latest["result"] == "succeeded" else "failed"
    if entry["state"] != "up":
        entry["error"] = record.get("error", "")
    return entry
