"""The generic model of k8s/components/model: another model stands beside those there are, and nothing stands twice."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import kubeyaml
from cli import scaffold
from cli.model_code import pipeline_of, settings_of
from infra.manifests import DOMAIN, TREE, Manifest, models, qualified_name, write_tree
from tests.cli.harness import ROOT
from tests.k8s.conftest import of_others, rendered
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow_cluster
OTHER = "parcel-times"
MODELS = models()
STAGES = ("staging", "canary", "production")


def key(one: Manifest) -> str:
    return f"{one['kind']} {qualified_name(one)}"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """The profile `lab` with another model, by kind and name."""
    folder = tmp_path_factory.mktemp("both")
    write_tree(folder / "k8s", of_others())
    (folder / OTHER).mkdir()
    scaffold.write(folder / OTHER, scaffold.new_model(OTHER))
    settings = folder / OTHER / "model.yaml"
    settings.write_text(settings.read_text().replace("cpu: 100m, memory: 512Mi", "cpu: 150m, memory: 768Mi"))
    folders = [*(ROOT / "models" / name for name in MODELS), folder / OTHER]
    made = scaffold.manifests([settings_of(one) for one in folders], [pipeline_of(one) for one in folders])
    scaffold.write(folder / "k8s/models", made)
    return {key(one): one for one in built(folder / "k8s/clusters/lab")}


def built(folder: Path) -> list[Manifest]:
    command = [str(program("kubernetes", "kubectl")), "kustomize", str(folder)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [one for one in kubeyaml.read_documents(text) if one]


def test_another_model_changes_nothing_of_what_was_there_but_the_list_of_models(both: dict[str, Manifest]) -> None:
    before = {key(one): one for one in rendered("clusters/lab")}
    lists = {f"ConfigMap platform/{name}-models" for name in ("landing", "pipelines")}
    assert {name for name in before if before[name] != both.get(name)} == lists
    new = both.keys() - before.keys()
    assert len(new) == 14
    assert all(OTHER in name for name in new)


def test_every_model_has_the_same_objects_but_for_its_name_and_its_settings(both: dict[str, Manifest]) -> None:
    def of(model: str) -> dict[str, str]:
        return {name: json.dumps(one) for name, one in both.items() if re.search(rf"\b{model}\b", name)}

    gate = "ConfigMap platform/gate-"
    mine, theirs = of("digits"), of(OTHER)
    assert {name.replace("digits", OTHER) for name in mine} == theirs.keys()
    for name, one in mine.items():
        renamed = one.replace("digits", OTHER)
        if name.startswith("Deployment "):
            renamed = renamed.replace('"512Mi"}, "requests"', '"768Mi"}, "requests"').replace('"100m"', '"150m"')
        if not name.startswith(gate):
            assert renamed == theirs[name.replace("digits", OTHER)]
    assert both[f"{gate}{OTHER}"]["metadata"]["labels"] == {"ml-cluster.dev/gate": OTHER}
    assert "minimum: 0.9" in both[f"{gate}{OTHER}"]["data"]["gate.yaml"]


@pytest.mark.parametrize("model", ["digits", OTHER])
def test_the_servers_of_a_model_are_found_by_all_who_look_for_them(both: dict[str, Manifest], model: str) -> None:
    """The rollout controller, the gateway, the autoscaler, the overview."""
    for stage in STAGES:
        server = both[f"Deployment serving/{model}-{stage}"]
        labels, selector = server["metadata"]["labels"], server["spec"]["selector"]["matchLabels"]
        assert (labels["ml-cluster.dev/model"], labels["ml-cluster.dev/alias"]) == (model, stage)
        assert labels["app.kubernetes.io/name"] == model
        assert selector.items() <= server["spec"]["template"]["metadata"]["labels"].items()
        assert selector == {"app": model, "ml-cluster.dev/stage": stage}
        answers = {"app": model, "ml-cluster.dev/answers": "production"} if stage == "production" else selector
        assert both[f"Service serving/{model}-{stage}"]["spec"]["selector"] == answers
        assert answers.items() <= server["spec"]["template"]["metadata"]["labels"].items()
        assert both[f"PodDisruptionBudget serving/{model}-{stage}"]["spec"]["selector"]["matchLabels"] == selector
        (container,) = server["spec"]["template"]["spec"]["containers"]
        assert {"name": "MODEL_NAME", "value": model} in container["env"]
        (spread,) = server["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == selector
    warm = both[f"Deployment serving/{model}-warm"]
    assert warm["metadata"]["labels"]["ml-cluster.dev/warm"] == "production"
    assert warm["metadata"]["labels"]["ml-cluster.dev/model"] == model
    assert warm["spec"]["selector"]["matchLabels"] == {"app": model, "ml-cluster.dev/stage": "warm"}
    scaled = both[f"HorizontalPodAutoscaler serving/{model}-production"]["spec"]["scaleTargetRef"]["name"]
    assert scaled == f"{model}-production"
    for route, stage in ((model, "production"), (f"{model}-staging", "staging")):
        spec = both[f"HTTPRoute serving/{route}"]["spec"]
        assert spec["hostnames"] == [f"{route}.{DOMAIN}"]
        assert spec["rules"][0]["backendRefs"] == [{"name": f"{model}-{stage}", "port": 80}]
    shown = json.loads(both["ConfigMap platform/landing-models"]["data"]["models.json"])
    hosts = {one["host"]: one["health"] for one in shown}
    assert hosts[model] == f"http://{model}-production.serving/v2/health/ready"
    assert hosts[f"{model}-staging"] == f"http://{model}-staging.serving/v2/health/ready"
    assert {one["host"] for one in shown} == {
        f"{name}{ending}" for name in (*MODELS, OTHER) for ending in ("", "-staging")
    }


def test_what_models_are_made_of_does_not_reach_the_cluster(both: dict[str, Manifest]) -> None:
    assert not [name for name in both if name.startswith("Model ")]
    texts = json.dumps([one for name, one in both.items() if "serving/" in name])
    assert "model-production" not in texts
    assert f"model.{DOMAIN}" not in texts


def test_no_other_folder_knows_a_models_name() -> None:
    for folder in ("clusters", "components", "infrastructure"):
        for path in (TREE / folder).rglob("*.yaml"):
            assert "digits" not in path.read_text(), path
