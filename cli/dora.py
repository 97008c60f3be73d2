"""dora and incident: the five delivery figures, and incidents, which people report."""

from __future__ import annotations

import os
import re
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.provision import kubectl_of
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import as_json, span_seconds, table
from cli.workloads import MODEL, PLATFORM, SERVING, Platform, report_cluster_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.session import Session
    from services.delivery.events import Event
    from services.delivery.figures import Figures
    from services.delivery.store import Store

STORE = "DELIVERY_STORE"
"""Environment variable: address of a PostgreSQL for the events, instead of the platform's."""
SERVICE, DATABASE = "service/metadata-store", "mlflow"
FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
MINE = "lab dora"

app = typer.Typer(
    name="incident",
    no_args_is_help=True,
    add_completion=False,
    help="Report incidents in production, for `lab dora`.",
)


@dataclass
class Sources:
    """Events that could be read, and sources that could not."""

    events: list[Event] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, name: str, *expected: type[Exception]) -> Iterator[None]:
        """Read a source that may be unreachable."""
        try:
            yield
        except expected as error:
            self.missing.append(f"{name}: {error.args[0] if error.args else error}")


def dora(
    context: typer.Context,
    since: Annotated[str, typer.Option("--since", help="Start: 30d, 12h, 4w, or a date.")] = "30d",
    until: Annotated[str, typer.Option("--until", help="End. Default: now.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """Show the five delivery figures of DORA, for the stack's infrastructure and for each model.

    First saves new events of Git, the stack's history, the registry and the cluster in PostgreSQL. If a source is
    unreachable, reports that, and computes the figures from the others.
    """
    from services.delivery.figures import figures

    session: Session = context.obj
    stack = session.stack()
    now = datetime.now(UTC)
    ended = moment("--until", until, now) if until else now
    began = moment("--since", since, ended)
    if began >= ended:
        raise LabError(f"--since {since} is not before --until", code=ExitCode.CONFIGURATION)
    platform = _platform(session, stack)
    sources = read(session, stack, platform)
    noted = _note(session, stack, platform, sources)
    found, messages = figures(sources.events, began, ended)
    if json:
        period = {"since": _format_time(began), "until": _format_time(ended), "newEvents": noted}
        print(as_json({**period, "figures": [one.as_json() for one in found], "missing": sources.missing + messages}))
        return
    print(f"From {began:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC:")
    print(table(("OF", *HEADERS), [_row(one) for one in found], prefix="    ") if found else "    nothing was deployed")
    if noted is not None:
        print(f"{noted} events are new.")
    for missing in sources.missing + messages:
        print(f"Missing: {missing}")


HEADERS = ("DEPLOYMENTS", "LEAD TIME", "FAILED", "RECOVERY", "REWORK")


def _row(one: Figures) -> tuple[str, ...]:
    def took(seconds: float | None) -> str:
        if seconds is None:
            return "-"
        from terminal.text import duration

        return duration(seconds)

    def share(count: int, rate: float | None) -> str:
        return "-" if rate is None else f"{count} ({rate:.0%})"

    return (
        one.subject,
        f"{one.deployments} ({one.per_week:.2f} a week)",
        took(one.lead_seconds),
        share(one.failed, one.fail_rate),
        took(one.recovery_seconds),
        share(one.rework, one.rework_rate),
    )


def read(session: Session, stack: str, platform: Platform | None) -> Sources:
    """Events of Git, the stack's history, the registry and the cluster."""
    from engine.errors import EngineError
    from providers.framework import ProviderError
    from services.delivery import deployments, history, registry
    from services.delivery.events import REGISTERED, UP_ENDED
    from services.delivery.git import GitError, Repository

    sources = Sources()
    name = subject(session, stack)
    with sources.of("the stack's history", EngineError):
        sources.events += history.events(name, session.backend.history(session.project.name, stack))
    if platform is None:
        sources.missing.append(f"models: stack '{stack}' has no platform")
    else:
        with sources.of("the registry", LabError):
            sources.events += registry.events(_tracking(platform))
        with sources.of("the cluster", ProviderError, LabError):
            found = platform.cluster.items("apps/v1", "Deployment", SERVING, labelSelector=MODEL)
            sources.events += deployments.events(found)
    with sources.of("Git", GitError):
        repository = Repository(session.project.root)
        heads = [event.data["head"] for event in sources.events if event.kind == UP_ENDED and event.data["head"]]
        code: dict[str, set[str]] = {}
        for event in sources.events:
            if event.kind == REGISTERED and event.data["code"]:
                code.setdefault(event.subject.partition("/")[2], set()).add(event.data["code"])
        for model, digests in code.items():
            sources.events += repository.code(model, digests)
        sources.events += repository.events(heads)
    return sources


def subject(session: Session, stack: str) -> str:
    """The subject of a stack's events: several projects may share a store."""
    return f"{session.project.name}/{stack}"


def moment(option: str, text: str, end: datetime) -> datetime:
    """Parse a time: a span before `end`, or a date.

    Raises:
        LabError: it is neither.
    """
    if (seconds := span_seconds(text)) is not None:
        return end - timedelta(seconds=seconds)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        remedy = "use a span (30d, 12h, 4w), or a date (2026-11-01, 2026-11-01T12:00:00Z)"
        raise LabError(f"{option} {text}: not a time", remedy=remedy, code=ExitCode.CONFIGURATION) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _platform(session: Session, stack: str) -> Platform | None:
    try:
        return Platform.of(session, stack)
    except LabError:
        return None


def _tracking(platform: Platform) -> Any:
    """A function that sends requests to MLflow as the platform's administrator."""
    from urllib.parse import urlencode

    def ask(method: str, path: str, body: dict[str, Any] | None) -> Any:
        where = f"/api/2.0/mlflow/{path}"
        if method == "GET":
            return platform.ask("tracking", method, f"{where}?{urlencode(body or {})}")
        return platform.ask("tracking", method, where, body)

    return ask


def _note(session: Session, stack: str, platform: Platform | None, sources: Sources) -> int | None:
    """Save the events in the store and add the stored ones. Return how many were new; None if it is unreachable."""
    from services.delivery.store import StoreError

    noted = None
    lost = "the store of events, with incidents and what its sources have forgotten"
    with sources.of(lost, LabError, StoreError), store(session, stack, platform) as kept:
        noted = kept.add(sources.events)
        sources.events = kept.events()
    return noted


@contextmanager
def store(session: Session, stack: str, platform: Platform | None) -> Iterator[Store]:
    """The store of events: the one in DELIVERY_STORE, else the platform's PostgreSQL.

    Raises:
        LabError: there is none.
        StoreError: it does not answer.
    """
    from services.delivery.store import Store

    if address := os.environ.get(STORE):
        with Store(address) as kept:
            yield kept
        return
    if platform is None:
        raise LabError(
            f"stack '{stack}' has no platform, whose PostgreSQL stores the events",
            remedy=f"set {STORE} to the address of another PostgreSQL",
        )
    from psycopg.conninfo import make_conninfo

    from infra.secret_layout import METADATA_STORE
    from providers.framework import ProviderError
    from providers.kubernetes.objects import Identity

    try:
        secret = platform.cluster.find(Identity("v1", "Secret", *METADATA_STORE.split("/")))
    except ProviderError as error:
        raise LabError(error.args[0], remedy=error.remedy) from None
    if secret is None:
        raise LabError(f"the platform has no Secret {METADATA_STORE}")
    from base64 import b64decode

    login = {key: b64decode(secret["data"][key]).decode() for key in ("username", "password")}
    with forwarded(session, stack, platform) as port:
        address = make_conninfo(
            host="127.0.0.1", port=port, dbname=DATABASE, user=login["username"], password=login["password"],
            application_name=MINE,
        )  # fmt: skip
        with Store(address) as kept:
            yield kept


@contextmanager
def forwarded(session: Session, stack: str, platform: Platform) -> Iterator[int]:
    """Forward a local port to the platform's PostgreSQL.

    Raises:
        LabError: there is no kubectl, or it cannot reach the cluster.
    """
    import subprocess
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="lab-", suffix=".kubeconfig") as file:
        file.write(platform.kubeconfig)
        file.flush()
        process = subprocess.Popen(
            [kubectl_of(session, stack), f"--kubeconfig={file.name}", f"--namespace={PLATFORM}", "port-forward",
             "--address=127.0.0.1", SERVICE, ":5432"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert process.stdout
            with closing(process.stdout):
                said = process.stdout.readline()
                if not (found := FORWARDED.match(said)):
                    raise LabError(
                        f"PostgreSQL cannot be reached: {said.strip() or 'kubectl port-forward says nothing'}"
                    )
                yield int(found[1])
        finally:
            process.terminate()
            process.wait()


def _format_time(at: datetime) -> str:
    from services.delivery.events import format_time

    return format_time(at)


Name = Annotated[str, typer.Argument(help="Name of the incident, for commits: `Incident: NAME`.", metavar="NAME")]
At = Annotated[str, typer.Option("--at", help="Time. Default: now.", show_default=False)]
OfModel = Annotated[str | None, typer.Option("--model", help="The model. Default: the infrastructure.")]


@app.command("open")
@report_cluster_errors
def open_incident(context: typer.Context, name: Name, model: OfModel = None, at: At = "") -> None:
    """Report an incident in production.

    Name it in what resolves it: a line `Incident: NAME` at the end of commits, `lab promote --incident NAME`.
    """
    from services.delivery.events import OPENED

    _say(context.obj, OPENED, name, model, at)
    print(f"Incident {name} is open.")


@app.command("close")
@report_cluster_errors
def close_incident(context: typer.Context, name: Name, model: OfModel = None, at: At = "") -> None:
    """Report the end of an incident."""
    from services.delivery.events import CLOSED

    _say(context.obj, CLOSED, name, model, at)
    print(f"Incident {name} is closed.")


def _say(session: Session, kind: str, name: str, model: str | None, at: str) -> None:
    from services.delivery.events import OPENED, Event, model_subject, stack_subject
    from services.delivery.store import StoreError

    stack, now = session.stack(), datetime.now(UTC)
    when = moment("--at", at, now) if at else now
    of = model_subject(model) if model else stack_subject(subject(session, stack))
    try:
        with store(session, stack, _platform(session, stack)) as kept:
            there = {(event.kind, event.key) for event in kept.events() if event.subject == of}
            if kind != OPENED and (OPENED, name) not in there:
                raise LabError(f"no incident {name} of {of} was opened", remedy="`lab incident open` opens one")
            if (kind, name) in there:
                raise LabError(
                    f"incident {name} of {of} was {kind.partition('.')[2]} before", remedy="give it a new name"
                )
            kept.add([Event(kind, of, name, when)])
    except StoreError as error:
        raise LabError(f"the store of events: {error}") from None
