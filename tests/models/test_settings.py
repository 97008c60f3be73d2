"""A model's settings, and what k8s/models has of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from cli import own_models, scaffold
from cli.model_code import pack, settings_of
from services.promotion.gates import Gate
from services.training.errors import TrainingError
from services.training.settings import LONGEST_NAME, name_errors, read
from tests.cli.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["wines", "delivery-times", "m2", "a" * LONGEST_NAME])
def test_names_that_a_model_can_have(name: str) -> None:
    assert name_errors(name) == []


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("Wines", ["lower case"]),
        ("2wines", ["lower case"]),
        ("wines-", ["lower case"]),
        ("", ["lower case"]),
        ("../wines", ["lower case"]),
        ("wines\n", ["lower case"]),
        ("tracking", ["reserved by the platform"]),
        ("promotion", ["reserved by the platform"]),
        ("json", ["a Python module or keyword"]),
        ("lambda", ["a Python module or keyword"]),
        ("wines-staging", ["ends in -staging"]),
        ("W" * 50 + "-canary", ["lower case", "57 characters", "ends in -canary"]),
    ],
)
def test_names_that_it_cannot_have_with_all_reasons(name: str, faults: list[str]) -> None:
    told = name_errors(name)
    assert len(told) == len(faults)
    assert all(part in text for part, text in zip(faults, told, strict=True))


def test_every_host_of_the_platform_is_reserved() -> None:
    """A model of that name would take the address from it."""
    hosts = {
        host.split(".")[0]
        for path in (ROOT / "k8s").rglob("*.yaml")
        if "components/model" not in str(path)
        for document in yaml.safe_load_all(path.read_text())
        if isinstance(document, dict) and document.get("kind") == "HTTPRoute"
        for host in document["spec"].get("hostnames", ())
    } - {"lab"}
    assert {"tracking", "artifacts", "promotion"} <= hosts
    assert not {host for host in hosts if not name_errors(host)}


def test_all_faults_of_the_settings_are_told_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "wines"
    folder.mkdir()
    (folder / "model.yaml").write_text(
        "name: wines\ndata: {test: 2}\ngate: {}\ntraining: {memory: lots}\nserving: {memory: 128Mi}\n"
        "servng: {}\nvariants: {T: {workers: 0}}\n"
    )
    with pytest.raises(TrainingError) as refused:
        read(folder)
    for fault in ("data.label: ", "data.test: ", "training.memory: ", "128Mi is less", "servng: ", "variants.T"):
        assert fault in str(refused.value)


def test_the_name_is_the_folders(tmp_path: Path) -> None:
    (tmp_path / "wines").mkdir()
    (tmp_path / "wines/model.yaml").write_text(scaffold.new_model("other")["model.yaml"])
    with pytest.raises(TrainingError, match="name: the folder is wines, not other"):
        read(tmp_path / "wines")


def test_what_kubernetes_has_of_every_model_is_what_its_settings_say() -> None:
    assert scaffold.stale(ROOT / "k8s" / "models", own_models.written()) == [], "run `lab model sync`"
    listed = yaml.safe_load((ROOT / "k8s/models/kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == own_models.names()


@pytest.mark.parametrize("name", own_models.names())
def test_every_model_of_the_repository_can_be_sent(name: str) -> None:
    model = settings_of(ROOT / "models" / name)
    assert Gate.model_validate(model.gate).production
    assert "model.yaml" in pack(ROOT / "models" / name).files
