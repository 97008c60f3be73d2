"""The worked example on a real MLflow, PostgreSQL and S3, all from the images: `pytest -m slow_images tests/models`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from cli.model_code import pack
from services.delivery import registry as delivery
from services.delivery.events import PROMOTED, REGISTERED, ROLLED_BACK, TRAINED, WITHDRAWN
from tests.cli.harness import ROOT
from tests.images.registry import Registry
from tests.images.services import answers, free_port
from tests.models.example import digits, infer, serve

if TYPE_CHECKING:
    from tests.images.services import Stack

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(900)]
REFUSED, BAD_DATA, UNAVAILABLE = 3, 65, 69


def ask(stack: Stack, path: str) -> Any:
    """What MLflow's API says."""
    tracking = stack.tracking.environment
    login = f"{tracking['MLFLOW_TRACKING_USERNAME']}:{tracking['MLFLOW_TRACKING_PASSWORD']}"
    request = urllib.request.Request(f"{stack.tracking.url}/api/2.0/mlflow/{path}")
    request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def version_of(stack: Stack, number: str) -> dict[str, str]:
    """The tags of a version of the registered model."""
    found = ask(stack, f"model-versions/get?name=digits&version={number}")["model_version"]
    return {tag["key"]: tag["value"] for tag in found["tags"]} | {"run_id": found["run_id"]}


def alias(stack: Stack, stage: str) -> str:
    """The version that a stage serves."""
    found = ask(stack, f"registered-models/alias?name=digits&alias={stage}")
    return str(found["model_version"]["version"])


@pytest.fixture(scope="module")
def first(stack: Stack) -> dict[str, Any]:
    """The result of the whole way from data to a version in staging."""
    done = digits(stack, "run", "--promote", "staging")
    assert done.status == 0, done.output
    return done.result


def test_the_model_is_good_and_its_entry_says_where_it_came_from(stack: Stack, first: dict[str, Any]) -> None:
    tags = version_of(stack, first["version"])
    assert float(tags["test_accuracy"]) >= 0.95
    assert tags["data_version"] == first["data_version"]
    assert tags["code_version"] == "abc123"
    assert tags["code_archive"] == f"sha256:{pack(ROOT / 'models/digits').digest}"
    assert tags["image_digest"] == "sha256:feed"
    assert tags["run_id"] == first["run"]
    assert alias(stack, "staging") == first["version"]


def test_the_same_data_and_seed_give_the_same_metrics(stack: Stack, first: dict[str, Any]) -> None:
    again = digits(stack, "train", "--data-version", first["data_version"])
    assert again.status == 0, again.output
    judged = digits(stack, "evaluate", "--run", again.result["run"])
    metrics = {name: value for name, value in judged.result.items() if name.startswith("test_")}
    assert metrics
    assert metrics == {name: value for name, value in first.items() if name.startswith("test_")}


def test_the_bad_variant_is_refused_and_cannot_be_had_past_the_gate(stack: Stack, first: dict[str, Any]) -> None:
    before = ask(stack, "registered-models/get?name=digits")["registered_model"]
    refused = digits(stack, "run", "--variant", "bad", "--promote", "production")
    assert refused.status == REFUSED
    assert "the gate refuses" in refused.result["error"]
    assert "Traceback" not in refused.output
    run = refused.result["error"].split("refuses run ")[1].split(":")[0]
    registered = digits(stack, "register", "--run", run)
    assert registered.status == REFUSED
    assert ask(stack, "registered-models/get?name=digits")["registered_model"] == before
    assert first


def test_two_workers_train_one_model_that_is_served_without_torch(stack: Stack, first: dict[str, Any]) -> None:
    torchrun = ["/usr/bin/python3", "-m", "torch.distributed.run"]
    port = str(free_port())
    results = []
    for _ in range(2):
        done = digits(
            stack, "--nnodes=1", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}", "-m",
            "services.training", "run", "--variant", "torch", entrypoint=torchrun,
        )  # fmt: skip
        assert done.status == 0, done.output
        results.append({name: value for name, value in done.result.items() if name.startswith("test_")})
    assert results[0] == results[1]
    assert results[0]["test_accuracy"] >= 0.95
    tags = version_of(stack, done.result["version"])
    assert (tags["variant"], tags["workers"]) == ("torch", "2")
    assert int(done.result["version"]) > int(first["version"])
    with_server(stack, done.result["version"], agree=done.result["test_accuracy"])


def test_what_is_served_is_what_was_registered(stack: Stack, first: dict[str, Any]) -> None:
    with_server(stack, first["version"], agree=first["test_accuracy"])


def test_a_rollback_serves_what_was_served_before_and_no_more(stack: Stack, first: dict[str, Any]) -> None:
    second = digits(stack, "run", "--seed", "1")
    assert second.status == 0, second.output
    for number in (first["version"], second.result["version"]):
        assert digits(stack, "promote", "--to", "production", "--version", number).status == 0
        assert alias(stack, "production") == number
    assert digits(stack, "rollback", "--to", "production").status == 0
    assert alias(stack, "production") == first["version"]
    refused = digits(stack, "rollback", "--to", "production")
    assert refused.status == REFUSED
    assert "has served nothing before" in refused.result["error"]
    assert alias(stack, "production") == first["version"]


def test_the_registry_tells_what_was_done_to_a_stage(stack: Stack, first: dict[str, Any]) -> None:
    """With the times of it, so that the delivery figures can be made of the registry alone."""
    registry = Registry(stack.tracking.environment)

    def ask_registry(method: str, path: str, body: dict[str, Any] | None) -> Any:
        return (
            ask(stack, f"{path}?{urlencode(body or {})}")
            if method == "GET"
            else registry.ask(method, path, **body or {})
        )

    def moves() -> list[tuple[str, Any, Any]]:
        found = sorted((one for one in delivery.events(ask_registry) if "stage" in one.data), key=lambda one: one.at)
        canary = [one for one in found if one.data["stage"] == "canary"]
        return [(one.kind, one.data["version"], one.data["incident"]) for one in canary]

    before = len(moves())
    number = str(first["version"])
    assert digits(stack, "promote", "--to", "canary", "--version", number, "--incident", "wrong-digits").status == 0
    assert digits(stack, "withdraw", "--to", "canary", "--version", number).status == 0
    assert digits(stack, "rollback", "--to", "canary").status == 0
    assert moves()[before:] == [
        (PROMOTED, number, "wrong-digits"), (WITHDRAWN, number, None), (ROLLED_BACK, number, None)
    ]  # fmt: skip
    found = list(delivery.events(ask_registry))
    trained = {one.key: one.data for one in found if one.kind == TRAINED}
    registered = {one.data["version"]: one.data["run"] for one in found if one.kind == REGISTERED}
    assert trained[registered[number]] == {"code": "abc123", "gate": "passed"}


def test_a_rollback_passes_over_what_was_deleted(stack: Stack, first: dict[str, Any]) -> None:
    registry = Registry(stack.tracking.environment)
    more = [digits(stack, "run", "--seed", str(seed)).result["version"] for seed in (2, 3)]
    for number in (first["version"], *more):
        assert digits(stack, "promote", "--to", "canary", "--version", number).status == 0
    registry.delete(more[0])
    done = digits(stack, "rollback", "--to", "canary")
    assert done.result == {"stage": "canary", "version": first["version"], "passed_over": [more[0]]}
    assert alias(stack, "canary") == first["version"]
    refused = digits(stack, "rollback", "--to", "canary")
    assert refused.status == REFUSED
    assert "has served nothing before" in refused.result["error"]
    assert alias(stack, "canary") == first["version"]


def test_a_stage_that_is_withdrawn_has_no_alias_and_can_be_rolled_back(stack: Stack, first: dict[str, Any]) -> None:
    number = first["version"]
    mark = {"key": "withdrawn.staging", "value": number}
    assert digits(stack, "promote", "--to", "staging", "--version", number).status == 0
    refused = digits(stack, "withdraw", "--to", "staging", "--version", "999")
    assert refused.status == REFUSED
    assert f"serves version {number}, not 999" in refused.result["error"]
    for _ in range(2):  # it may be asked again where it was interrupted
        done = digits(stack, "withdraw", "--to", "staging", "--version", number)
        assert done.result == {"stage": "staging", "version": number}
        model = ask(stack, "registered-models/get?name=digits")["registered_model"]
        assert mark in model["tags"]
        assert "staging" not in {one["alias"] for one in model["aliases"]}
    assert digits(stack, "rollback", "--to", "staging").result["version"] == number
    assert alias(stack, "staging") == number
    assert mark not in ask(stack, "registered-models/get?name=digits")["registered_model"]["tags"]


def test_a_new_pod_serves_a_version_that_the_registry_forgot(stack: Stack, first: dict[str, Any]) -> None:
    """As where a node is lost, or more pods are wanted: the rollout controller has written down where its files are."""
    made = digits(stack, "run", "--seed", "4").result
    uri = ask(stack, f"model-versions/get-download-uri?name=digits&version={made['version']}")["artifact_uri"]
    Registry(stack.tracking.environment).delete(made["version"])
    body = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP64", "data": [0.0] * 64}]}
    server, url = serve(stack, {"MODEL_VERSION": made["version"], "MODEL_SOURCE": uri})
    assert infer(url, body)["model_version"] == made["version"]
    assert f"the registry has no version {made['version']} of digits any more" in server.output
    server.stop()
    assert first


def test_invalid_data_is_refused_with_all_errors(stack: Stack, first: dict[str, Any]) -> None:
    header = ",".join([*(f"pixel{number}" for number in range(64)), "digit"])
    lines = [header, ",".join(["17", *["0"] * 63, "3"]), ",".join([*["0"] * 64, "11"])]
    (stack.runtime.work / "faulty.csv").write_text("\n".join(lines) + "\n")
    mounted = {stack.runtime.work / "faulty.csv": "/faulty.csv"}
    refused = digits(stack, "ingest", "--file", "/faulty.csv", read_only=mounted)
    assert refused.status == BAD_DATA
    assert "1 rows with pixels outside 0 to 16, the first in line 2" in refused.result["error"]
    assert "1 labels that are not digits, the first in line 3" in refused.result["error"]
    assert "2 rows, fewer than 10" in refused.result["error"]
    assert "Traceback" not in refused.output
    trained = digits(stack, "train")  # on what is current still
    assert trained.result["data_version"] == first["data_version"]


def test_a_wrong_password_or_place_is_reported_without_a_traceback(stack: Stack) -> None:
    for environment, told in (
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the code of digits, s3://code/"),
        ({"DATA_URL": "s3://nothing"}, "the dataset in s3://nothing/digits is not available"),
        ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, "tracking server error"),
    ):
        refused = digits(stack, "train", environment=environment)
        assert refused.status == UNAVAILABLE
        assert told in refused.result["error"]
        assert "Traceback" not in refused.output


def test_a_stopping_server_is_not_ready_and_still_answers(stack: Stack, first: dict[str, Any]) -> None:
    server, url = serve(stack, {"MODEL_VERSION": first["version"], "DRAIN_SECONDS": "5"})
    server.signal("SIGTERM")
    server.until(lambda: not answers(f"{url}/v2/health/ready"))
    body = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP64", "data": [[0.0] * 64]}]}
    assert infer(url, body)["model_version"] == first["version"]
    assert server.wait(30) == 0


def test_a_server_refuses_what_its_model_does_not_take_and_to_be_unloaded(stack: Stack, first: dict[str, Any]) -> None:
    server, url = serve(stack, {"MODEL_VERSION": first["version"]})
    body = {"inputs": [{"name": "pixels", "shape": [1, 3], "datatype": "FP64", "data": [[0.0] * 3]}]}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        infer(url, body)
    unload = urllib.request.Request(f"{url}/v2/repository/models/digits/unload", b"{}")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(unload)
    assert answers(f"{url}/v2/models/digits/ready")
    server.stop()


def test_a_server_of_a_model_that_is_not_there_says_so(stack: Stack) -> None:
    container = stack.runtime.start(
        stack.images["model-server"], "server-of-none", environment={**stack.environment, "MODEL_NAME": "none"}
    )
    assert container.wait(60) == 1
    assert "error: none@production cannot be loaded" in container.output
    assert "Traceback" not in container.output


def with_server(stack: Stack, number: str, *, agree: float) -> None:
    """Serve a version; asked for all of the test set, it must be as right as the gate found it, to the last image."""
    server, url = serve(stack, {"MODEL_VERSION": number})
    try:
        rows, labels = held_out(stack)
        body = {"inputs": [{"name": "pixels", "shape": [len(rows), 64], "datatype": "FP64", "data": rows}]}
        answer = infer(url, body)
        assert answer["model_version"] == number
        found = {output["name"]: output["data"] for output in answer["outputs"]}
        right = sum(one == other for one, other in zip(found["label"], labels, strict=True))
        assert right / len(labels) == pytest.approx(agree, abs=1e-9)
        assert len(found["probabilities"]) == 10 * len(rows)
    finally:
        server.stop()


def held_out(stack: Stack) -> tuple[list[list[float]], list[int]]:
    """The rows that no training saw, from the dataset as it is packaged."""
    code = (
        "import json; from services.training import datasets, module;"
        "from services.training.settings import JobSettings;"
        "code = module.fetch(JobSettings()); data = code.settings.data;"
        "part = datasets.validate(code, datasets.from_module(code)).split(data.test, stratify=data.stratify)[1];"
        "found = {'rows': part.features.tolist(), 'labels': part.labels.tolist()};"
        "open('/tmp/result.json', 'w').write(json.dumps(found))"
    )
    done = digits(stack, "-c", code, entrypoint=["/usr/bin/python3"])
    assert done.status == 0, done.output
    return done.result["rows"], done.result["labels"]
