"""Crash matrix: the engine is ended by ``kill -9`` just before and just after every call that changes the world.

A program of twelve resources is created, updated, replaced and destroyed; a first run of each counts its provider
calls, then the same operation is cut off at each of them in turn, from the same starting point. After each crash ``up``
must converge to exactly what the program declares, and ``destroy`` must leave nothing, in the world and in the state.

Costs three commands a crash point, in all some two minutes of processor time.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import ENGINE, Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.harness import Outcome

SIGKILLED = -9

# Twelve resources: a chain, a fan, a component, names that exclude each other (`slot`) and names that do not (`key`).
PROGRAM = """
    value, key, slot = {value!r}, {key!r}, {slot!r}
    network = Thing("network", value=value, key=key)
    subnet = Thing("subnet", value=network.computed)
    address = Thing("address", slot=slot, value=value)
    class Nodes(ComponentResource):
        def __init__(self):
            super().__init__("testbed:index:Nodes", "nodes")
            for number in range(4):
                node = Thing(f"node-{{number}}", value=subnet.computed, key=key, opts=ResourceOptions(parent=self))
                own = f"{{slot}}-{{number}}"
                Thing(f"disk-{{number}}", value=node.computed, slot=own, opts=ResourceOptions(parent=self))
            self.register_outputs({{}})
    Nodes()
    Thing("entry", value=address.computed, opts=ResourceOptions(depends_on=[network]))
    export("address", address.computed)
"""
NAMES = {"network", "subnet", "address", "entry"} | {f"{kind}-{n}" for kind in ("node", "disk") for n in range(4)}
BEFORE = {"value": 1, "key": "a", "slot": "s"}
AFTER = {
    "create": BEFORE,
    "update": BEFORE | {"value": 2},
    "replace": BEFORE | {"key": "b", "slot": "t"},
    "destroy": BEFORE,
}


class Scene:
    """A stack about to undergo an operation, to be copied for each crash."""

    def __init__(self, folder: Path, template: Path, operation: str) -> None:
        self.operation = operation
        self.folder = folder
        stack = self.open(template, folder)
        if operation != "create":
            stack.program(PROGRAM.format(**BEFORE))
            stack.up()
        stack.program(PROGRAM.format(**AFTER[operation]))

    @staticmethod
    def open(template: Path, folder: Path) -> Stack:
        stack = Stack(folder, template)
        stack.env["TESTBED_RECOVERS"] = "yes"
        return stack

    def copy(self, folder: Path) -> Stack:
        """The same stack and the same world elsewhere."""
        stack = self.open(self.folder, folder)
        shutil.copytree(self.folder / "world", stack.world, dirs_exist_ok=True)
        (stack.world / "mutations").unlink(missing_ok=True)
        return stack

    def perform(self, stack: Stack, *, crash: str = "") -> Outcome:
        """The operation, cut off at a point if one is given."""
        stack.env["TESTBED_CRASH"] = crash
        try:
            return stack.destroy(ok=None) if self.operation == "destroy" else stack.up(ok=None)
        finally:
            del stack.env["TESTBED_CRASH"]


def expected_inputs(operation: str) -> dict[str, object]:
    return {"network": AFTER[operation]["value"], "address": AFTER[operation]["value"]}


def recorded(stack: Stack) -> dict[str, object]:
    return dict(json.loads(stack.checkpoint_path.read_text())["checkpoint"]["latest"])


def survive(scene: Scene, folder: Path, point: str) -> int:
    """Crash at a point, converge, destroy; returns the number of orphans found on the way."""
    stack = scene.copy(folder)
    crashed = scene.perform(stack, crash=point)
    assert crashed.exit_code == SIGKILLED, f"no crash at {point}\n{crashed.text}"
    stack.up()
    records = [path.stem for path in (stack.world / "resources").glob("*.json")]
    orphans = len(records) - len(NAMES)
    world = stack.existing() if not orphans else {}
    if not orphans:
        assert set(world) == NAMES, f"{point}: {sorted(world)}"
        for name, value in expected_inputs(scene.operation).items():
            assert world[name]["inputs"]["value"] == value, f"{point}: {name} was not converged"
        assert "pending_operations" not in recorded(stack), point
    stack.destroy()
    left = list((stack.world / "resources").glob("*.json"))
    assert "resources" not in recorded(stack), f"{point}: the state still has resources after destroy"
    shutil.rmtree(folder)
    return max(orphans, 0) + len(left)


@pytest.mark.skipif(ENGINE != "embedded", reason="the Pulumi CLI asks a person what became of an interrupted create")
@pytest.mark.conformance(
    feature="kill -9 during an operation",
    cli="Interrupted operations are recorded as pending; creates have to be looked up and imported by hand.",
    engine="looks up what interrupted creates and deletes have left, and goes on",
)
@pytest.mark.parametrize("operation", list(AFTER))
def test_every_crash_is_survived(
    tmp_path: Path, initialized: Path, operation: str, record_property: Callable[[str, object], None]
) -> None:
    scene = Scene(tmp_path / "scene", initialized, operation)
    whole = scene.copy(tmp_path / "whole")
    done = scene.perform(whole)
    assert done.exit_code == 0, done.text
    calls = (whole.world / "mutations").stat().st_size
    assert calls >= len(NAMES)
    points = [f"{number}:{moment}" for number in range(1, calls + 1) for moment in ("before", "after")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        orphans = sum(pool.map(lambda point: survive(scene, tmp_path / point.replace(":", "-"), point), points))
    figures = f"{calls} provider calls, {len(points)} crash points, {orphans} orphans"
    record_property("figures", f"crash matrix, {operation}: {figures}")
    assert orphans == 0
