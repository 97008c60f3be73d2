"""devcloud's files, addresses and compute hosts."""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from devcloud.errors import DevcloudError

if TYPE_CHECKING:
    from pathlib import Path

REGION = "RegionOne"
# Used only inside devcloud's network namespaces; RFC 2544's range, so that it overlaps no real network.
MANAGEMENT = IPv4Network("198.18.0.0/24")
# VXLAN adds 50 bytes: tenant networks keep an MTU of 1500 on a 1600-byte underlay.
UNDERLAY_MTU = 1600
SERVICE_ACCOUNTS = ("glance", "placement", "nova", "neutron", "cinder", "blazar")
PORTS = {
    "keystone": 5000,
    "glance": 9292,
    "placement": 8778,
    "nova": 8774,
    "nova-metadata": 8775,
    "neutron": 9696,
    "cinder": 8776,
    "blazar": 1234,
}
EXPORTER_PORT = 9180
"""Where metrics and log lines are, at the address of the APIs."""


def _roomy(subnet: IPv4Network) -> IPv4Network:
    if not subnet.is_private or subnet.prefixlen > 24:
        raise ValueError("must be a private network of /24 or larger")
    return subnet


class Host(BaseModel):
    """A compute host: a network, mount and host name namespace with its own libvirt and nova-compute."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,9}$")]
    hypervisor: Literal["lxc"] = "lxc"
    reservable: bool = Field(
        default=False, description="In Blazar's free pool: instances land on it only with a reservation."
    )


class Settings(BaseModel):
    """What a user can choose. Kept in the state folder at the first `up`; `reset` forgets it."""

    subnet: Annotated[IPv4Network, AfterValidator(_roomy)] = Field(
        default=IPv4Network("172.25.0.0/24"),
        description="External network: this machine is its first address, the APIs are at its second; floating IPs "
        "are its 100th to the last but 56.",
    )
    hosts: tuple[Host, ...] = (Host(name="lxc1"), Host(name="lxc2", reservable=True))
    fake_host: bool = Field(
        default=False,
        description="Also a compute host of nova's fake driver, for tests of scale: its instances, booted from the "
        "image `fake`, are only rows in databases; everything else about them is real. It replaces the host of virtual "
        "machines.",
    )
    virtual_machines: bool = Field(
        default=False,
        description="Also run virtual machines, on the controller: with KVM where it works, else emulated.",
    )
    more_images: tuple[Literal["CC-Debian13", "CC-Ubuntu24.04", "CC-Ubuntu24.04-VM"], ...] = Field(
        default=(),
        description="Images to make beside CC-Debian12, of virtual machines (-VM) where there are such; minutes and "
        "300 MB each.",
    )
    image_user: str = Field(default="cc", description="Login name in the images; `cc` as on Chameleon.")
    mirror: str | None = Field(default=None, description="Debian mirror; None: mmdebstrap's default.")

    @field_validator("more_images")
    @classmethod
    def _with_a_host(cls, images: tuple[str, ...], found: ValidationInfo) -> tuple[str, ...]:
        if any(name.endswith("-VM") for name in images) and not found.data["virtual_machines"]:
            raise ValueError("an image of virtual machines needs --virtual-machines")
        return images

    @model_validator(mode="after")
    def _one_on_the_controller(self) -> Self:
        """The fake host and the host of virtual machines have the same name, the controller's."""
        if self.fake_host:
            self.virtual_machines = False
        return self


def chosen(**options: object) -> Settings | None:
    """The settings of the given options; None if none is given.

    Raises:
        DevcloudError: a value cannot be used.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings.model_validate(given) if given else None
    except ValidationError as error:
        faults = (f"{fault['input']}: {fault['msg']}" for fault in error.errors())
        raise DevcloudError(f"invalid settings: {'; '.join(faults)}") from None


class Layout:
    """Paths and addresses, all derived from the state folder and the settings."""

    def __init__(self, state: Path, settings: Settings) -> None:
        self.state = state
        self.settings = settings
        self.root = state / "root"
        self.cache = state / "cache"
        self.etc = state / "etc"
        self.data = state / "data"
        self.run = state / "run"
        self.log = state / "log"

    @property
    def socket(self) -> Path:
        """The supervisor's control socket."""
        return self.run / "supervisor.sock"

    @property
    def virtualisation(self) -> Path:
        """Configuration file with the result of the check for KVM (see `inside/virtual.py`)."""
        return self.run / "virtual.conf"

    @property
    def clouds_yaml(self) -> Path:
        """The client configuration of both accounts (0600)."""
        return self.state / "clouds.yaml"

    @property
    def machine_address(self) -> IPv4Address:
        """This machine, on the external network; also the gateway of floating IPs."""
        return self.settings.subnet[1]

    @property
    def api_address(self) -> IPv4Address:
        """Where every API listens."""
        return self.settings.subnet[2]

    @property
    def control_address(self) -> IPv4Address:
        """The controller on the management network."""
        return MANAGEMENT[1]

    def host_address(self, host: Host) -> IPv4Address:
        """A compute host on the management network."""
        return MANAGEMENT[11 + self.settings.hosts.index(host)]

    def url(self, service: str) -> str:
        """The base URL of a service's API."""
        return f"http://{self.api_address}:{PORTS[service]}"

    def make_folders(self) -> None:
        """Create the state folder's skeleton.

        Folders can be traversed by all, because dnsmasq drops to `nobody` and reads its leases below `data`;
        files with secrets are 0600.

        Raises:
            DevcloudError: a folder above cannot be traversed by other users.
        """
        for folder in (self.state, self.cache, self.etc, self.data, self.run, self.log):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711)
        for parent in self.state.parents:
            if not parent.stat().st_mode & 0o001:
                raise DevcloudError(
                    f"devcloud cannot use {self.state}: other users have no access to {parent}, and its DHCP servers "
                    "run as another user",
                    remedy="choose another --state, or: chmod o+x " + str(parent),
                )


class Passwords:
    """Random passwords by name, kept in one 0600 file so that databases created earlier can still be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, str] = {}
        if path.exists():
            lines = path.read_text().splitlines()
            self._values = dict(line.split("=", 1) for line in lines)

    def __getitem__(self, name: str) -> str:
        if name not in self._values:
            self._values[name] = secrets.token_urlsafe(18)
            write_secret(self._path, "".join(f"{key}={value}\n" for key, value in self._values.items()))
        return self._values[name]


def write_secret(path: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)
