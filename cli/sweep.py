"""`lab sweep`: finds and deletes resources with a stack's tag, without using the state.

If a stack's state is lost or a deployment was interrupted, resources are left behind that cost money or quota. They are
found by what `infra.naming` sets: tags (Neutron, Octavia), metadata (Nova, Cinder), and names for resources without
either: key pairs, server groups, leases, and Neutron resources of an interrupted run (tags need a second request).
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import as_json, table
from engine.errors import EngineError
from infra.naming import KEYPAIR_PART, resource_name, stack_of

if TYPE_CHECKING:
    from openstack.connection import Connection

    from cli.session import Session

GONE_TIMEOUT_SECONDS = 300.0
POLL_SECONDS = 1.0
WORKERS = 8


@dataclass(frozen=True)
class Leftover:
    """One resource of a stack."""

    kind: str
    id: str
    name: str
    stack: str
    found_by: str
    """``tag``, ``name``, or ``network``: it is attached to a network of the stack."""


@dataclass
class Scope:
    """Selects the resources of `stack`, or of every stack.

    `known` are the existing stacks. If only a name identifies the owner, it is the longest known stack name that the
    name starts with: `dev-2-workers` belongs to `dev-2`, not to `dev`.
    """

    stack: str | None
    known: set[str] = field(default_factory=set)

    def wants(self, owner: str | None) -> bool:
        """Whether a resource of stack `owner` is selected; resources without owner never are."""
        if owner is not None:
            self.known.add(owner)
        return owner is not None and self.stack in {None, owner}

    def owner(self, name: str, part: str) -> str | None:
        """The stack that owns `name`: `<stack>-<part>`, where `part` is a regular expression."""
        stack = max((s for s in self.known if name.startswith(resource_name(s, ""))), key=len, default=None)
        return stack if stack and re.fullmatch(part, name.removeprefix(resource_name(stack, ""))) else None


Found = Iterator[tuple[Any, str | None, str]]
"""Resources, each with the stack that owns it by its tag, and how it was found."""
NODE = r".+-\d+"
"""Regular expression for `infra.naming.node_part`."""


@dataclass(frozen=True)
class Kind:
    """A kind of resource: how to list it with its owners, delete one, and read one.

    `part`: name, within the stack, of resources that may be without a tag; None if all of them have one.
    """

    name: str
    find: Callable[[Connection, Scope], Found]
    delete: Callable[[Connection, str], object]
    get: Callable[[Connection, str], object]
    part: str | None = None
    name_of: Callable[[Any], str | None] = lambda item: item.name


def _tagged(items: Iterable[Any]) -> Found:
    return ((item, stack_of(tags=item.tags), "tag") for item in items)


def _untagged(items: Iterable[Any]) -> Found:
    return ((item, None, "") for item in items)


def _servers(cloud: Connection, _scope: Scope) -> Found:
    return ((server, stack_of(server.metadata), "tag") for server in cloud.compute.servers())


def _volumes(cloud: Connection, _scope: Scope) -> Found:
    from cli.cloud import offers

    if offers(cloud, "volumev3", "block-storage", "volume"):
        yield from ((volume, stack_of(volume.metadata), "tag") for volume in cloud.block_storage.volumes())


def _load_balancers(cloud: Connection, _scope: Scope) -> Found:
    from cli.cloud import offers

    return _tagged(cloud.load_balancer.load_balancers() if offers(cloud, "load-balancer") else ())


def _trunks(cloud: Connection, _scope: Scope) -> Found:
    return _tagged(cloud.network.trunks() if cloud.network.find_extension("trunk") else ())


def _ports(cloud: Connection, scope: Scope) -> Found:
    """Tagged ports, and other ports in a stack's networks, which would prevent their deletion."""
    networks = {network.id: owner for network, owner, _ in _tagged(cloud.network.networks()) if scope.wants(owner)}
    for port, owner, _ in _tagged(cloud.network.ports()):
        if not (port.device_owner or "").startswith("network:"):
            yield port, owner or networks.get(port.network_id), "tag" if owner else "network"


@dataclass(frozen=True)
class _Lease:
    id: str
    name: str
    tags: tuple[str, ...] = ()


def _leases(cloud: Connection, _scope: Scope) -> Found:
    from cli.cloud import blazar, offers

    if offers(cloud, "reservation"):
        leases = blazar(cloud).get("/leases").json()["leases"]
        yield from _untagged(_Lease(lease["id"], lease["name"]) for lease in leases)


def _delete_lease(cloud: Connection, identity: str) -> None:
    from cli.cloud import blazar

    blazar(cloud).delete(f"/leases/{identity}")


def _get_lease(cloud: Connection, identity: str) -> object:
    from cli.cloud import blazar

    return blazar(cloud).get(f"/leases/{identity}")


def _delete_router(cloud: Connection, identity: str) -> None:
    for port in cloud.network.ports(device_id=identity):
        if port.device_owner != "network:router_gateway":
            cloud.network.remove_interface_from_router(identity, port=port.id)
    cloud.network.delete_router(identity, ignore_missing=False)


# In the order of deletion.
KINDS = (
    Kind(
        "server",
        _servers,
        lambda c, i: c.compute.delete_server(i, ignore_missing=False),
        lambda c, i: c.compute.get_server(i),
    ),
    Kind(
        "load balancer",
        _load_balancers,
        lambda c, i: c.load_balancer.delete_load_balancer(i, ignore_missing=False, cascade=True),
        lambda c, i: c.load_balancer.get_load_balancer(i),
    ),
    Kind(
        "floating IP",
        lambda c, _: _tagged(c.network.ips()),
        lambda c, i: c.network.delete_ip(i, ignore_missing=False),
        lambda c, i: c.network.get_ip(i),
        part=NODE,
        name_of=lambda address: address.description,
    ),
    Kind(
        "trunk",
        _trunks,
        lambda c, i: c.network.delete_trunk(i, ignore_missing=False),
        lambda c, i: c.network.get_trunk(i),
    ),
    Kind(
        "router",
        lambda c, _: _tagged(c.network.routers()),
        _delete_router,
        lambda c, i: c.network.get_router(i),
        part="router",
    ),
    Kind(
        "port",
        _ports,
        lambda c, i: c.network.delete_port(i, ignore_missing=False),
        lambda c, i: c.network.get_port(i),
        part=NODE,
    ),
    Kind(
        "subnet",
        lambda c, _: _tagged(c.network.subnets()),
        lambda c, i: c.network.delete_subnet(i, ignore_missing=False),
        lambda c, i: c.network.get_subnet(i),
        part="subnet",
    ),
    Kind(
        "network",
        lambda c, _: _tagged(c.network.networks()),
        lambda c, i: c.network.delete_network(i, ignore_missing=False),
        lambda c, i: c.network.get_network(i),
        part="network",
    ),
    Kind(
        "security group",
        lambda c, _: _tagged(c.network.security_groups()),
        lambda c, i: c.network.delete_security_group(i, ignore_missing=False),
        lambda c, i: c.network.get_security_group(i),
        part="nodes|entry",
    ),
    Kind(
        "server group",
        lambda c, _: _untagged(c.compute.server_groups()),
        lambda c, i: c.compute.delete_server_group(i, ignore_missing=False),
        lambda c, i: c.compute.get_server_group(i),
        part=".+",
    ),
    Kind(
        "keypair",
        lambda c, _: _untagged(c.compute.keypairs()),
        lambda c, i: c.compute.delete_keypair(i, ignore_missing=False),
        lambda c, i: c.compute.get_keypair(i),
        part=KEYPAIR_PART,
    ),
    Kind(
        "volume",
        _volumes,
        lambda c, i: c.block_storage.delete_volume(i, ignore_missing=False, cascade=True),
        lambda c, i: c.block_storage.get_volume(i),
    ),
    Kind("lease", _leases, _delete_lease, _get_lease, part="lease-.+"),
)


def find(cloud: Connection, scope: Scope) -> list[Leftover]:
    """All resources in the project that `scope` selects, in the order of deletion.

    Raises:
        LabError: the cloud did not answer.
    """
    from cli.cloud import CloudError, explain

    listed: list[tuple[Kind, Any, str | None, str]] = []
    for kind in KINDS:
        try:
            listed += [(kind, *found) for found in kind.find(cloud, scope)]
        except CloudError as error:
            raise LabError(f"cannot list each {kind.name}: {explain(error)}", remedy="run `lab doctor`") from None
    # Collect all owners first: names are matched with the longest stack name.
    scope.known |= {owner for _, _, owner, _ in listed if owner}
    leftovers = []
    for kind, item, tagged_owner, method in listed:
        owner, found_by = tagged_owner, method
        # A resource with any tag is not from an interrupted run.
        if owner is None and kind.part and not getattr(item, "tags", None):
            owner, found_by = scope.owner(kind.name_of(item) or "", kind.part), "name"
        if scope.wants(owner):
            name = item.name or getattr(item, "floating_ip_address", None) or ""
            leftovers.append(Leftover(kind.name, str(item.id), str(name), str(owner), found_by))
    return leftovers


def delete(
    cloud: Connection, leftovers: list[Leftover], timeout: float, say: Callable[[str], None], stop: threading.Event
) -> list[tuple[Leftover, str]]:
    """Delete `leftovers` kind by kind, those of one kind in parallel. Return those that still exist, with reasons."""
    failed: list[tuple[Leftover, str]] = []
    from concurrent.futures import ThreadPoolExecutor, as_completed

    with ThreadPoolExecutor(WORKERS) as pool:
        for kind in KINDS:
            batch = [leftover for leftover in leftovers if leftover.kind == kind.name]
            if batch:
                say(f"deleting {len(batch)} x {kind.name}")
            started = time.monotonic()
            futures = {pool.submit(_delete, cloud, kind, leftover, timeout, stop): leftover for leftover in batch}
            for future in as_completed(futures):
                leftover, problem = futures[future], future.result()
                elapsed = f"{time.monotonic() - started:.0f} s"
                say(f"  {leftover.name or leftover.id}: {problem or 'deleted'} ({elapsed})")
                if problem:
                    failed.append((leftover, problem))
    return failed


def _delete(cloud: Connection, kind: Kind, leftover: Leftover, timeout: float, stop: threading.Event) -> str | None:
    """Delete one resource and wait until it is deleted. Return the problem, if any."""
    from cli.cloud import CloudError, explain

    problem: str | None = None
    requested = False
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and not stop.is_set():
        try:
            if not requested:
                kind.delete(cloud, leftover.id)
                requested = True
            state = getattr(kind.get(cloud, leftover.id), "status", None)
            problem = f"still exists, with status {state}" if state else "still exists"
            if requested and state in {"ERROR", "error_deleting"}:
                return f"{problem} after its deletion"
        except CloudError as error:
            status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
            if status == 404:
                return None
            problem = explain(error)
            # 409: a resource that is being deleted still uses it. 5xx or no answer: the cloud may recover.
            if status is not None and status != 409 and status < 500:
                return problem
        stop.wait(POLL_SECONDS)
    return "interrupted" if stop.is_set() else problem


def sweep(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Find leftovers of all stacks, not only the selected one.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete the resources that are found.")] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", help="Keep resources of this kind, e.g. volume; repeatable.", metavar="KIND"),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.0, help="Time to wait for the deletion of each resource.", metavar="SECONDS"),
    ] = GONE_TIMEOUT_SECONDS,
    os_cloud: Annotated[
        str | None, typer.Option("--os-cloud", help="Entry of clouds.yaml. Default: the stack's.", metavar="CLOUD")
    ] = None,
    json: Json = False,
) -> None:
    """Find a stack's resources in the cloud without using its state; delete them with --yes.

    If the stack still has a state, run `lab refresh` afterwards to update it.
    """
    session: Session = context.obj
    kinds = [kind.name for kind in KINDS]
    if unknown := set(keep or ()) - set(kinds):
        raise LabError(
            f"--keep: unknown kind {', '.join(sorted(unknown))}",
            remedy=f"choose from: {', '.join(kinds)}",
            code=ExitCode.CONFIGURATION,
        )
    scope = _scope(session, everything=everything, needs_project=os_cloud is None)
    from cli.cloud import connect

    cloud = connect(session, os_cloud)
    leftovers = [leftover for leftover in find(cloud, scope) if leftover.kind not in (keep or ())]
    if json:
        print(as_json([asdict(leftover) for leftover in leftovers]))
    elif leftovers:
        rows = [(item.kind, item.name, item.stack, item.found_by, item.id) for item in leftovers]
        print(table(("KIND", "NAME", "STACK", "FOUND BY", "ID"), rows))
    else:
        print("Nothing is left of " + (f"stack '{scope.stack}'." if scope.stack else "any stack."))
    if not leftovers:
        return
    if not yes:
        print(f"\n{len(leftovers)} found. Nothing was deleted; use --yes to delete them.", file=sys.stderr)
        return
    failed = _delete_interruptibly(cloud, leftovers, timeout)
    print(f"{len(leftovers) - len(failed)} deleted, {len(failed)} left", file=sys.stderr)
    if failed:
        listed = "\n".join(f"  {item.kind} {item.name or item.id} ({item.id}): {problem}" for item, problem in failed)
        raise LabError(f"some resources could not be deleted:\n{listed}", remedy="run `lab sweep --yes` again")


def _scope(session: Session, *, everything: bool, needs_project: bool) -> Scope:
    """The selected stack; it need not exist in the backend, whose data may be lost."""
    try:
        known = {summary.name for summary in session.backend.list_stacks(session.project.name)}
    except EngineError:
        known = set()
    if everything:
        return Scope(None, known)
    stack = session.stack_option.split("/")[-1] if session.stack_option else None
    if stack is None and needs_project:
        stack = session.current_stack()
    if stack is None:
        raise LabError("no stack selected", remedy="use --stack, or sweep --all", code=ExitCode.CONFIGURATION)
    return Scope(stack, known | {stack})


def _delete_interruptibly(cloud: Connection, leftovers: list[Leftover], timeout: float) -> list[tuple[Leftover, str]]:
    """Delete; after Ctrl-C, stop waiting and leave the remaining resources."""
    from cli.invocation import interruptible

    class Stop(threading.Event):
        cancel = threading.Event.set

    stop = Stop()
    with interruptible(stop):
        return delete(cloud, leftovers, timeout, lambda line: print(line, file=sys.stderr, flush=True), stop)
