"""A model's way on a real cluster: trained, judged, registered, promoted, served, rolled back.

Costs about 10 minutes on idle cores beside the platform itself (conftest.py), most of it Jobs that train.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cli.model_code import pack
from cli.services import SAMPLE
from infra.bundle import image_digests
from infra.manifests import kubectl, render
from tests.cli.harness import ROOT
from tests.e2e.harness import BUNDLE, wait
from tests.e2e.load import MODEL, Load, ask_often
from tests.e2e.platform_stack import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.platform_stack import PlatformStack, Tracking

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
ACCURACY = 0.95
LOAD_SECONDS = 60
ROLLBACK_SECONDS = 10
"""From the start of `lab rollback` to the old version's first answer: five, and those of the command before it asks."""
SHARE_REQUESTS = 2000
SEED = 7
ANSWER = "answer: "
# What the registered model itself says of the images that no training saw; asked beside it, without any server.
TEST_SET = """
import json, sys
import mlflow
from services.training import datasets, flavors, module
from services.training.settings import JobSettings
version, data_version = sys.argv[1:]
code = module.fetch(JobSettings())
data = code.settings.data
part = datasets.fetch(code, JobSettings().data_url, data_version).split(data.test, stratify=data.stratify)[1]
uri = f"models:/digits/{version}"
answer = {
    "rows": part.features.tolist(), "truth": part.labels.tolist(),
    "labels": flavors.load_predictor(mlflow.artifacts.download_artifacts(uri))(part.features)["label"].tolist(),
    "probabilities": mlflow.sklearn.load_model(uri).predict_proba(part.features).ravel().tolist(),
}
print("\\nanswer: " + json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def tracking(platform: PlatformStack) -> Tracking:
    return platform.tracking()


@pytest.fixture(scope="module")
def served(tracking: Tracking) -> str:
    """The version that production serves as the tests begin."""
    return tracking.aliases(MODEL)["production"]


def train(platform: PlatformStack, *options: str) -> dict[str, Any]:
    """The result of `lab train digits`."""
    result: dict[str, Any] = platform.lab.run("train", MODEL, "--json", *options).json
    return result


@pytest.fixture(scope="module")
def twins(platform: PlatformStack, tracking: Tracking, served: str) -> list[dict[str, Any]]:
    """Two runs on the data of what is served, of one seed."""
    data = tracking.versions(MODEL)[served]["tags"]["data_version"]
    return [train(platform, "--seed", str(SEED), "--data-version", data) for _ in range(2)]


def deployed(platform: PlatformStack) -> dict[str, Any]:
    """What the pods of each stage are made of."""
    return {stage: one["spec"]["template"] for stage, one in platform.platform.deployments(MODEL).items()}


def test_the_registry_says_how_good_the_served_model_is(
    tracking: Tracking, served: str, record_property: Callable[[str, object], None]
) -> None:
    entry = tracking.versions(MODEL)[served]
    accuracy = float(entry["tags"]["test_accuracy"])
    assert accuracy >= ACCURACY
    measured = tracking.run(entry["run_id"])["metrics"]["test_accuracy"]
    assert measured == pytest.approx(accuracy, abs=1e-6)  # a tag has six decimals
    record_property("figures", f"digits: test accuracy in the registry, of the version in production: {accuracy:.4f}")


def test_the_registry_entry_says_what_it_was_made_of(tracking: Tracking, served: str) -> None:
    entry = tracking.versions(MODEL)[served]
    tags = entry["tags"]
    assert len(bytes.fromhex(tags["data_version"])) == hashlib.md5(usedforsecurity=False).digest_size
    code = pack(ROOT / "models" / MODEL)
    assert tags["code_archive"] == f"sha256:{code.digest}"
    assert len(bytes.fromhex(tags["code_commit"])) == hashlib.sha1(usedforsecurity=False).digest_size
    # The work tree may have got a commit since; the files of the model are the same.
    assert tags["code_version"] == (code.version if tags["code_dirty"] == "true" else tags["code_commit"])
    assert tags["image_digest"] == f"localhost/trainer@{image_digests(str(BUNDLE))['trainer']}"
    run = tracking.run(entry["run_id"])
    lineage = (
        "data_version",
        "code_version",
        "code_archive",
        "code_commit",
        "code_dirty",
        "image_digest",
        "variant",
        "seed",
        "gate",
    )
    assert {name: run["tags"][name] for name in lineage} == {name: tags[name] for name in lineage}


def test_the_same_data_and_seed_give_the_same_metrics(tracking: Tracking, twins: list[dict[str, Any]]) -> None:
    entries = [tracking.versions(MODEL)[twin["version"]] for twin in twins]
    assert entries[0]["run_id"] != entries[1]["run_id"]
    one, other = (tracking.run(entry["run_id"])["metrics"] for entry in entries)
    assert len(one) == 11  # accuracy, and the recall of each digit
    assert one == other
    assert entries[0]["tags"] == entries[1]["tags"]


def test_the_gate_refuses_the_bad_variant_and_nothing_serves_it(platform: PlatformStack, tracking: Tracking) -> None:
    versions, aliases, serving = tracking.versions(MODEL), tracking.aliases(MODEL), deployed(platform)
    response = platform.lab.run("train", MODEL, "--variant", "bad", status=1)
    assert "error: the gate refuses run " in response.stderr
    assert "no stage serves it" in response.stderr
    refused = response.stderr.split("the gate refuses run ")[1].split(":")[0]
    run = tracking.run(refused)
    assert (run["tags"]["variant"], run["tags"]["gate"]) == ("bad", "refused")
    assert run["metrics"]["test_accuracy"] < ACCURACY
    assert tracking.versions(MODEL) == versions
    assert tracking.aliases(MODEL) == aliases
    assert deployed(platform) == serving
    assert refused not in {entry["run_id"] for entry in versions.values()}


def test_two_workers_train_a_model_that_staging_serves(platform: PlatformStack, tracking: Tracking) -> None:
    trained = train(platform, "--variant", "torch")
    tags = tracking.versions(MODEL)[trained["version"]]["tags"]
    assert (tags["variant"], tags["workers"]) == ("torch", "2")
    assert float(tags["test_accuracy"]) >= ACCURACY
    platform.lab.run("promote", MODEL, "--to", "staging", "--version", trained["version"])
    asked = ("predict", MODEL, str(SAMPLE), "--stage", "staging")
    # The gateway hears of the first pod of a stage a moment later than the command.
    wait(lambda: platform.lab.run(*asked, status=None).status == 0, "staging answers")
    answer = platform.lab.run(*asked).json
    assert answer["model_version"] == trained["version"]
    assert {output["name"]: output["data"] for output in answer["outputs"]}["label"] == [0]


def told_by_the_registered_model(platform: PlatformStack, version: str, data_version: str) -> dict[str, Any]:
    """The test set, and what a version of the model says of it in a Job of its own."""
    program = kubectl(str(BUNDLE), VERSION)
    assert program
    (job,) = [
        one for one in render("platform/training/run/base", program, image_digests(str(BUNDLE))) if one["kind"] == "Job"
    ]
    del job["metadata"]["name"]
    job["metadata"]["generateName"] = "test-set-"
    container = job["spec"]["template"]["spec"]["containers"][0]
    container |= {"command": ["python3", "-c", TEST_SET], "args": [version, data_version]}
    # Its code is on the object store since it was trained.
    told = {"MODEL_NAME": MODEL, "MODEL_CODE": pack(ROOT / "models" / MODEL).digest}
    container["env"] = [{**one, "value": told[one["name"]]} if one["name"] in told else one for one in container["env"]]
    made = platform.kubectl("create", "--output=name", "--filename=-", text=json.dumps(job)).stdout.strip()
    where = ("--namespace=training", made)

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(platform.kubectl("get", "--output=json", *where).stdout)["status"]
        return found

    wait(lambda: status().keys() & {"succeeded", "failed"}, f"{made} ends")
    log = platform.kubectl("logs", *where).stdout
    assert "succeeded" in status(), log
    platform.kubectl("delete", *where)
    (line,) = [line for line in log.splitlines() if line.startswith(ANSWER)]
    answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
    return answer


def test_what_is_served_is_what_was_registered_on_all_of_the_test_set(
    platform: PlatformStack, tracking: Tracking, served: str
) -> None:
    tags = tracking.versions(MODEL)[served]["tags"]
    response = told_by_the_registered_model(platform, served, tags["data_version"])
    rows = response["rows"]
    assert len(rows) == 360
    tensor = {"name": "pixels", "shape": [len(rows), 64], "datatype": "FP64", "data": [x for row in rows for x in row]}
    answer = platform.platform.ask(MODEL, "POST", f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})
    assert answer["model_version"] == served
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["label"] == response["labels"]
    assert outputs["probabilities"] == pytest.approx(response["probabilities"], abs=1e-9)
    right = sum(one == other for one, other in zip(outputs["label"], response["truth"], strict=True))
    assert right / len(rows) == pytest.approx(float(tags["test_accuracy"]), abs=1e-6)


def answering(platform: PlatformStack, count: int = 100) -> Counter[str]:
    """How many of some requests each version has answered; all of them must go well."""
    answers = ask_often(platform, count)
    assert [answer for answer in answers if answer.fault] == []
    return Counter(answer.version for answer in answers)


def answers_alone(platform: PlatformStack, version: str) -> bool:
    """Whether one version has answered each of some requests."""
    return answering(platform).keys() == {version}


def is_warm(platform: PlatformStack, version: str) -> bool:
    """Whether a version is kept warm for a rollback of production."""
    warm = platform.platform.kept_warm(MODEL).get("production", {})
    return warm.get("version") == version and warm["ready"]


def test_promotion_and_rollback_under_load_fail_no_request(
    platform: PlatformStack,
    served: str,
    twins: list[dict[str, Any]],
    record_property: Callable[[str, object], None],
) -> None:
    other = twins[0]["version"]
    with Load(platform) as load:
        took = {}
        for verb, arguments, version in (
            ("promote", ("--to", "production", "--version", other), other),
            ("rollback", (), served),
        ):
            if verb == "rollback":
                wait(partial(is_warm, platform, served), "the version before is warm")
            began = time.monotonic()
            response = platform.lab.run(verb, MODEL, *arguments).stdout
            took[verb] = time.monotonic() - began
            assert f"production serves version {version} of {MODEL}." in response
            # The gateway hears of pods that go a moment later than the command of pods that came.
            wait(partial(answers_alone, platform, version), f"version {version} answers alone")
        wait(lambda: time.monotonic() - load.began >= LOAD_SECONDS, "the load has lasted")
    assert load.faults == []
    assert {answer.version for answer in load.answers} == {served, other}
    first = min(one.began + one.seconds for one in load.answers if one.version == served and one.began >= began) - began
    assert first <= ROLLBACK_SECONDS
    durations = ", ".join(f"{verb} {seconds:.0f} s" for verb, seconds in took.items())
    durations += f", first answer after the rollback's begin {first:.1f} s"
    record_property("figures", f"digits: promotion and rollback under load: {load}; {durations}")


def test_the_delivery_figures_tell_of_the_rollback(platform: PlatformStack, twins: list[dict[str, Any]]) -> None:
    """Of the registry, the cluster and the stack's history, through the platform's own PostgreSQL."""

    def told() -> dict[str, Any]:
        answer: dict[str, Any] = platform.lab.run("dora", "--json").json
        return answer

    def model(answer: dict[str, Any]) -> dict[str, Any]:
        return next(one for one in answer["figures"] if one["subject"] == f"model {MODEL}")

    first = told()
    assert first["newEvents"]
    bad = [one for one in model(first)["deployments"] if one["what"] == f"version {twins[0]['version']}"]
    assert [one["failed"] for one in bad] == ["it was rolled back"]
    assert 0 < bad[0]["recoverySeconds"] < 600
    assert next(one for one in first["figures"] if one["subject"].startswith("infrastructure"))["deployments"]
    second = told()
    assert (second["newEvents"], model(second)) == (0, model(first))


def test_the_canary_gets_the_share_that_was_set(
    platform: PlatformStack,
    served: str,
    twins: list[dict[str, Any]],
    record_property: Callable[[str, object], None],
) -> None:
    canary = twins[1]["version"]

    def share(requests: int) -> float:
        answers = answering(platform, requests)
        assert answers.keys() <= {served, canary}
        return 100 * answers[canary] / requests

    def is_near(wanted: int) -> bool:
        return abs(share(200) - wanted) <= 5

    got = 0.0
    for wanted in (10, 30, 0):
        platform.lab.run("promote", MODEL, "--to", "canary", "--version", canary, "--share", str(wanted))
        wait(partial(is_near, wanted), f"the gateway sends the canary about {wanted} %")
        got = share(SHARE_REQUESTS)
        record_property("figures", f"digits: canary set to {wanted} %: {got:.2f} % of {SHARE_REQUESTS} requests")
        assert abs(got - wanted) <= 2
    assert got == 0
