"""The tabular model, from its features to an answer, all from the images: `pytest -m slow_images tests/models`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.harness import ROOT
from tests.features.conftest import Features, around
from tests.features.test_service import asked, csv_of, update
from tests.images.services import answers, free_port
from tests.models.example import infer, serve, trainer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundle.store import Store
    from tests.images.services import Stack

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(1800)]
MODEL = "delivery-times"
FOLDER = ROOT / "models" / MODEL
REFUSED, FAULTY = 3, 70


@pytest.fixture(scope="module")
def features(stack: Stack, store: Store) -> Features:
    """The feature store on the stack's own stores; nothing was ever published."""
    return around(stack.runtime, stack.images, store, stack.postgres, stack.objects)


@pytest.fixture(scope="module")
def trained(stack: Stack, features: Features) -> dict[str, Any]:
    """The result of a training that was told of before there were features, and then was there."""
    early = trainer(stack, FOLDER, "run")
    assert early.status == FAULTY, early.output
    assert "platform/features writes it, which profile lab has" in early.result["error"]
    update(features)
    done = trainer(stack, FOLDER, "run", "--promote", "production")
    assert done.status == 0, done.output
    return done.result


@pytest.fixture(scope="module")
def url(features: Features, trained: dict[str, Any]) -> Iterator[str]:
    """The service of the features."""
    assert trained
    port = free_port()
    container = features.start("serve", environment={"PORT": str(port)})
    container.until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
    yield f"http://127.0.0.1:{port}"
    container.stop()


def test_it_is_right_within_five_minutes_for_most_orders(trained: dict[str, Any]) -> None:
    assert trained["test_within_five_minutes"] >= 0.6


def test_what_the_feature_store_knows_is_what_makes_it_good(stack: Stack, trained: dict[str, Any]) -> None:
    done = trainer(stack, FOLDER, "run", "--variant", "blind", "--data-version", trained["data_version"])
    assert done.status == REFUSED, done.output
    assert "within_five_minutes" in done.result["error"]


def test_an_order_is_asked_about_by_its_keys(stack: Stack, trained: dict[str, Any], url: str) -> None:
    """What the service answers is the model server's request as it is; a longer way takes longer."""
    server, address = serve(stack, {"MODEL_VERSION": trained["version"]}, MODEL)
    try:
        minutes = []
        for distance in (1.0, 8.0):
            order = {"restaurant": 3, "courier": 7, "distance_km": distance, "items": 2}
            status, request = asked(url, order)
            assert status == 200
            answer = infer(address, request, MODEL)
            assert answer["model_version"] == trained["version"]
            minutes.append(answer["outputs"][0]["data"][0])
    finally:
        server.stop()
    assert 5 < minutes[0] < minutes[1] < 120


def test_what_was_trained_with_is_what_the_feature_store_wrote(
    stack: Stack, features: Features, trained: dict[str, Any]
) -> None:
    """Column by column: the dataset's version that DVC keeps is the file as it was written, number for number."""
    version = trained["data_version"]
    key = f"{MODEL}/versions/files/md5/{version[:2]}/{version[2:]}"
    kept = stack.objects.client().get_object(Bucket="datasets", Key=key)["Body"].read().decode()
    written = csv_of(features)
    lines = kept.splitlines()
    assert lines[0].split(",") == list(written[0])
    assert len(lines) == len(written) + 1
    for line, row in zip(lines[1:], written, strict=True):
        for value, (column, there) in zip(line.split(","), row.items(), strict=True):
            assert value == there or float(value) == float(there), column


def test_the_columns_are_those_that_the_service_sends(url: str) -> None:
    text = (FOLDER / "delivery_times.py").read_text()
    columns = text.partition("COLUMNS = [")[2].partition("]")[0].replace('"', " ").replace(",", " ").split()
    _, request = asked(url, {"restaurant": 1, "courier": 2, "distance_km": 2.5, "items": 2})
    sample = json.loads((FOLDER / "sample.json").read_text())
    assert request["inputs"][0]["shape"] == [1, len(columns)]
    assert len(sample[0]) == len(columns)
