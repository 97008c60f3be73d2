"""The policy pack of a course: what each policy refuses, and the pack at work in the engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pulumi_openstack
import pytest
from pulumi_policy import (
    PolicyCustomTimeouts,
    PolicyResourceOptions,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from policies.course import __main__ as course
from tests.engine.harness import REPOSITORY, Stack, name_of

POLICIES = {policy.name: policy for policy in course.POLICIES}
RULE = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "portRangeMin": 22, "portRangeMax": 22}
TAGS = {"tags": ["ml-cluster:stack=dev"]}


@pytest.fixture(autouse=True)
def _fresh_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack's process judges one operation: it counts from nothing."""
    for name in ("nodes", "reserved", "addresses"):
        monkeypatch.setattr(course, name, course.Counter())
    monkeypatch.setattr(course, "starts", {})
    monkeypatch.setattr(course, "reported", set())


def judge(policy: str, type_: str, props: dict[str, Any], urn: str = "urn", **config: Any) -> list[str]:
    """What a policy says of a resource, with its defaults and `config`."""
    chosen = POLICIES[policy]
    assert isinstance(chosen, ResourceValidationPolicy)
    assert chosen.config_schema is not None
    settings = {key: schema["default"] for key, schema in chosen.config_schema.properties.items()} | config
    options = PolicyResourceOptions(False, [], None, [], PolicyCustomTimeouts(0, 0, 0), [])
    args = ResourceValidationArgs(type_, unknown_checking_proxy(props), urn, "name", options, None, settings)
    found: list[str] = []

    def report(message: str, _urn: str | None = None) -> None:
        found.append(message)

    chosen.validate(args, report)
    return found


@pytest.mark.parametrize(
    "rule",
    [
        {"remoteIpPrefix": "0.0.0.0/0"},
        {"remoteIpPrefix": "128.0.0.0/1"},
        {"remoteIpPrefix": "10.1.2.3/0"},
        {"remoteIpPrefix": "::/0", "ethertype": "IPv6"},
        {"remoteIpPrefix": "0:0::0/0", "ethertype": "ipv6"},
        {"remoteIpPrefix": "2000::/3", "ethertype": "IPv6"},
        {"remoteIpPrefix": None},
        {},
        {"remoteIpPrefix": "0.0.0.0/0", "protocol": "TCP"},
        {"remoteIpPrefix": "0.0.0.0/0", "protocol": "6"},
        {"remoteIpPrefix": "0.0.0.0/0", "protocol": None, "portRangeMin": None, "portRangeMax": None},
        {"remoteIpPrefix": "0.0.0.0/0", "protocol": "any"},
        {"remoteIpPrefix": "0.0.0.0/0", "portRangeMin": 1, "portRangeMax": 65535},
        {"remoteIpPrefix": "0.0.0.0/0", "portRangeMin": None, "portRangeMax": None},
    ],
)
def test_ssh_open_to_everybody(rule: dict[str, Any]) -> None:
    (message,) = judge("no-open-ssh", course.RULE, RULE | rule)
    assert message.startswith("Port 22 is open to ")


@pytest.mark.parametrize(
    "rule",
    [
        {"remoteIpPrefix": "192.0.2.0/24"},
        {"remoteIpPrefix": "10.0.0.0/8"},
        {"remoteIpPrefix": "2001:db8::/32", "ethertype": "IPv6"},
        {"remoteGroupId": "nodes", "remoteIpPrefix": None},
        {"remoteIpPrefix": "0.0.0.0/0", "direction": "egress"},
        {"remoteIpPrefix": "0.0.0.0/0", "protocol": "udp"},
        {"remoteIpPrefix": "0.0.0.0/0", "protocol": "icmp"},
        {"remoteIpPrefix": "0.0.0.0/0", "portRangeMin": 80, "portRangeMax": 443},
        {"remoteIpPrefix": "0.0.0.0/0", "portRangeMin": 1, "portRangeMax": 21},
    ],
)
def test_ssh_that_is_not_open(rule: dict[str, Any]) -> None:
    assert judge("no-open-ssh", course.RULE, RULE | rule) == []


def test_other_ports_and_ranges_by_setting() -> None:
    api = RULE | {"portRangeMin": 6443, "portRangeMax": 6443, "remoteIpPrefix": "198.51.0.0/16"}
    assert judge("no-open-ssh", course.RULE, api, ports=[22, 6443]) == []
    (message,) = judge("no-open-ssh", course.RULE, api, ports=[22, 6443], shortestIpv4Prefix=24)
    assert "198.51.0.0/16" in message


def test_nodes_and_reservations_are_counted() -> None:
    def output(type_: str, props: dict[str, Any], urn: str) -> list[str]:
        return judge("few-nodes", type_, props, urn, most=2)

    assert output(course.INSTANCE, {}, "a") == []
    assert output(course.INSTANCE, {}, "b") == []
    assert output(course.INSTANCE, {}, "a") == [], "the same node counts once"
    (message,) = output(course.INSTANCE, {}, "c")
    assert message == "The stack asks for 3 nodes, 2 are allowed: see nodes.groups in its settings."
    assert output(course.LEASE, {"amount": 1.0}, "control") == []
    (message,) = output(course.LEASE, {"amount": 2.0}, "worker")
    assert "reserve 3 nodes" in message


def test_one_floating_ip_is_enough() -> None:
    assert judge("few-floating-ips", course.FLOATING_IP, {}, "a") == []
    (message,) = judge("few-floating-ips", course.FLOATING_IP, {}, "b")
    assert "2 floating IPs, 1 allowed" in message
    assert judge("few-floating-ips", course.FLOATING_IP, {}, "c", most=3) == []


def lease(**props: Any) -> dict[str, Any]:
    return {"name": "dev-lease-worker", "hours": None, "end": None, "start": None} | props


@pytest.mark.parametrize(
    ("props", "too_long"),
    [
        ({"hours": 12.0}, False),
        ({"hours": 13.0}, True),
        ({"start": "2030-01-01T18:00Z", "end": "2030-01-02T06:00Z"}, False),
        ({"start": "2030-01-01T18:00Z", "end": "2030-01-02T08:00+01:00"}, True),
        ({"end": (datetime.now(UTC) + timedelta(hours=11)).isoformat()}, False),
        ({"end": (datetime.now(UTC) + timedelta(days=7)).isoformat()}, True),
    ],
)
def test_long_leases(props: dict[str, Any], too_long: bool) -> None:
    assert bool(judge("short-lease", course.LEASE, lease(**props))) is too_long


def test_a_longer_end_of_a_lease_that_is_there() -> None:
    """As `lab extend` asks for: of the lease itself, the settings of its last update are judged."""
    end = lease(hours=14.0, start_date="2030-01-01T18:00:00.000000")
    assert judge("short-lease", course.LEASE, lease(hours=12.0)) == []
    (message,) = judge("short-lease", course.LEASE_END, end)
    assert "14 hours, 12 are allowed" in message
    assert judge("short-lease", course.LEASE_END, end) == [], "it is said once"


@pytest.mark.parametrize(
    ("start", "hours", "zone", "days"),
    [
        ("2030-01-01T18:00:00.000000", 12, "UTC", []),  # 6 daytime hours, then the night
        ("2030-01-01T08:00:00.000000", 8, "UTC", []),
        ("2030-01-01T08:00:00.000000", 9, "UTC", ["2030-01-01"]),
        ("2030-01-01T23:00:00.000000", 18, "UTC", ["2030-01-02"]),
        ("2030-01-01T00:00:00.000000", 48, "UTC", ["2030-01-01", "2030-01-02"]),
        ("2030-01-01T04:00:00.000000", 12, "America/Chicago", []),  # 22:00 to 10:00 there
        ("2030-01-01T14:00:00.000000", 12, "America/Chicago", ["2030-01-01"]),  # 8:00 to 20:00 there
    ],
)
def test_daytime(start: str, hours: int, zone: str, days: list[str]) -> None:
    end = lease(hours=float(hours), start_date=start)
    found = judge("few-daytime-hours", course.LEASE_END, end, timezone=zone)
    assert [message.split(" on ")[1][:10] for message in found] == days


def test_daytime_of_a_lease_to_be_made() -> None:
    later = lease(hours=9.0, start="2030-01-01T08:00Z")
    (message,) = judge("few-daytime-hours", course.LEASE, later)
    assert "9 daytime hours on 2030-01-01, 8 are allowed" in message
    at_once = lease(hours=48.0, name="other")
    assert judge("few-daytime-hours", course.LEASE, at_once) == [], "it may be there, and have started long ago"
    assert judge("few-daytime-hours", course.LEASE_END, at_once | {"start_date": UNKNOWN_STRING_VALUE})


def test_a_misspelt_time_zone() -> None:
    end = lease(hours=1.0, start_date="2030-01-01T18:00:00.000000")
    with pytest.raises(ValueError, match="there is no time zone 'Chicago'"):
        judge("few-daytime-hours", course.LEASE_END, end, timezone="Chicago")


def test_the_sdk_has_every_type_that_the_pack_names() -> None:
    registered = Path(pulumi_openstack.__file__).read_text()
    named = course.TAGGED | {course.INSTANCE, course.FLOATING_IP, course.RULE}
    assert [type_ for type_ in named if f'"{type_}"' not in registered] == []


def test_tags() -> None:
    network = "openstack:networking/network:Network"
    assert judge("required-tags", network, TAGS) == []
    assert judge("required-tags", network, {"tags": ["ml-cluster:stack"]}) == []
    assert judge("required-tags", course.INSTANCE, {"metadata": {"ml-cluster:stack": "dev"}}) == []
    for props in ({}, {"tags": None}, {"tags": ["mine"]}, {"metadata": {"stack": "ml-cluster:stack"}}):
        assert judge("required-tags", network, props) == [
            "It has no tag ml-cluster:stack. Give it tags, or metadata where its type has those."
        ]
    assert judge("required-tags", "openstack:compute/keypair:Keypair", {}) == []
    (message,) = judge("required-tags", network, TAGS, tags=["course", "ml-cluster:stack"])
    assert "no tag course." in message


PROGRAM = """
import pulumi_openstack as openstack
from pulumi.dynamic import ResourceProvider, Resource

class Lease(Resource, module="blazar", name="Lease"):
    def __init__(self, name, props, opts=None):
        super().__init__(ResourceProvider(), name, props, opts)

tags = [f"ml-cluster:stack={get_stack()}"]
lease = Lease("lease", {"name": "dev-lease", "hours": HOURS, "end": None, "start": None, "amount": NODES})
late = ResourceOptions(depends_on=[lease])
group = openstack.networking.SecGroup("group", name="g", tags=tags, opts=late)
openstack.networking.SecGroupRule(
    "ssh", security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp",
    port_range_min=22, port_range_max=22, remote_ip_prefix=SSH, opts=late)
for i in range(NODES):
    openstack.compute.Instance(f"node-{i}", name=f"node-{i}", flavor_name="small", metadata=METADATA, opts=late)
openstack.networking.FloatingIp("ip", pool="public", tags=tags, opts=late)
"""


def test_the_pack_in_the_engine(tmp_path: Path) -> None:
    """The pack of the repository, on types of the real SDK; a provider of the tests stands in for the cloud."""
    stack = Stack(tmp_path)
    stack.install_plugin(tmp_path / "bin" / "pulumi-resource-openstack")
    stack.project_file()
    limits = tmp_path / "limits.json"
    limits.write_text(json.dumps({"few-nodes": {"most": 2}, "short-lease": {"hours": 6}}))
    flags = ["--policy-pack", str(REPOSITORY / "policies/course"), "--policy-pack-config", str(limits)]

    def program(**values: object) -> None:
        text = PROGRAM
        for name, value in values.items():
            text = text.replace(name, repr(value))
        stack.program(text)

    program(HOURS=24, NODES=3, SSH="0.0.0.0/0", METADATA={})
    stack.init()
    preview = stack.preview(*flags, ok=False)
    violations = {(e["policyName"], name_of(e["resourceUrn"]).split("-")[0]) for e in preview.of_kind("policyEvent")}
    assert violations == {
        ("few-nodes", "lease"),
        ("few-nodes", "node"),
        ("short-lease", "lease"),
        ("no-open-ssh", "ssh"),
        ("required-tags", "node"),
    }
    assert stack.up(*flags, ok=False).changes == {"create": 1}, "the stack itself"
    assert stack.existing() == {}

    program(HOURS=6, NODES=2, SSH="192.0.2.0/24", METADATA={"ml-cluster:stack": "dev"})
    preview = stack.preview(*flags)
    assert preview.of_kind("policyEvent") == []
    (summary,) = preview.of_kind("summaryEvent")
    assert [(name.split("|")[0], version) for name, version in summary["PolicyPacks"].items()] == [("course", "1.0.0")]
