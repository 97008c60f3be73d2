"""What monitoring of the cloud itself takes on the cluster, for the settings of a stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

import kubeyaml
from devcloud.layout import EXPORTER_PORT, Layout
from devcloud.layout import Settings as CloudSettings
from infra import cloud_monitoring
from infra.manifests import ROOT, TREE
from infra.settings import Settings, load_settings
from tests.infra.wrong import NOW, configuration
from tests.infra.wrong.base import PLATFORM

if TYPE_CHECKING:
    from pathlib import Path

    from infra.manifests import Manifest

FOLDER = TREE / cloud_monitoring.FOLDER


def settings(profile: str, cloud: str = "172.25.7.2:9181") -> Settings:
    change = f"{{{PLATFORM}: {{profile: {profile}}}, monitoring: {{cloud: '{cloud}'}}}}"
    return load_settings(configuration(change), now=NOW, stack="lab")


def adapted(wanted: Settings) -> dict[str, Manifest]:
    """The objects, by kind and name."""
    files = [path for path in sorted(FOLDER.glob("*.yaml")) if path.name != "kustomization.yaml"]
    objects = [one for path in files for one in kubeyaml.read_documents(path.read_text()) if one]
    data = {"targets.json": (FOLDER / "targets.json").read_text()}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cloud"}, "data": data})
    made = cloud_monitoring.adapted(objects, wanted)
    return {f"{one['kind']} {one['metadata']['name']}": one for one in made}


@pytest.mark.parametrize("profile", ["lab", "production"])
def test_monitoring_asks_the_address_of_the_settings_and_no_other(profile: str) -> None:
    wanted = settings(profile)
    assert cloud_monitoring.wanted(wanted)
    found = adapted(wanted)
    assert "192.0.2.1" not in json.dumps(found)
    assert json.loads(found["ConfigMap cloud"]["data"]["targets.json"]) == [{"targets": ["172.25.7.2:9181"]}]
    (container,) = found["Deployment cloud-lines"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "CLOUD", "value": "http://172.25.7.2:9181"} in container["env"]
    outside = [
        (name, rule["ports"], peer["ipBlock"])
        for name, one in found.items()
        if one["kind"] == "NetworkPolicy"
        for rule in one["spec"].get("egress", ())
        for peer in rule["to"]
        if "ipBlock" in peer
    ]
    port = [{"port": 9181, "protocol": "TCP"}]
    assert outside == [
        (name, port, {"cidr": "172.25.7.2/32"})
        for name in ("NetworkPolicy metrics-of-cloud", "NetworkPolicy cloud-lines")
    ]


def test_without_monitoring_or_an_address_there_is_nothing() -> None:
    assert not cloud_monitoring.wanted(settings("ci"))
    assert not cloud_monitoring.wanted(load_settings(configuration("{}"), now=NOW, stack="lab"))


def test_without_logging_only_metrics_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_monitoring, "capabilities", lambda _profile: {"monitoring"})
    assert adapted(settings("lab")).keys() == {"ConfigMap cloud", "NetworkPolicy metrics-of-cloud"}


def test_stack_dev_names_the_address_at_which_devcloud_tells(tmp_path: Path) -> None:
    given = YAML(typ="safe").load(ROOT / "Pulumi.dev.yaml")["config"]["ml-cluster:monitoring"]["cloud"]
    assert given == f"{Layout(tmp_path, CloudSettings()).api_address}:{EXPORTER_PORT}"
