"""logs: logs of pods and nodes, from the cluster or the log store."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cli import logstore
from cli.errors import ExitCode, LabError
from cli.logstore import MOST, LogStore
from cli.text import span_seconds
from cli.workloads import MODEL, NAMESPACES, Object, Platform, capability_of, report_cluster_errors

if TYPE_CHECKING:
    from cli.session import Session

TAIL, RETENTION = 50, "14d"
"""Default number of lines per container; retention of the log store (k8s/platform/logging/store.yaml)."""


@report_cluster_errors
def logs(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A pod, a model, a training run or a capability. Default: list them, or all with --since or --grep.",
            metavar="[NAME]",
        ),
    ] = None,
    capability: Annotated[
        str | None, typer.Option("--capability", help="tracking, serving, gateway...", metavar="NAME")
    ] = None,
    node: Annotated[str | None, typer.Option("--node", help="A node's journal: kubelet, containerd.")] = None,
    since: Annotated[str, typer.Option("--since", help="Start: 30m, 1h, 14d ago.", show_default=False)] = "",
    grep: Annotated[str, typer.Option("--grep", help="Only lines with this text.", show_default=False)] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the logs.")] = False,
    tail: Annotated[
        int | None,
        typer.Option("--tail", min=1, help="Number of lines: by default 50 per container, or 1000 from the log store."),
    ] = None,
) -> None:
    """Print the logs of a capability, a model, a training run or a node.

    Logs of existing pods come from the cluster. Logs of deleted pods, and with --since, --grep or --node, come from the
    log store, if the platform has one. Standard error has the source.
    """
    session: Session = context.obj
    if sum(one is not None for one in (name, capability, node)) > 1:
        raise LabError("use only one of NAME, --capability and --node", code=ExitCode.CONFIGURATION)
    if since and span_seconds(since) is None:
        raise LabError(f"--since {since}: use a duration such as 30m, 1h or 14d", code=ExitCode.CONFIGURATION)
    query = Query(since, grep, tail, follow=follow)
    platform = Platform.of(session)
    if node is not None:
        store = LogStore.of(platform)
        if store is None or follow:
            problem = "has no log store" if store is None else "cannot follow a journal"
            remedy = "a profile with `platform/logging` has a log store: k8s/clusters" if store is None else None
            raise LabError(f"this platform {problem}", remedy=remedy)
        query.ask(store, logstore.journal(node))
        return
    found = [pod for namespace in NAMESPACES for pod in platform.cluster.items("v1", "Pod", namespace)]
    workloads = list(platform.workloads())
    selected = name or capability
    if selected is None and not (since or grep):
        print("\n".join(_known(found, workloads)))
        return
    if selected is None:
        chosen, sources = found, logstore.OF_PODS
    elif capability is not None:
        chosen = [pod for pod in found if capability_of(pod, workloads) == selected]
        sources = logstore.capability(selected, workloads)
    else:
        chosen = [pod for pod in found if selected in {pod["metadata"]["name"], *_names(pod, workloads)}]
        sources = logstore.pods(selected, workloads)
    if query.print_from_store(platform, sources, chosen):
        return
    if selected is not None and not chosen:
        remedy = f"choose one of: {', '.join(_known(found, workloads))}"
        raise LabError(f"there are no pods for '{selected}'", remedy=remedy)
    query.read(platform, chosen)


@dataclass(frozen=True)
class Query:
    """The lines to print."""

    since: str
    grep: str
    tail: int | None
    follow: bool

    def print_from_store(self, platform: Platform, sources: str, chosen: list[Object]) -> bool:
        """Print lines from the log store if that is the right source; return whether there were any.

        Raises:
            LabError: the log store does not answer, and there are no pods.
        """
        if self.follow or not (self.since or self.grep or not chosen):
            return False
        store = LogStore.of(platform)
        if store is None:
            if chosen:
                print("There is no log store; these are the logs of existing pods.", file=sys.stderr)
            return False
        try:
            return bool(self.ask(store, sources)) or bool(chosen)
        except logstore.StoreError as error:
            if not chosen:
                raise
            print(f"{error}; these are the logs of existing pods.", file=sys.stderr)
            return False

    def ask(self, store: LogStore, sources: str) -> int:
        """Print lines from the log store; return their number.

        Raises:
            LabError: it does not answer.
        """
        most = self.tail or MOST
        lines = store.lines(sources, self.since or RETENTION, self.grep, most)
        more = f", the last {most}: --tail N shows more" if len(lines) == most else ""
        print(f"From the log store{more}:{'' if lines else ' no lines'}", file=sys.stderr)
        for line in lines:
            print(f"{line.source} | {line.text}")
        return len(lines)

    def read(self, platform: Platform, chosen: list[Object]) -> None:
        """Print the logs of existing pods; with `follow`, until the user interrupts."""
        printed: dict[str, str] = {}
        while True:
            for pod in chosen:
                for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
                    self._print_new(
                        platform, pod["metadata"]["namespace"], pod["metadata"]["name"], container["name"], printed
                    )
            if not self.follow:
                return
            time.sleep(1)

    def _print_new(self, platform: Platform, namespace: str, pod: str, container: str, printed: dict[str, str]) -> None:
        """Print the lines of a container that have not been `printed`."""
        from providers.kubernetes.client import ClusterError

        key = f"{pod}/{container}"
        options = {"container": container, "timestamps": "true"}
        if key in printed:
            options["sinceTime"] = printed[key][:19] + "Z"
        elif self.since:
            options["sinceSeconds"] = str(span_seconds(self.since))
        elif not self.grep:
            options["tailLines"] = str(self.tail or TAIL)
        try:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
            text = str(platform.cluster.request(f"log of {key}", "GET", path, **options))
        except ClusterError:
            return  # it has not started, or is deleted
        for line in text.splitlines():
            stamp, _, message = line.partition(" ")
            if stamp > printed.get(key, ""):
                printed[key] = stamp
                if self.grep in message:
                    print(f"{key} | {message}", flush=True)


def _known(found: list[Object], workloads: list[Object]) -> list[str]:
    return sorted({name for pod in found for name in _names(pod, workloads)})


def _names(pod: Object, workloads: list[Object]) -> set[str]:
    """Names that select a pod: its capability, its model, the name of its Job."""
    labels = pod["metadata"].get("labels", {})
    return {name for name in (labels.get(MODEL), capability_of(pod, workloads) or labels.get("app")) if name}
