"""What a second place of the backups takes on the cluster, for the settings of a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import kubeyaml
from infra import second_place
from infra.manifests import TREE
from infra.settings import Settings, load_settings
from tests.infra.wrong import NOW, configuration
from tests.infra.wrong import second_place as changes

if TYPE_CHECKING:
    from infra.manifests import Manifest

SECRET = {"ml-cluster:backupSecretKey": "hunter2"}


def settings(change: str, **given: str) -> Settings:
    return load_settings({**configuration(change), **given}, now=NOW, stack="lab", secret_keys=list(given))


def adapted(wanted: Settings) -> list[Manifest]:
    """The objects for a stack `lab`."""
    folder = second_place.folder(wanted)
    assert folder
    files = sorted(path for path in (TREE / folder).glob("*.yaml") if path.name != "kustomization.yaml")
    objects = [one for path in files for one in kubeyaml.read_documents(path.read_text()) if one]
    return second_place.adapted(objects, wanted, "lab")


def only(objects: list[Manifest], kind: str) -> Any:
    (found,) = (one for one in objects if one["kind"] == kind)
    return found["spec"]


def test_without_a_second_place_there_is_nothing() -> None:
    assert second_place.folder(settings("{}")) is None
    assert second_place.secrets(settings("{}"), "lab", None) == {}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("https://s3.example.org", 443),
        ("https://s3.example.org:8443/", 8443),
        ("http://10.0.0.9", 80),
        ("http://10.0.0.9:8333", 8333),
    ],
)
def test_the_backup_may_reach_the_port_of_its_bucket_alone(endpoint: str, port: int) -> None:
    place = f"{{s3: {{endpoint: '{endpoint}', bucket: lab-backups, accessKey: lab}}}}"
    network = only(adapted(settings(changes(place), **SECRET)), "NetworkPolicy")
    assert network["podSelector"]["matchLabels"] == {"app": "backup"}
    assert network["egress"] == [{"ports": [{"port": port, "protocol": "TCP"}]}]


def test_whoever_is_on_the_way_is_warned_of() -> None:
    for scheme, warned in (("http", True), ("https", False)):
        place = f"{{s3: {{endpoint: '{scheme}://s3.example.org', bucket: lab-backups, accessKey: lab}}}}"
        warnings = settings(changes(place), **SECRET).warnings(NOW)
        assert any("not encrypted in transit" in warning for warning in warnings) is warned


def test_a_volume_is_on_its_node_with_its_size_and_keeps_what_is_on_it() -> None:
    volumes = "data: {holds: backups, attachTo: worker-1, sizeGb: 20}"
    objects = adapted(settings(changes("{volume: data}", volumes)))
    volume = only(objects, "PersistentVolume")
    assert volume["capacity"] == {"storage": "20Gi"}
    assert volume["persistentVolumeReclaimPolicy"] == "Retain"
    (term,) = volume["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["lab-worker-1"]}]
    paths = kubeyaml.read_documents((TREE.parent / "ansible/roles/volumes/vars/main.yml").read_text())
    assert volume["local"] == {"path": paths[0]["volumes_paths"]["backups"]}
