"""A class on a real cloud: a stack a row, one of them wrong, the command killed on the way, and all gone at the end."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from infra.naming import stack_of
from tests.cli.harness import Lab
from tests.cli.test_class import public_key, roster
from tests.e2e.harness import wait

if TYPE_CHECKING:
    from pathlib import Path

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(2400)]
IDS = ("class-1", "class-2", "class-3", "class-4")
WRONG = "class-3"
TEMPLATE = """\
config:
  ml-cluster:cloud: {name: devcloud}
  ml-cluster:lease: none
  ml-cluster:network: {externalNetwork: public}
  ml-cluster:access: {user: cc, sshFrom: [192.0.2.0/24]}
  ml-cluster:nodes:
    image: CC-Debian12
    groups:
      control: {role: control-plane, count: 1, flavor: m1.tiny}
"""


@pytest.fixture
def lab(devcloud: Devcloud, tmp_path: Path) -> Lab:
    """The program with a template for a class; devcloud is found by itself."""
    lab = Lab(tmp_path)
    lab.write_program()
    (lab.project / "Pulumi.lesson.yaml").write_text(TEMPLATE)
    lab.env |= {"DEVCLOUD_STATE": str(devcloud.layout.state), "PULUMI_CONFIG_PASSPHRASE": "test"}
    return lab


def servers(cloud: Connection) -> dict[str, int]:
    owners = [stack_of(server.metadata) for server in cloud.compute.servers()]
    return {name: owners.count(name) for name in IDS if name in owners}


def run(lab: Lab, verb: str, path: str, *options: str) -> tuple[int, Any]:
    done = subprocess.run(
        lab.command("class", verb, path, *options, "--json"),
        env=lab.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


def test_a_class_from_its_roster_to_nothing(lab: Lab, student: Connection) -> None:
    flavors = ["", "", "m9.none", ""]
    rows = [f"{name},{public_key()},{flavor}" for name, flavor in zip(IDS, flavors, strict=True)]
    path = roster(lab, "id,key,config:nodes.groups.control.flavor", *rows)
    up = ("up", path, "--template", "lesson", "--yes")

    first = subprocess.Popen(
        lab.command("class", *up, "--parallel", "2"), env=lab.env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert first.stderr is not None
    output = ""
    while " done " not in output:
        line = first.stderr.readline()
        assert line, f"ended before a row was done: {output}"
        output += line
    first.send_signal(signal.SIGKILL)
    first.wait()
    early = next(line.split()[0] for line in output.splitlines() if " done " in line)

    def states() -> dict[str, str]:
        return {entry["id"]: entry["state"] for entry in run(lab, "status", path)[1]}

    wait(lambda: "in progress" not in states().values(), "what the killed command had started is over")
    assert states()[early] == "up"
    assert sorted(set(states().values()) - {"up", "failed"}), "it was killed before all rows were tried"

    status, results = run(lab, *up)
    response = {result["id"]: result for result in results}
    assert status == 1
    assert response[early]["result"] == "unchanged"
    assert {name for name in IDS if response[name]["result"] == "failed"} == {WRONG}
    assert "m9.none" in response[WRONG]["error"]
    assert "m9.none" in (lab.project / "autumn.class" / f"{WRONG}.log").read_text()
    assert servers(student) == {name: 1 for name in IDS if name != WRONG}
    entries = {entry["id"]: entry for entry in run(lab, "status", path)[1]}
    assert {name: (entry["state"], entry["nodes"]) for name, entry in entries.items()} == {
        name: ("failed", 0) if name == WRONG else ("up", 1) for name in IDS
    }
    assert "m9.none" in entries[WRONG]["error"]

    status, results = run(lab, "down", path, "--yes")
    assert (status, {result["result"] for result in results}) == (0, {"done"})
    assert servers(student) == {}
    for name in IDS:
        assert lab.run("sweep", "--stack", name, "--os-cloud", "devcloud", "--json", env=client(lab)).json == []
    assert lab.run("stack", "ls", "--json").json == []
    assert sorted(found.name for found in lab.project.glob("Pulumi.class-*.yaml")) == []


def client(lab: Lab) -> dict[str, str]:
    return {"OS_CLIENT_CONFIG_FILE": f"{lab.env['DEVCLOUD_STATE']}/clouds.yaml"}


def test_a_class_that_the_quota_has_no_room_for_is_refused_as_a_whole(lab: Lab, student: Connection) -> None:
    path = roster(
        lab, "id,key,config:nodes.groups.control.count,config:network.floatingIps",
        f"class-1,{public_key()},1,", f"class-2,{public_key()},3,all",
    )  # fmt: skip
    big = (lab.project / "Pulumi.lesson.yaml").read_text() + "      more: {role: worker, count: 200, flavor: m1.tiny}\n"
    (lab.project / "Pulumi.lesson.yaml").write_text(big)
    outcome = lab.run("class", "up", path, "--template", "lesson", "--yes", status=1)
    assert "the project's quotas are too small for 2 stacks" in outcome.stderr
    lines = {line.split("  ")[1]: line.split()[-3:] for line in outcome.stderr.splitlines() if line.startswith("  ")}
    assert lines["instances"][0] == "404"
    assert {"instances", "cores", "MB of RAM", "ports", "floating ips"} <= lines.keys()
    assert servers(student) == {}
    assert lab.run("stack", "ls", "--json").json == []
