"""What the components declare for which settings. Pulumi's mocks stand for an engine: nothing is made here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from infra.access import Access
from infra.cloud_init import user_data
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.inventory import inventory
from infra.lease import Lease
from infra.naming import stack_metadata, stack_of, stack_tag
from infra.network import Network
from infra.nodes import Nodes
from infra.settings import load_settings
from infra.storage import Storage
from tests.infra.wrong import NOW, PUBLIC_KEY, configuration

STACK = "lab"
TAG = stack_tag(STACK)


@dataclass
class Recorder(mocks.Mocks):
    """Takes what is declared, and answers as an empty cloud would."""

    state: Mapping[str, Any] = field(default_factory=dict)
    """What the stack has, by URN."""
    declared: dict[str, mocks.MockResourceArgs] = field(default_factory=dict)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        kind = args.typ.rsplit(":", 1)[1]
        if args.custom:
            self.declared[f"{kind} {args.name}"] = args
        answers: dict[str, dict[str, Any]] = {
            "Port": {"allFixedIps": ["10.42.0.9"]},
            "FloatingIp": {"address": "172.24.4.100"},
            "Lease": {"reservation_id": f"r-{args.name}", "start_date": "2026-11-23T12:00Z"},
            "LeaseEnd": {"end_date": "2026-11-24T00:00Z"},
        }
        return f"id-{args.name}", {**args.inputs, **answers.get(kind, {})}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        if args.token.endswith(":readStackResourceOutputs"):
            return {"outputs": dict(self.state)}, []
        return {"id": f"id-{args.args['name']}", "name": args.args["name"]}, []


class Declared:
    """The resources of a stack, by `<Type> <name>`."""

    def __init__(self, resources: Mapping[str, mocks.MockResourceArgs]) -> None:
        self._resources = resources

    def __getitem__(self, key: str) -> dict[str, Any]:
        return dict(self._resources[key].inputs)

    def names(self, kind: str) -> set[str]:
        return {key.split(" ", 1)[1] for key in self._resources if key.split(" ", 1)[0] == kind}

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((key, dict(args.inputs)) for key, args in self._resources.items())


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the components remember is kept below the project's folder."""
    monkeypatch.chdir(tmp_path)


def declare(change: str = "{}", state: Mapping[str, Any] | None = None) -> Declared:
    """Run the components of the program for the good configuration, changed, on a stack that has `state`."""
    recorder = Recorder(state or {})
    mocks.set_mocks(recorder, project="ml-cluster", stack=STACK)
    chosen = load_settings(configuration(change), stack=STACK, now=NOW)

    @pulumi.runtime.test  # type: ignore[untyped-decorator]
    def program() -> None:
        lease, network, access = Lease(chosen), Network(chosen), Access(chosen)
        nodes = Nodes(chosen, lease, network, access, storage=Storage(chosen))
        if chosen.cluster is not None:
            Cluster(chosen, nodes, access.private_key)

    program()
    return Declared(recorder.declared)


def test_everything_that_can_be_tagged_is() -> None:
    tagged = {"Network", "Subnet", "Router", "Port", "SecGroup", "FloatingIp"}
    marked = {"Instance", "Volume"}
    seen = set()
    for key, inputs in declare():
        kind = key.split(" ", 1)[0]
        if kind in tagged:
            assert inputs["tags"] == [TAG], key
            assert stack_of(tags=inputs["tags"]) == STACK
        if kind in marked:
            assert stack_metadata(STACK).items() <= inputs["metadata"].items(), key
        if kind in {"Keypair", "ServerGroup", "Lease"}:
            assert inputs["name"].startswith(f"{STACK}-"), key
        seen.add(kind)
    assert tagged | marked | {"Keypair", "ServerGroup", "Lease"} <= seen


def rules(declared: Declared) -> set[tuple[object, object, object]]:
    """Port, source range and source group of every ingress rule; a `None` is not restricted."""
    return {
        (inputs.get("portRangeMin"), inputs.get("remoteIpPrefix"), inputs.get("remoteGroupId"))
        for key, inputs in declared
        if key.startswith("SecGroupRule ") and inputs["direction"] == "ingress"
    }


def test_no_more_is_open_than_was_asked_for() -> None:
    opened = rules(declare("access: {sshFrom: [192.0.2.0/24], webFrom: [198.51.100.0/24], webPorts: [443]}"))
    assert opened == {
        (22, "192.0.2.0/24", None),
        (443, "198.51.100.0/24", None),
        (None, None, "id-nodes"),
    }
    with_api = rules(declare("access: {apiFrom: [203.0.113.7/32], webPorts: [80]}"))
    assert (6443, "203.0.113.7/32", None) in with_api


def test_only_the_entry_has_the_entry_group() -> None:
    declared = declare()
    assert declared["Port control-0-port"]["securityGroupIds"] == ["id-nodes", "id-entry"]
    assert declared["Port worker-0-port"]["securityGroupIds"] == ["id-nodes"]


def test_pods_pass_by_address_pairs_and_port_security_stays() -> None:
    declared = declare()
    pairs = [pair["ipAddress"] for pair in declared["Port worker-1-port"]["allowedAddressPairs"]]
    assert pairs == ["10.244.0.0/16", "10.96.0.0/16"]
    assert declared["Network network"]["portSecurityEnabled"] is True


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("first-control-plane", {"control-0-ip"}),
        ("control-plane", {"control-0-ip", "control-1-ip", "control-2-ip"}),
        ("all", {"control-0-ip", "control-1-ip", "control-2-ip", "worker-0-ip", "worker-1-ip"}),
        ("none", set()),
    ],
)
def test_floating_ips(choice: str, expected: set[str]) -> None:
    declared = declare(f"{{network: {{floatingIps: {choice}}}, nodes: {{groups: {{control: {{count: 3}}}}}}}}")
    assert declared.names("FloatingIp") == expected
    assert declared.names("FloatingIpAssociate") == {f"{name}-on-port" for name in expected}


def test_existing_network_is_used_not_made() -> None:
    declared = declare("network: {existing: sharednet1}")
    assert declared.names("Network") | declared.names("Subnet") | declared.names("Router") == set()
    port = declared["Port control-0-port"]
    assert port["networkId"] == "id-sharednet1"
    assert "allowedAddressPairs" not in port


def test_port_security_off_has_no_groups() -> None:
    declared = declare("network: {existing: sharednet1, portSecurity: false}")
    assert declared.names("SecGroup") == set()
    assert declared["Port control-0-port"]["noSecurityGroups"] is True


def test_own_network_without_a_way_out_has_no_router() -> None:
    declared = declare("network: {externalNetwork: null, floatingIps: none}")
    assert declared.names("Router") == set()
    assert declared.names("Subnet") == {"subnet"}


def test_flavors_of_a_lease_are_those_of_its_reservation() -> None:
    declared = declare("nodes: {groups: {gpu: {role: gpu-worker, count: 1, flavor: g1.h100.pci.1}}}")
    assert declared.names("Lease") == {"lease-control", "lease-worker", "lease-gpu"}
    lease = declared["Lease lease-worker"]
    assert (lease["kind"], lease["flavor"], lease["amount"]) == ("flavor:instance", "m1.small", 2)
    assert declared["Instance worker-1"]["flavorName"] == "reservation:r-lease-worker"
    assert declared["Instance gpu-0"]["flavorName"] == "reservation:r-lease-gpu"


def test_hosts_of_a_lease_are_found_by_the_hint() -> None:
    declared = declare(
        """
        lease: {type: "physical:host"}
        storage: {volumes: null}
        nodes: {groups: {worker: {flavor: baremetal, hostProperties: {node_type: compute_skylake, gpu.gpu: "True"}}}}
        """
    )
    lease = declared["Lease lease-worker"]
    assert lease["properties"] == '["and", ["==", "$gpu.gpu", "True"], ["==", "$node_type", "compute_skylake"]]'
    server = declared["Instance worker-0"]
    assert server["flavorName"] == "baremetal"
    assert server["schedulerHints"] == [{"additionalProperties": {"reservation": "r-lease-worker"}}]


def test_without_a_lease_nothing_is_reserved() -> None:
    declared = declare("lease: none")
    assert declared.names("Lease") | declared.names("LeaseEnd") == set()
    assert declared["Instance worker-0"]["flavorName"] == "m1.small"


@pytest.mark.parametrize(("choice", "policy"), [("soft", "soft-anti-affinity"), ("hard", "anti-affinity")])
def test_anti_affinity(choice: str, policy: str) -> None:
    declared = declare(f"nodes: {{antiAffinity: {choice}}}")
    assert declared["ServerGroup worker-spread"]["policies"] == policy
    assert declared["Instance worker-0"]["schedulerHints"] == [{"group": "id-worker-spread"}]
    assert declare("{lease: none, nodes: {antiAffinity: none}}").names("ServerGroup") == set()


def test_more_nodes_change_nothing_of_those_that_are_there() -> None:
    """What Nova cannot change in place would replace the nodes of a growing group."""
    few, many = declare("{lease: none}"), declare("{lease: none, nodes: {groups: {worker: {count: 5}}}}")
    for node in ("control-0", "worker-0", "worker-1"):
        assert few[f"Instance {node}"] == many[f"Instance {node}"]
        assert few[f"Port {node}-port"] == many[f"Port {node}-port"]


def test_boot_from_volume() -> None:
    server = declare("nodes: {groups: {worker: {bootVolumeGb: 30, bootVolumeType: ceph-ssd}}}")["Instance worker-0"]
    (device,) = server["blockDevices"]
    assert "imageName" not in server
    assert (device["uuid"], device["volumeSize"], device["volumeType"]) == ("id-debian-12", 30, "ceph-ssd")
    assert device["deleteOnTermination"] is True


def test_key_pair_of_a_given_key(tmp_path: Path) -> None:
    key = tmp_path / "id.pub"
    key.write_text(PUBLIC_KEY + "\n")
    assert declare(f"access: {{publicKeyFile: {key}}}")["Keypair key"]["publicKey"] == PUBLIC_KEY
    assert "publicKey" not in declare()["Keypair key"]


def test_volumes_are_attached_where_asked() -> None:
    declared = declare("storage: {volumes: {data: {type: ceph-ssd}, loose: {sizeGb: 1}}}")
    assert declared.names("Volume") == {"data", "loose"}
    assert declared["Volume data"]["volumeType"] == "ceph-ssd"
    assert declared.names("VolumeAttach") == {"data-on-worker-0"}
    assert declared["VolumeAttach data-on-worker-0"]["instanceId"] == "id-worker-0"


def test_user_data_is_the_same_each_time() -> None:
    assert user_data("lab-control-0") == user_data("lab-control-0")
    assert user_data("lab-control-0").startswith("#cloud-config\n")
    assert '"hostname": "lab-control-0"' in user_data("lab-control-0")


def test_the_cluster_is_of_all_nodes_and_its_inventory_is_one_to_write_by_hand() -> None:
    cluster = declare("cluster: {kubernetesVersion: v1.36.3, variables: {cluster_metrics: false}}")
    props = cluster["KubernetesCluster kubernetes"]
    found = inventory(props, [{**one, **props["servers"][one["host"]]} for one in props["machines"]])["all"]
    assert found["vars"]["cluster_kubernetes_version"] == "v1.36.3"
    assert found["vars"]["cluster_metrics"] is False
    assert found["vars"]["cluster_api_names"] == ["172.24.4.100"]
    control, workers = (found["children"][group]["hosts"] for group in ("control_plane", "workers"))
    assert control["lab-control-0"].items() >= {"ansible_host": "172.24.4.100", "node_address": "10.42.0.9"}.items()
    reached = workers["lab-worker-0"]["ansible_ssh_common_args"]
    assert "HostKeyAlias=id-worker-0" in reached
    assert "HostKeyAlias=id-control-0" in reached.split("ProxyCommand=")[1]
    assert "@172.24.4.100" in reached


def test_without_a_cluster_the_nodes_are_bare() -> None:
    assert declare("cluster: none").names("KubernetesCluster") == set()
