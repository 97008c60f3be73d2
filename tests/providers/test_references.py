"""What inputs refer to by a name or an id is looked up by the preview, before anything is deleted for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from providers.values import UNKNOWN, Secret
from tests.providers.plugin import CallError, Plugin, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from providers.values import Properties
    from tests.providers.recorder import Recorder

INSTANCE = "openstack:compute/instance:Instance"
VOLUME = "openstack:blockstorage/volume:Volume"
FLOATING_IP = "openstack:networking/floatingIp:FloatingIp"
NETWORK = "openstack:networking/network:Network"
ROUTER = "openstack:networking/router:Router"
IMAGE = "openstack:images/image:Image"
KEYPAIR = "openstack:compute/keypair:Keypair"
GROUP = "5d40e0b7-3d1b-4b5a-9a55-37a5e2a1d6b0"


def _image(id_: str, name: str, **more: object) -> dict[str, Any]:
    return {"id": id_, "name": name, "status": "active", "min_ram": 0, "min_disk": 0, "size": 2**30, **more}


def _flavor(id_: str, name: str, ram: int = 2048, disk: int = 10) -> dict[str, Any]:
    return {"id": id_, "name": name, "ram": ram, "disk": disk}


IMAGES = [
    _image("i1", "ubuntu"),
    _image("i2", "twice"),
    _image("i3", "twice"),
    _image("i4", "large", min_ram=4096, min_disk=40),
    _image("i5", "heavy", size=11 * 2**30),
]
FLAVORS = [_flavor("f1", "small"), _flavor("f2", "big", 8192, 80), _flavor("f3", "diskless", 2048, 0)]
NETWORKS: list[dict[str, Any]] = [
    {"id": id_, "name": name} for id_, name in (("n1", "inside"), ("n2", "double"), ("n3", "double"))
]
GROUPS: list[dict[str, Any]] = [
    {"id": id_, "name": name} for id_, name in ((GROUP, "web"), ("g2", "pair"), ("g3", "pair"))
]
TYPES: list[dict[str, Any]] = [{"id": "t1", "name": "ssd"}, {"id": "t2", "name": "hdd"}]
ZONES = {
    "availabilityZoneInfo": [
        {"zoneName": "nova", "zoneState": {"available": True}},
        {"zoneName": "down", "zoneState": {"available": False}},
    ]
}


@pytest.fixture
def cloud(recorder: Recorder) -> Iterator[Recorder]:
    """A cloud with a few things, which answers by their names and ids."""

    def look_up(path: str) -> object | None:
        url = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        collections: dict[str, tuple[str, list[dict[str, Any]]]] = {
            "/image/v2/images": ("images", IMAGES),
            "/compute/v2.1/flavors/detail": ("flavors", FLAVORS),
            "/network/v2.0/networks": ("networks", NETWORKS),
            "/network/v2.0/security-groups": ("security_groups", GROUPS),
            "/block-storage/v3/p/types": ("volume_types", TYPES),
        }
        if url.path in collections:
            key, items = collections[url.path]
            wanted = {name: query[name] for name in ("name", "id") if name in query}
            return {key: [item for item in items if wanted.items() <= item.items()]}
        if match := re.fullmatch(r"/image/v2/images/(\w+)", url.path):
            return next((item for item in IMAGES if item["id"] == match[1]), None)
        if match := re.fullmatch(r"/compute/v2.1/flavors/(\w+)", url.path):
            return next(({"flavor": item} for item in FLAVORS if item["id"] == match[1]), None)
        return {
            "/compute/v2.1/os-availability-zone": ZONES,
            "/block-storage/v3/p/os-availability-zone": ZONES,
            "/compute/v2.1/os-keypairs": {"keypairs": [{"keypair": {"name": "mine"}}]},
            "/compute/v2.1/os-keypairs/mine": {"keypair": {"name": "mine"}},
            "/compute/v2.1/os-server-groups/s1": {"server_group": {"id": "s1"}},
            "/network/v2.0/networks/n1": {"network": NETWORKS[0]},
            "/network/v2.0/availability_zones": {
                "availability_zones": [{"name": "nova", "resource": "network"}, {"name": "edge", "resource": "router"}]
            },
            "/block-storage/v3/p/volumes/v1": {"volume": {"id": "v1"}},
            "/block-storage/v3/p/snapshots/s1": {"snapshot": {"id": "s1"}},
        }.get(url.path)

    recorder.look_up = look_up
    yield recorder
    recorder.look_up = None


NEEDED: dict[str, Properties] = {
    INSTANCE: {"name": "n", "imageName": "ubuntu", "flavorName": "small"},
    VOLUME: {"name": "n", "size": 1},
}
SERVER: Properties = {
    "name": "node",
    "imageName": "ubuntu",
    "flavorName": "small",
    "keyPair": "mine",
    "networks": [{"name": "inside"}, {"uuid": "n1"}, {"port": "p1"}],
    "securityGroups": ["web", GROUP, "default"],
    "availabilityZone": "nova:host-1",
    "schedulerHints": [{"group": "s1"}],
    "blockDevices": [
        {"sourceType": "image", "uuid": "i1", "destinationType": "local", "bootIndex": 0},
        {"sourceType": "volume", "uuid": "v1", "destinationType": "volume"},
        {"sourceType": "snapshot", "uuid": "s1", "destinationType": "volume"},
        {"sourceType": "blank", "destinationType": "volume", "volumeSize": 1, "volumeType": "ssd"},
    ],
}


@pytest.mark.parametrize(
    ("token", "inputs"),
    [
        (INSTANCE, SERVER),
        (INSTANCE, {"name": "n", "imageId": "i1", "flavorId": "f1"}),
        (VOLUME, {"name": "n", "size": 1, "imageId": "i1", "volumeType": "t2", "availabilityZone": "nova"}),
        (VOLUME, {"name": "n", "size": 1, "snapshotId": "s1"}),
        (FLOATING_IP, {"pool": "inside"}),
        (FLOATING_IP, {"pool": "n1"}),
        (NETWORK, {"name": "n", "availabilityZoneHints": ["nova"]}),
        (ROUTER, {"name": "n", "availabilityZoneHints": ["edge"]}),
    ],
)
def test_what_is_there(cloud: Recorder, recorded: Plugin, token: str, inputs: Properties) -> None:
    recorded.check(token, inputs)
    assert not cloud.sent("POST", "PUT", "PATCH", "DELETE")


@pytest.mark.parametrize(
    ("token", "inputs", "path", "reason"),
    [
        (INSTANCE, {"imageName": "ubunut"}, "imageName", "no image of this cloud has the name 'ubunut'; did you mean"),
        (INSTANCE, {"imageName": "twice"}, "imageName", "2 images of this cloud are named 'twice' (i2, i3); an id is"),
        (INSTANCE, {"imageName": None, "imageId": "i9"}, "imageId", "no image of this cloud has the id 'i9'"),
        (INSTANCE, {"flavorName": "smal"}, "flavorName", "no flavor of this cloud has the name 'smal'; did you mean"),
        (INSTANCE, {"flavorName": None, "flavorId": "f9"}, "flavorId", "no flavor of this cloud has the id 'f9'"),
        (INSTANCE, {"keyPair": "yours"}, "keyPair", "has the name 'yours'; there are mine"),
        (INSTANCE, {"networks": [{"name": "insid"}]}, "networks[0].name", "no network of this cloud"),
        (INSTANCE, {"networks": [{"name": "double"}]}, "networks[0].name", "2 networks of this cloud are named"),
        (INSTANCE, {"networks": [{"port": "p"}, {"uuid": "n9"}]}, "networks[1].uuid", "no network of this cloud"),
        (INSTANCE, {"securityGroups": ["web", "wbe"]}, "securityGroups[1]", "no security group of this cloud"),
        (INSTANCE, {"securityGroups": ["pair"]}, "securityGroups[0]", "2 security groups of this cloud are named"),
        (INSTANCE, {"availabilityZone": "down"}, "availabilityZone", "no availability zone of servers"),
        (INSTANCE, {"schedulerHints": [{"group": "s9"}]}, "schedulerHints[0].group", "no server group of this cloud"),
        (INSTANCE, {"imageName": "large"}, "flavorName", "image 'large' needs 4096 MiB and 40 GiB"),
        (INSTANCE, {"imageName": "heavy"}, "flavorName", "image 'heavy' needs 0 MiB and 11 GiB"),
        (VOLUME, {"volumeType": "sdd"}, "volumeType", "has the name or id 'sdd'; did you mean 'ssd'?"),
        (VOLUME, {"availabilityZone": "mars"}, "availabilityZone", "has the name 'mars'; there are nova"),
        (VOLUME, {"imageId": "i9"}, "imageId", "no image of this cloud has the id 'i9'"),
        (VOLUME, {"snapshotId": "s9"}, "snapshotId", "no volume snapshot of this cloud has the id 's9'"),
        (VOLUME, {"sourceVolId": "v9"}, "sourceVolId", "no volume of this cloud has the id 'v9'"),
        (VOLUME, {"backupId": "b9"}, "backupId", "no backup of this cloud has the id 'b9'"),
        (FLOATING_IP, {"pool": "insidee"}, "pool", "no external network of this cloud has the name or id 'insidee'"),
        (FLOATING_IP, {"pool": "double"}, "pool", "2 external networks of this cloud are named 'double' (n2, n3)"),
        (NETWORK, {"availabilityZoneHints": ["edge"]}, "availabilityZoneHints[0]", "of networks of this cloud has"),
        (ROUTER, {"availabilityZoneHints": ["nova"]}, "availabilityZoneHints[0]", "of routers of this cloud has"),
    ],
)
@pytest.mark.usefixtures("cloud")
def test_what_is_not_there_or_not_unique(
    recorded: Plugin, token: str, inputs: Properties, path: str, reason: str
) -> None:
    wanted = {key: value for key, value in {**NEEDED.get(token, {}), **inputs}.items() if value is not None}
    _, failures = recorded.check_failures(token, wanted)
    assert set(failures) == {path}
    assert reason in failures[path]


@pytest.mark.usefixtures("cloud")
def test_all_faults_of_a_resource_at_once(recorded: Plugin) -> None:
    wanted = {"imageName": "ubunut", "flavorName": "smal", "keyPair": "yours", "networks": [{"name": "insid"}]}
    _, failures = recorded.check_failures(INSTANCE, {"name": "n", **wanted})
    assert set(failures) == {"imageName", "flavorName", "keyPair", "networks[0].name"}


@pytest.mark.usefixtures("cloud")
def test_an_existing_server_outlives_its_image(recorded: Plugin) -> None:
    """Names are asked for where they are new; a replacement, which is checked as a create, asks for all."""
    inputs = {"name": "n", "imageName": "gone", "flavorName": "small"}
    recorded.check(INSTANCE, {**inputs, "flavorName": "big"}, olds=inputs)
    recorded.check(INSTANCE, {**inputs, "metadata": {"a": "b"}}, olds=inputs)
    _, failures = recorded.check_failures(INSTANCE, {**inputs, "imageName": "ubunut"}, olds=inputs)
    assert set(failures) == {"imageName"}
    _, failures = recorded.check_failures(INSTANCE, inputs)
    assert set(failures) == {"imageName"}


@pytest.mark.usefixtures("cloud")
def test_what_is_not_known_yet_or_decided_elsewhere(recorded: Plugin) -> None:
    known = {"name": "n", "imageName": "ubuntu", "flavorName": "small"}
    recorded.check(INSTANCE, {**known, "imageName": UNKNOWN, "keyPair": UNKNOWN, "networks": [{"uuid": UNKNOWN}]})
    recorded.check(INSTANCE, {**known, "imageName": Secret("ubuntu"), "securityGroups": UNKNOWN})
    recorded.check(INSTANCE, {**known, "imageId": "i1", "imageName": "whatever"})
    recorded.check(INSTANCE, {**known, "imageName": "heavy", "flavorName": "diskless"})
    on_volume = {"sourceType": "image", "uuid": "i1", "destinationType": "volume", "volumeSize": 9}
    recorded.check(INSTANCE, {**known, "imageName": "no matter", "blockDevices": [on_volume]})
    assert recorded.check(INSTANCE, {**known, "region": UNKNOWN, "imageName": "no matter"})


@pytest.mark.parametrize(
    ("made", "named", "inputs"),
    [
        (IMAGE, "baked", {"imageName": "baked"}),
        (KEYPAIR, "fresh", {"keyPair": "fresh"}),
        (NETWORK, "lan", {"networks": [{"name": "lan"}]}),
        ("openstack:networking/secGroup:SecGroup", "nodes", {"securityGroups": ["nodes"]}),
    ],
)
@pytest.mark.usefixtures("cloud")
def test_what_the_program_itself_makes(recorded: Plugin, made: str, named: str, inputs: Properties) -> None:
    wanted = {"name": "n", "imageName": "ubuntu", "flavorName": "small", **inputs}
    _, failures = recorded.check_failures(INSTANCE, wanted)
    assert failures, "nothing of this name is there yet"
    image = {"containerFormat": "bare", "diskFormat": "raw", "localFilePath": "/nowhere"} if made == IMAGE else {}
    recorded.preview(made, {"name": named, **image})
    recorded.check(INSTANCE, wanted)


def test_a_cloud_that_does_not_show_it(cloud: Recorder, recorded: Plugin) -> None:
    """What the credential may not list is left to the create."""
    cloud.answer("GET", "/os-server-groups/s7", 403, {"forbidden": {"message": "no"}})
    recorded.check(INSTANCE, {"imageId": "i1", "flavorId": "f1", "schedulerHints": [{"group": "s7"}]})


def test_a_cloud_that_fails(cloud: Recorder, recorded: Plugin) -> None:
    """A replacement does not begin where the cloud cannot say whether it will succeed."""
    cloud.answer("GET", "/images?name=whatever", 400, {"message": "broken"})
    with pytest.raises(CallError, match="GET image/images answered 400: broken"):
        recorded.check(INSTANCE, {"imageName": "whatever", "flavorId": "f1"})


def test_each_name_is_asked_for_once(cloud: Recorder, recorded: Plugin) -> None:
    recorded.check(INSTANCE, SERVER)
    asked = len(cloud.sent("GET"))
    for name in ("a", "b", "c"):
        recorded.check(INSTANCE, {**SERVER, "name": name})
    assert len(cloud.sent("GET")) == asked


@pytest.mark.usefixtures("cloud")
def test_a_replacement_is_planned_with_what_is_there(recorded: Plugin) -> None:
    inputs = {"name": "n", "imageName": "ubuntu", "flavorName": "small", "__defaults": []}
    server = Resource(INSTANCE, "n", "id", inputs, {**inputs, "imageId": "i1", "flavorId": "f1"})
    assert list(recorded.diff(server, {**inputs, "userData": "x"}).replaces) == ["userData"]
