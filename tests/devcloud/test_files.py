"""What devcloud writes before it starts anything."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from devcloud.config import Configuration
from devcloud.errors import DevcloudError
from devcloud.images import later
from devcloud.layout import Host, Layout, Passwords, Settings, chosen
from devcloud.services import table, write_plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "state", Settings())
    for folder in (layout.cache, layout.etc, layout.run, layout.log):
        folder.mkdir(parents=True)
    return layout


def test_files_with_passwords_are_for_root_alone(layout: Layout) -> None:
    passwords = Passwords(layout.cache / "passwords")
    Configuration(layout, passwords).write()
    written = [path for path in layout.etc.rglob("*") if path.is_file()]
    holding = [path for path in written if passwords["nova"] in path.read_text()]
    assert holding
    assert {path.stat().st_mode & 0o777 for path in [*written, layout.cache / "passwords"]} == {0o600}


def test_no_password_is_on_a_command_line_or_in_an_environment(layout: Layout) -> None:
    path = layout.cache / "passwords"
    Configuration(layout, Passwords(path)).write()
    values = [line.split("=", 1)[1] for line in path.read_text().splitlines()]
    plan = write_plan(layout).read_text()
    assert len(values) > 8
    assert [value for value in values if value in plan] == []


def test_passwords_stay_the_same_in_a_later_run(tmp_path: Path) -> None:
    assert Passwords(tmp_path / "passwords")["nova"] == Passwords(tmp_path / "passwords")["nova"]


def test_every_configuration_file_that_a_service_is_given_is_written(layout: Layout) -> None:
    Configuration(layout, Passwords(layout.cache / "passwords")).write()
    words = [word for service in table(layout) for word in " ".join(service.command).split()]
    given = {word for word in words if word.startswith(str(layout.etc)) and word.endswith((".conf", ".ini"))}
    assert len(given) > 8
    assert [path for path in given if not layout.etc.joinpath(path).exists()] == []


def test_a_service_comes_after_all_that_it_needs(layout: Layout) -> None:
    seen: set[str] = set()
    late = []
    for service in table(layout):
        late += [(service.name, name) for name in service.needs if name not in seen]
        seen.add(service.name)
    assert late == []


def test_each_compute_host_has_its_own_address_and_services(tmp_path: Path) -> None:
    hosts = tuple(Host(name=f"h{number}") for number in range(3))
    layout = Layout(tmp_path, Settings(hosts=hosts))
    assert len({layout.host_address(host) for host in hosts}) == 3
    assert {"compute-h0", "compute-h1", "compute-h2"} <= {service.name for service in table(layout)}


def test_the_plan_keeps_every_listener_off_the_machines_own_interfaces(layout: Layout) -> None:
    layout.data.mkdir()
    plan = json.loads(write_plan(layout).read_text())
    bound = {service["ready"][1] for service in plan["services"] if service["ready"] and service["ready"][0] == "tcp"}
    assert bound == {"127.0.0.1", str(layout.api_address), str(layout.control_address)}


@pytest.mark.parametrize("subnet", ["8.8.8.0/24", "172.25.0.0/28"])
def test_a_subnet_that_is_public_or_too_small_is_refused(subnet: str) -> None:
    with pytest.raises(ValidationError):
        Settings(subnet=IPv4Network(subnet))


def test_a_state_folder_that_other_users_cannot_reach_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DevcloudError, match="other users have no access") as caught:
        Layout(closed / "state", Settings()).make_folders()
    assert str(caught.value.remedy).startswith("choose another --state")


@pytest.mark.parametrize(
    ("options", "host"),
    [
        ({}, None),
        ({"virtual_machines": True}, "compute-ctl"),
        ({"virtual_machines": True, "fake_host": True}, "compute-fake"),
    ],
)
def test_the_controller_is_one_compute_host_at_most(tmp_path: Path, options: dict[str, bool], host: str | None) -> None:
    names = {service.name for service in table(Layout(tmp_path, Settings.model_validate(options)))}
    assert names & {"compute-ctl", "compute-fake"} == ({host} if host else set())


def test_an_image_of_virtual_machines_needs_their_host() -> None:
    chosen_one = {"more_images": ["CC-Ubuntu24.04-VM"]}
    with pytest.raises(DevcloudError, match="needs --virtual-machines"):
        chosen(**chosen_one)
    settings = chosen(**chosen_one, virtual_machines=True)
    assert settings is not None
    assert [image.name for image in later(settings)] == ["CC-Ubuntu24.04-VM"]
    assert [image.name for image in later(Settings(virtual_machines=True))] == ["CC-Debian12-VM"]
