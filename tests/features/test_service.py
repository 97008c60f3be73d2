"""The program as the cluster runs it: updates, the service, what it does without its stores; on the real ones."""

from __future__ import annotations

import io
import json
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.features.test_point_in_time import run
from tests.images.services import answers, free_port
from tests.models.example import answer_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.features.conftest import Features
    from tests.images.containers import Container

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(1200)]
BAD_DATA, UNAVAILABLE = 65, 69
ROWS = "features/delivery-times.csv"
COLUMNS = 8


def update(features: Features, *arguments: str) -> dict[str, Any]:
    status, output = features.run("update", *arguments)
    assert status == 0, output
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def updates(features: Features) -> list[dict[str, Any]]:
    """Two passes: the one that finds nothing, as of an hour ago, and the next."""
    earlier = datetime.now(UTC) - timedelta(hours=1)
    return [update(features, "--now", earlier.isoformat()), update(features)]


@pytest.fixture(scope="module")
def service(features: Features, updates: list[dict[str, Any]]) -> tuple[Container, str]:
    """A service that is ready, and its address."""
    assert updates
    port = free_port()
    container = features.start("serve", environment={"PORT": str(port)})
    url = f"http://127.0.0.1:{port}"
    container.until(lambda: answers(f"{url}/readyz"))
    return container, url


def csv_of(features: Features) -> list[dict[str, str]]:
    import csv  # noqa: PLC0415

    body = features.objects.client().get_object(Bucket="datasets", Key=ROWS)["Body"].read()
    return list(csv.DictReader(io.StringIO(body.decode())))


def asked(url: str, *orders: dict[str, Any]) -> tuple[int, Any]:
    return answer_to(
        f"{url}/v1/delivery-times", json.dumps({"orders": orders}).encode(), content_type="application/json"
    )


def test_no_row_is_served_otherwise_than_it_is_trained_with(
    updates: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nskew: {[(one['compared'], one['skew']) for one in updates]} (rows compared, rows that differ)")
    assert all(one["compared"] > 500 and one["skew"] == 0 for one in updates)


def test_what_the_service_answers_is_what_is_trained_with(
    features: Features, service: tuple[Container, str], tmp_path: Path
) -> None:
    """To the last bit, through HTTP: the offline store is asked about the same orders in a program of its own."""
    _, url = service
    now = datetime.now(UTC).replace(microsecond=0)
    orders = [
        {
            "restaurant": number % 21, "courier": 7 * number % 31, "distance_km": 0.1 + number / 7,
            "items": 1 + number % 5, "placed_at": (now - timedelta(seconds=number)).isoformat(),
        }
        for number in range(100)
    ]  # fmt: skip
    status, answer = asked(url, *orders)
    (tensor,) = answer["inputs"]
    assert (status, tensor["name"], tensor["shape"], tensor["datatype"]) == (200, "features", [100, COLUMNS], "FP64")
    file = tmp_path / "orders.json"
    file.write_text(json.dumps(orders))
    trained = run(features, "trained.py", file)["rows"]
    served = [tensor["data"][row * COLUMNS : (row + 1) * COLUMNS] for row in range(len(orders))]
    assert [row for row in range(len(orders)) if trained[row] != served[row]] == []
    # Nobody knows restaurant 20 and courier 30; what they are told of is there for the others.
    unknown = [row for row, order in zip(served, orders, strict=True) if order["restaurant"] == 20]
    assert unknown
    assert all(row[4:6] == [-1, -1] for row in unknown)
    assert sum(-1 in row for row in served) < len(served) / 4


def test_rows_to_train_with_have_labels_that_had_arrived_and_all_that_had_time_to(
    features: Features, updates: list[dict[str, Any]]
) -> None:
    rows, now = csv_of(features), datetime.fromisoformat(updates[-1]["as_of"])
    assert len(rows) == updates[-1]["training_rows"] > 1500
    placed = [datetime.fromisoformat(row["placed_at"]) for row in rows]
    assert now - timedelta(days=14) < min(placed)
    assert now - timedelta(hours=10) < max(placed) <= now - timedelta(hours=8)
    assert list(rows[0]) == [
        "order", "placed_at", "rush", "distance_km", "items", "hour", "weekday", "preparation_minutes",
        "restaurant_orders", "minutes_per_km", "courier_deliveries", "minutes",
    ]  # fmt: skip
    assert len({row["order"] for row in rows}) == len(rows)


def test_a_pass_changes_nothing_of_what_was_published(features: Features, updates: list[dict[str, Any]]) -> None:
    """An order that both passes trained with has the same row in both: later reports do not leak into it."""
    before = {row["order"]: row for row in csv_of(features)}
    third = update(features)
    after = {row["order"]: row for row in csv_of(features)}
    both = before.keys() & after.keys()
    assert len(both) > 1500
    assert [order for order in both if before[order] != after[order]] == []
    assert 0 < third["new_rows"] <= 50 < updates[0]["new_rows"]
    status, output = features.run("update", "--now", updates[0]["as_of"])
    assert status == BAD_DATA
    assert "there are newer rows of restaurants already" in output


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "nothing": ([], "orders: "),
    "no time zone": ([{"placed_at": "2026-11-30T12:00:00"}], "orders.0.placed_at: "),
    "no distance": ([{"distance_km": -1}], "orders.0.distance_km: "),
    "something else": ([{"tip": 3}], "orders.0.tip: "),
    "two faults": ([{"items": 0}, {"courier": "x"}], "orders.1.courier: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_where(service: tuple[Container, str], name: str) -> None:
    whole = {"restaurant": 1, "courier": 2, "distance_km": 2.5, "items": 2}
    orders, told = WRONG[name]
    status, answer = asked(service[1], *({**whole, **one} for one in orders))
    assert status == 400
    assert told in answer["error"]
    with urllib.request.urlopen(f"{service[1]}/metrics") as metrics:
        assert 'features_requests_total{status="400"}' in metrics.read().decode()


def test_the_service_goes_on_when_postgresql_comes_back(features: Features, service: tuple[Container, str]) -> None:
    container, url = service
    order = {"restaurant": 1, "courier": 2, "distance_km": 2.5, "items": 2}
    before = asked(url, order)
    features.postgres.container.stop()
    status, answer = asked(url, order)
    assert status == 503
    assert "is PostgreSQL there" in answer["error"]
    assert answers(f"{url}/healthz")
    assert not answers(f"{url}/readyz")
    status, output = features.run("update")
    assert status == UNAVAILABLE
    assert "error: PostgreSQL says: " in output
    assert "Traceback" not in output
    features.postgres.container.start()
    features.postgres.container.until(features.postgres.is_ready)
    container.until(lambda: answers(f"{url}/readyz"))
    # The clock is a feature: only the others are the same.
    assert before[0] == asked(url, order)[0] == 200
    assert before[1]["inputs"][0]["data"][4:] == asked(url, order)[1]["inputs"][0]["data"][4:]


def test_without_the_object_store_nothing_is_served_that_is_not_kept(features: Features) -> None:
    features.objects.container.stop()
    try:
        status, output = features.run("update", environment={"AWS_MAX_ATTEMPTS": "1"})
    finally:
        features.objects.container.start()
        features.objects.container.until(features.objects.is_ready)
    assert status == UNAVAILABLE
    assert "error: the object store says: " in output
