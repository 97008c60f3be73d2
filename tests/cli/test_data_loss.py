"""What is said of a plan that deletes data."""

from __future__ import annotations

from typing import Any

import pytest

from cli.data_loss import data_deleted

VOLUME = "openstack:blockstorage/volume:Volume"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"


def event(op: str, type_: str = VOLUME, **old: Any) -> dict[str, Any]:
    """An engine's event of a step."""
    urn = f"urn:pulumi:dev::ml-cluster::{type_}::stores"
    return {"resourcePreEvent": {"metadata": {"op": op, "urn": urn, "type": type_, "old": old}}}


def test_volumes_are_named_with_their_size() -> None:
    events = [
        {"preludeEvent": {}},
        event("delete", inputs={"name": "dev-stores", "size": 8}),
        event("delete-replaced", inputs={"name": "dev-etcd", "size": 1}),
        event("delete", CLAIM, inputs={"metadata": {"name": "postgres"}}),
    ]
    assert data_deleted(events).splitlines() == [
        "Deleted, with all data:",
        "  volume claim postgres",
        "  volume dev-etcd, 1 GB",
        "  volume dev-stores, 8 GB",
        "",
    ]


@pytest.mark.parametrize(
    "harmless",
    [
        event("update", inputs={"name": "dev-stores", "size": 8}),
        event("delete", inputs={"name": "dev-stores"}, retainOnDelete=True),
        event("delete", "openstack:compute/instance:Instance", inputs={"name": "dev-worker-0"}),
    ],
    ids=["kept", "left in the cloud", "holds nothing"],
)
def test_what_keeps_its_data_is_not_named(harmless: dict[str, Any]) -> None:
    assert data_deleted([harmless]) == ""
