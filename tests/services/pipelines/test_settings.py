"""What can stand in a model's pipeline.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli import own_models
from cli.errors import LabError
from cli.model_code import pipeline_of
from services.pipelines.jobs import Asked, Code, _shown
from services.pipelines.settings import FILE, Pipeline, Takes, known, read
from tests.cli.harness import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MODEL = (
    "name: wines\ndata: {label: grower}\ngate: {score: {minimum: 0.9}}\nvariants: {deep: {workers: 2, memory: 2Gi}}\n"
)


@pytest.fixture
def wines(tmp_path: Path) -> Path:
    folder = tmp_path / "wines"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL)
    (folder / "wines.py").write_text("def train(features, labels, seed): ...\n")
    return folder


def test_a_model_that_says_nothing_has_the_usual_pipeline(wines: Path) -> None:
    found = pipeline_of(wines)
    assert found.pipeline == Pipeline() == read(wines)
    assert found.takes == {
        "default": Takes(cpu="250m", memory="1Gi"),
        "deep": Takes(cpu="250m", memory="2Gi", workers=2),
    }
    assert not found.ingests, "its module has no function `data`"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("variants: [shallow]", "there is no shallow; there are: default, deep"),
        ("variants: []", "variants: List should have at least 1 item"),
        ("to: moon", "to: Input should be 'gate', 'registry', 'staging' or 'production'"),
        ("schedule: hourly", "schedule: String should match pattern"),
        ("canary: {minutes: 90}", "patience: 60 minutes are less than the 90 that it takes"),
        ("canary: {slow_ms: 300}", "canary.slow_ms: Input should be 10, 25, 50, 100, 250, 500"),
        ("on: [data]", "Keys should be strings"),
        ("triggers: [moon]", "triggers.0: Input should be 'data' or 'drift'"),
        ("variants: [", "is not YAML"),
    ],
)
def test_faults_are_told_with_their_place(wines: Path, text: str, fault: str) -> None:
    (wines / FILE).write_text(text)
    with pytest.raises(LabError) as error:
        pipeline_of(wines)
    assert f"wines/{FILE}" in str(error.value)
    assert fault in str(error.value)


def test_the_tree_has_what_the_models_say() -> None:
    text = (ROOT / "k8s/models/pipelines.json").read_text()
    assert [one.name for one in known(text)] == own_models.names()
    assert known(text) == [pipeline_of(ROOT / "models" / name) for name in own_models.names()]


def test_what_a_job_prints_is_shown_as_a_terminal_shows_it() -> None:
    assert _shown("one\r\ntwo\rthree\n\n 14%|#4     | 1/7 [00:00<00:00]\r100%|##| 7/7\nfour") == "one\nthree\nfour"


def test_a_jobs_name_is_the_same_for_whoever_asks_and_fits_a_pods() -> None:
    def asked(model: str, step: str, *arguments: str) -> Asked:
        return Asked(model, Code("0" * 64), Takes(cpu="1", memory="1Gi"), arguments, "a-run", step)

    one = asked("a-model-with-a-name-of-forty-characters-x", "train_a-variant-of-22-char", "train", "--seed=0")
    assert one.name(0) == asked(one.model, one.step, *one.arguments).name(0)
    assert len({one.name(0), one.name(1), asked(one.model, one.step, "train", "--seed=1").name(0)}) == 3
    assert len(one.name(0)) <= 52
