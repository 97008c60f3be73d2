"""`lab doctor`: checks whether `up` can succeed, before anything is created.

It runs every check, except those that depend on a failed one. It changes nothing, on this machine or in the cloud.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import quota
from cli.errors import ExitCode, LabError
from cli.provision import load_checked
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import as_json
from engine.errors import EngineError

if TYPE_CHECKING:
    from keystoneauth1.access import AccessInfoV3
    from openstack.compute.v2.flavor import Flavor
    from openstack.connection import Connection

    from cli.session import Session
    from cli.sweep import Leftover
    from engine.project import StackConfig
    from infra.settings import NodeGroup, Settings

Status = Literal["ok", "warn", "fail", "skipped"]
GIB = 2**30
DISK_FAIL, DISK_WARN = GIB // 4, 2 * GIB
CLOCK_WARN, CLOCK_FAIL = timedelta(seconds=30), timedelta(minutes=5)
NEEDED_ROLES = {"member", "reader"}
HARMLESS_VARIABLES = {"OS_CLIENT_CONFIG_FILE", "OS_CLOUD"}


@dataclass(frozen=True)
class Finding:
    """Result of a check: one line of the report."""

    check: str
    status: Status
    message: str
    remedy: str = ""


def ok(message: str) -> Finding:
    """A check that passed."""
    return Finding("", "ok", message)


def warn(message: str, remedy: str = "") -> Finding:
    """`up` can succeed, but perhaps not as intended."""
    return Finding("", "warn", message, remedy)


def fail(message: str, remedy: str = "") -> Finding:
    """`up` cannot succeed."""
    return Finding("", "fail", message, remedy)


@dataclass(frozen=True)
class Check:
    """A named check. It is skipped if a check that it `needs` failed or was skipped."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[Examination], Iterator[Finding]]


CHECKS: list[Check] = []


def check(name: str, *needs: str) -> Callable[[Callable[[Examination], Iterator[Finding]]], None]:
    """Register a check."""

    def register(run: Callable[[Examination], Iterator[Finding]]) -> None:
        CHECKS.append(Check(name, needs, run))

    return register


@dataclass
class Examination:
    """Data for the checks; each part is read once."""

    session: Session
    os_cloud: str | None = None

    @cached_property
    def stack(self) -> str:
        """The selected stack, which need not exist yet."""
        from cli.default_cloud import stack_without_cloud

        session = self.session
        reference = session.stack_option or stack_without_cloud(session) or session.current_stack()
        if not reference:
            raise LabError("no stack selected", remedy="use --stack or `lab stack select`")
        return self.session.parse_stack(reference)

    @cached_property
    def config(self) -> StackConfig:
        """The stack's configuration."""
        return self.session.config(self.stack)

    @cached_property
    def settings(self) -> Settings:
        """The stack's settings, checked."""
        return load_checked(self.config, self.stack)

    @cached_property
    def cloud(self) -> Connection:
        """A connection to the cloud of the settings."""
        from cli.cloud import connect

        return connect(self.session, self.os_cloud)

    @cached_property
    def access(self) -> AccessInfoV3:
        """The content of a new token."""
        from keystoneauth1.access import AccessInfoV3
        from keystoneauth1.identity.base import BaseIdentityPlugin

        plugin = self.cloud.session.auth
        access = plugin.get_access(self.cloud.session) if isinstance(plugin, BaseIdentityPlugin) else None
        if not isinstance(access, AccessInfoV3):
            raise LabError("the login to the cloud does not use Identity v3", remedy="set auth_type in clouds.yaml")
        return access

    @cached_property
    def token_skew(self) -> timedelta:
        """How far this machine's clock is ahead of the identity service's, including the request's duration."""
        self.cloud.session.invalidate()
        del self.access
        return datetime.now(UTC) - (self.access.issued or datetime.now(UTC))

    @cached_property
    def flavors(self) -> dict[str, Flavor]:
        """The cloud's flavors by name."""
        return {flavor.name: flavor for flavor in self.cloud.compute.flavors()}

    @cached_property
    def own(self) -> Counter[str]:
        """Number of existing resources of the stack, by kind."""

        return Counter(leftover.kind for leftover in self.leftovers)

    @cached_property
    def leftovers(self) -> list[Leftover]:
        """The stack's resources in the cloud."""
        from cli.sweep import Scope, find

        return find(self.cloud, Scope(self.stack, {self.stack}))

    def groups(self) -> Iterator[tuple[str, NodeGroup]]:
        """Node groups with at least one node."""
        return ((name, group) for name, group in self.settings.nodes.groups.items() if group.count)


@check("python")
def _python(_: Examination) -> Iterator[Finding]:
    yield ok(f"{platform.python_version()} ({sys.executable})")


@check("engine")
def _engine(examination: Examination) -> Iterator[Finding]:
    if examination.session.engine == "embedded":
        yield ok("embedded (pulumi is not on PATH, or --engine embedded)")
    else:
        yield ok(f"the Pulumi CLI: {shutil.which('pulumi')}")


@check("disk")
def _disk(examination: Examination) -> Iterator[Finding]:
    free = shutil.disk_usage(examination.session.cwd).free
    message = f"{free / GIB:.1f} GiB free at {examination.session.cwd}"
    remedy = "free some space: the state, its backups and logs are written there"
    yield fail(message, remedy) if free < DISK_FAIL else warn(message, remedy) if free < DISK_WARN else ok(message)


@check("project")
def _project(examination: Examination) -> Iterator[Finding]:
    yield ok(f"{examination.session.project.name} ({examination.session.project.file})")


@check("backend", "project")
def _backend(examination: Examination) -> Iterator[Finding]:
    stacks = examination.session.backend.list_stacks(examination.session.project.name)
    yield ok(f"{examination.session.backend.url}, {len(stacks)} stacks")


@check("stack", "backend")
def _stack(examination: Examination) -> Iterator[Finding]:
    session, stack = examination.session, examination.stack
    if not session.backend.exists(session.project.name, stack):
        yield warn(f"'{stack}' does not exist yet", f"create it: lab stack init {stack}")
        return
    with session.backend.lock(session.project.name, stack, "doctor"):
        pending = session.backend.load(session.project.name, stack)["deployment"].get("pending_operations") or []
    if pending:
        yield warn(
            f"'{stack}' has {len(pending)} pending operations of an interrupted update", "resolve them: lab refresh"
        )
    else:
        yield ok(f"'{stack}', not locked")


@check("secrets", "project")
def _secrets(examination: Examination) -> Iterator[Finding]:
    config = examination.config
    if not config.has_secrets and not config.encryption_salt:
        yield ok("none yet")
        return
    manager = examination.session.secrets(examination.stack, config)
    for value in dict(config.items()).values():
        config.reveal(value, manager)
    yield ok("the passphrase decrypts them")


@check("settings", "project")
def _settings(examination: Examination) -> Iterator[Finding]:
    from infra.settings import SettingsError

    try:
        settings = examination.settings
    except SettingsError as error:
        for setting in error.invalid:
            place = f"{error.source}:{setting.line}" if setting.line else error.source
            yield fail(f"{place}: {setting.key}: {setting.value} {setting.problem}", setting.remedy)
        return
    yield ok(f"{settings.nodes.total} nodes ({examination.config.path.name})")
    for warning in settings.warnings(datetime.now(UTC)):
        yield warn(warning)


@check("provider", "project")
def _provider(examination: Examination) -> Iterator[Finding]:
    from cli.invocation import PLUGIN_DIRS
    from engine.plugins import PluginHost

    session = examination.session
    host = PluginHost(
        root=session.project.root,
        program=session.project.root,
        python=sys.executable,
        plugin_paths=session.project.provider_paths,
        plugin_dirs=PLUGIN_DIRS,
        environment=os.environ,
        log=lambda _package, _line: None,
    )
    yield ok(f"openstack: {host.find('openstack', '')}")


@check("devcloud", "settings")
def _devcloud(examination: Examination) -> Iterator[Finding]:
    from cli.default_cloud import is_up, point_to_devcloud

    if examination.os_cloud or not point_to_devcloud(examination.session, examination.stack):
        return
    if is_up():
        yield ok("running (`lab devcloud status` shows its services)")
    else:
        yield fail("the stack's cloud, devcloud, is not running", "start it: `lab devcloud up` (as root) or `lab up`")


@check("variables", "settings")
def _variables(examination: Examination) -> Iterator[Finding]:
    stray = sorted(name for name in os.environ if name.startswith("OS_") and name not in HARMLESS_VARIABLES)
    cloud = examination.settings.cloud.name
    if cloud and stray:
        yield warn(f"{', '.join(stray)} override the entry '{cloud}' of clouds.yaml", f"unset {' '.join(stray)}")
    elif cloud:
        yield ok("no OS_* variable overrides clouds.yaml")
    else:
        yield ok(f"the cloud is selected by {', '.join(stray) or 'OS_CLOUD'}")


@check("credential", "settings", "devcloud")
def _credential(examination: Examination) -> Iterator[Finding]:
    access = examination.access
    yield ok(f"user {access.username}, project {access.project_name}, at {examination.cloud.auth['auth_url']}")


@check("restriction", "credential")
def _restriction(examination: Examination) -> Iterator[Finding]:
    from openstack.exceptions import raise_from_response

    access, settings = examination.access, examination.settings
    identity = access.application_credential_id
    if not identity:
        yield ok("none: this is not an application credential")
        return
    response = examination.cloud.identity.get(f"/users/{access.user_id}/application_credentials/{identity}")
    raise_from_response(response)
    credential = response.json()["application_credential"]
    name, expires_at = credential["name"], credential["expires_at"]
    remedy = "create one: openstack application credential create --unrestricted NAME"
    if not credential["unrestricted"] and settings.lease:
        yield fail(f"application credential '{name}' is restricted, and cannot create leases", remedy)
    elif not credential["unrestricted"]:
        yield warn(f"application credential '{name}' is restricted, and could not create leases", remedy)
    else:
        yield ok(f"application credential '{name}' is unrestricted")
    if expires_at:
        expiry = datetime.fromisoformat(expires_at).replace(tzinfo=UTC)
        period = settings.lease_period(datetime.now(UTC))
        until = period[1] if period else datetime.now(UTC) + timedelta(days=7)
        if expiry < until:
            yield warn(f"application credential '{name}' expires at {expiry:%Y-%m-%d %H:%M} UTC", remedy)


@check("roles", "credential")
def _roles(examination: Examination) -> Iterator[Finding]:
    have = {name.lower() for name in examination.access.role_names or ()}
    # A role implies lower ones; a token may list all of them, or only the highest.
    missing = set() if "admin" in have else NEEDED_ROLES - have
    if missing:
        yield fail(
            f"missing {', '.join(sorted(missing))} (it has {', '.join(sorted(have))}): requests get HTTP 403",
            "create an application credential with both: --role member --role reader",
        )
    else:
        yield ok(", ".join(sorted(have)))


@check("clock", "credential")
def _clock(examination: Examination) -> Iterator[Finding]:
    skew = abs(examination.token_skew)
    message = f"differs from the cloud's by {skew.total_seconds():.0f} s"
    remedy = "set this machine's clock (timedatectl set-ntp true): tokens and leases depend on it"
    yield fail(message, remedy) if skew > CLOCK_FAIL else warn(message, remedy) if skew > CLOCK_WARN else ok(message)


@check("lease", "credential")
def _lease(examination: Examination) -> Iterator[Finding]:
    from cli.cloud import blazar, offers

    lease = examination.settings.lease
    reservable = offers(examination.cloud, "reservation")
    if lease is None:
        yield ok("none requested")
    elif not reservable:
        yield fail("this cloud has no Blazar", "set ml-cluster:lease to none")
    else:
        blazar(examination.cloud).get("/leases")
        yield ok(f"{lease.type} is available")


@check("image", "credential")
def _image(examination: Examination) -> Iterator[Finding]:
    wanted: dict[str, list[NodeGroup]] = {}
    for _, group in examination.groups():
        wanted.setdefault(group.image or examination.settings.nodes.image, []).append(group)
    for name, groups in wanted.items():
        found = list(examination.cloud.image.images(name=name))
        remedy = "choose one of `openstack image list`, in ml-cluster:nodes.image"
        if not found:
            yield fail(f"image '{name}' does not exist", remedy)
        elif len(found) > 1:
            yield fail(f"{len(found)} images are named '{name}'", "rename or delete all but one")
        elif found[0].status != "active":
            yield fail(f"image '{name}' is {found[0].status}, not active", remedy)
        else:
            yield from _fits(examination, found[0], groups)


def _fits(examination: Examination, image: Any, groups: list[NodeGroup]) -> Iterator[Finding]:
    small = []
    for group in groups:
        flavor = examination.flavors.get(group.flavor)
        disk = group.boot_volume_gb or (flavor.disk if flavor else 0)
        if disk and disk < (image.min_disk or 0):
            small.append(f"{group.flavor} has {disk} GB of disk, but it needs {image.min_disk}")
        if flavor and flavor.ram < (image.min_ram or 0):
            small.append(f"{group.flavor} has {flavor.ram} MB of RAM, but it needs {image.min_ram}")
    for problem in small:
        yield fail(f"image '{image.name}': {problem}", "choose a larger flavor, or set bootVolumeGb")
    if not small:
        yield ok(f"'{image.name}' is active")


@check("flavor", "credential")
def _flavor(examination: Examination) -> Iterator[Finding]:
    wanted = sorted({group.flavor for _, group in examination.groups()})
    missing = [name for name in wanted if name not in examination.flavors]
    for name in missing:
        yield fail(f"flavor '{name}' does not exist", f"choose one of: {', '.join(sorted(examination.flavors))}")
    if not missing:
        yield ok(f"{', '.join(wanted)}: " + ("reservable" if examination.settings.lease else "available"))


@check("availability zone", "credential")
def _zone(examination: Examination) -> Iterator[Finding]:
    wanted = {group.availability_zone for _, group in examination.groups() if group.availability_zone}
    zones = {zone.name for zone in examination.cloud.compute.availability_zones()} if wanted else set()
    for name in sorted(wanted - zones):
        yield fail(f"availability zone '{name}' does not exist", f"choose one of: {', '.join(sorted(zones))}")
    if wanted <= zones:
        yield ok(", ".join(sorted(wanted)) or "the cloud's choice")


@check("network", "credential")
def _network(examination: Examination) -> Iterator[Finding]:
    settings = examination.settings.network
    external = {n.name for n in examination.cloud.network.networks(is_router_external=True)}
    if settings.existing:
        if examination.cloud.network.find_network(settings.existing):
            yield ok(f"'{settings.existing}' exists")
        else:
            yield fail(f"network '{settings.existing}' does not exist", "choose one of `openstack network list`")
    else:
        yield ok(f"a new one, {settings.cidr}")
    if settings.external_network and settings.external_network not in external:
        remedy = f"choose one of: {', '.join(sorted(external)) or '(none visible to this project)'}"
        yield fail(f"external network '{settings.external_network}' does not exist", remedy)
    elif settings.external_network:
        yield ok(f"'{settings.external_network}' is external")


@check("key", "credential")
def _key(examination: Examination) -> Iterator[Finding]:
    from infra.naming import KEYPAIR_PART, resource_name
    from infra.settings import public_key

    given = public_key(examination.settings, examination.config.path.parent)
    name = resource_name(examination.stack, KEYPAIR_PART)
    deployed = any(leftover.kind == "server" for leftover in examination.leftovers)
    if not deployed and any(leftover.kind == "keypair" for leftover in examination.leftovers):
        yield warn(f"key pair '{name}' already exists", "if nothing uses it, delete it: lab sweep --yes")
    else:
        yield ok("the public key in the settings" if given else "a key pair will be created")


@check("floating IPs", "network")
def _floating_ips(examination: Examination) -> Iterator[Finding]:
    needed = quota.floating_ips(examination.settings)
    missing = max(0, needed - examination.own["floating IP"])
    pool = examination.settings.network.external_network
    if not missing or not pool:
        yield ok(f"{needed} needed, {examination.own['floating IP']} allocated")
        return
    network = examination.cloud.network.find_network(pool, ignore_missing=False)
    unused = [ip for ip in examination.cloud.network.ips() if not ip.port_id and ip.floating_network_id == network.id]
    idle = f"; {len(unused)} of the project's are unused: {', '.join(ip.name for ip in unused)}" if unused else ""
    from cli.cloud import CloudError

    try:
        availability = examination.cloud.network.get_network_ip_availability(network.id)
        left = availability.total_ips - availability.used_ips
    except CloudError:  # only for admins, unless the site allows it
        yield ok(f"{missing} to be allocated from '{pool}'{idle}")
        return
    if left < missing:
        yield fail(f"{missing} needed, '{pool}' has {left} left", "release unused ones, or ask the operators")
    else:
        yield ok(f"{missing} needed, '{pool}' has {left} left")


def _check_quotas(quotas: list[quota.Quota]) -> Iterator[Finding]:
    for each in quotas:
        if not each.fits:
            yield fail(
                f"{each.name}: {each.needed} more needed, {each.free} of {each.limit} free",
                "delete leftovers (`lab sweep --all` shows them), make the stack smaller, or request more quota",
            )
    if all(each.fits for each in quotas):
        needed = ", ".join(f"{each.needed} {each.name}" for each in quotas if each.needed)
        yield ok(f"sufficient for {needed}" if needed else "nothing more is needed")


@check("compute quota", "flavor")
def _compute_quota(examination: Examination) -> Iterator[Finding]:
    needs = quota.compute_needs(examination.settings, examination.flavors, examination.own)
    yield from _check_quotas(quota.quotas(needs, quota.compute_limits(examination.cloud)))


@check("network quota", "credential")
def _network_quota(examination: Examination) -> Iterator[Finding]:
    needs = quota.network_needs(examination.settings, examination.own)
    limits = quota.network_limits(examination.cloud, str(examination.access.project_id))
    yield from _check_quotas(quota.quotas(needs, limits))


@check("volume quota", "credential")
def _volume_quota(examination: Examination) -> Iterator[Finding]:
    from cli.cloud import offers

    settings = examination.settings
    if not quota.volume_sizes(settings):
        yield ok("no volumes")
        return
    if not offers(examination.cloud, "volumev3", "block-storage", "volume"):
        yield fail("this cloud has no volumes (Cinder)", "remove ml-cluster:storage.volumes and bootVolumeGb")
        return
    needs = quota.volume_needs(settings, examination.own)
    yield from _check_quotas(quota.quotas(needs, quota.volume_limits(examination.cloud)))
    wanted = {v.type for v in settings.storage.volumes.values()} | {g.boot_volume_type for _, g in examination.groups()}
    types = {volume_type.name for volume_type in examination.cloud.block_storage.types()}
    for name in sorted(name for name in wanted if name and name not in types):
        yield fail(f"volume type '{name}' does not exist", f"choose one of: {', '.join(sorted(types))}")


def examine(examination: Examination) -> Iterator[Finding]:
    """Run every check whose dependencies passed."""
    from cli.cloud import CloudError, explain

    failed: set[str] = set()
    for each in CHECKS:
        if missing := [need for need in each.needs if need in failed]:
            failed.add(each.name)
            yield Finding(each.name, "skipped", f"depends on: {missing[0]}")
            continue
        findings: list[Finding] = []
        try:
            findings.extend(each.run(examination))
        except EngineError as error:
            findings.append(fail(str(error), error.remedy or ""))
        except CloudError as error:
            findings.append(fail(explain(error), _remedy(error)))
        except Exception as error:
            findings.append(
                fail(f"the check itself failed: {type(error).__name__}: {error}", "report this; it is a defect of lab")
            )
        for finding in findings:
            if finding.status == "fail":
                failed.add(each.name)
            yield Finding(each.name, finding.status, finding.message, finding.remedy)


def _remedy(error: Exception) -> str:
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    if status == 401:
        return "the credential is wrong, deleted or expired: create a new one and put it into clouds.yaml"
    if status == 403:
        return "the credential's roles do not allow this: it needs member and reader"
    return "check that this machine can reach the cloud (auth_url in clouds.yaml, VPN, proxy)"


def doctor(
    context: typer.Context,
    os_cloud: Annotated[
        str | None, typer.Option("--os-cloud", help="Entry of clouds.yaml. Default: the stack's.", metavar="CLOUD")
    ] = None,
    json: Json = False,
) -> None:
    """Check whether `up` can succeed, before anything is created, and print remedies."""
    counts: Counter[str] = Counter()
    findings = []
    for finding in examine(Examination(context.obj, os_cloud)):
        counts[finding.status] += 1
        findings.append(asdict(finding))
        if not json:
            print(f"{finding.status:<8} {finding.check:<17}  {finding.message}", flush=True)
            if finding.remedy:
                print(f"{'':<26}  -> {finding.remedy}", flush=True)
    if json:
        print(as_json(findings))
    else:
        print(
            "\n"
            + ", ".join(f"{counts[status]} {status}" for status in ("ok", "warn", "fail", "skipped") if counts[status])
        )
    if counts["fail"]:
        raise typer.Exit(ExitCode.ERROR)
