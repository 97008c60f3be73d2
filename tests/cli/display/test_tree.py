"""Progress on a terminal."""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING

import pytest

import cli.display.tree
from cli.display.model import Model, Options
from cli.display.rows import cells
from cli.display.tree import FRAMES_PER_SECOND, TreeDisplay
from terminal.text import open_console
from tests.cli.display.stream import (
    SERVER,
    begin,
    begin_stack,
    change,
    end,
    end_stack,
    fail,
    finish,
    say,
    state,
    urn,
)
from tests.cli.display.terminal import Terminal

if TYPE_CHECKING:
    from cli.display.model import Row
    from cli.display.rows import Cells


def squeezed(lines: list[str]) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in lines if line.strip()]


def test_the_tree_is_redrawn_in_place_as_resources_come_and_go() -> None:
    child = state("node", parent=urn("cluster", "lab:Cluster"))
    with Terminal() as terminal:
        terminal.send(
            begin_stack("create"), begin("create", "cluster", "lab:Cluster"), begin("create", "node", new=child)
        )
        lines = terminal.wait_for(lambda lines: any("1s" in line for line in lines))
        assert squeezed(lines)[:2] == ["Updating (dev):", "Type Name Status"]
        assert [line.rstrip(". ") for line in squeezed(lines)[2:5]] == [
            "+ pulumi:pulumi:Stack lab-dev creating (1s)",
            "+ └─ lab:Cluster cluster creating (1s)",
            "+ └─ openstack:compute:Instance node creating (1s)",
        ]
        assert "0 resources done, 2 in progress" in lines[6]
        terminal.send(end("create", "node", new=child))
        lines = terminal.wait_for(lambda lines: any("1 resource done" in line for line in lines))
        assert re.search(r"└─ openstack:compute:Instance  node +created \(", "\n".join(lines))
        assert "\n".join(lines).count("pulumi:pulumi:Stack") == 1
        terminal.send(end_stack("create"), *finish({"create": 3}))
        assert terminal.finish() == 0
        assert terminal.text.count("Type") == 1
        assert "Resources:\n    + 3 created\n\nDuration: 3s\n" in terminal.text
        assert "in progress" not in terminal.text


def test_errors_show_beside_their_row_below_the_tree_and_in_the_report() -> None:
    with Terminal() as terminal:
        terminal.send(
            begin_stack(),
            begin("create", "node"),
            say("quota exceeded\nask for more", about="node"),
            fail("create", "node"),
        )
        lines = terminal.wait_for(lambda lines: any("1 failed" in line for line in lines))
        assert re.search(r"node +\*\*creating failed \(.*\)\*\* +error: quota exceeded", "\n".join(lines))
        assert "  node: error: quota exceeded" in lines
        terminal.finish()
        assert re.search(r"node +\*\*creating failed \(.*\)\*\* +1 error", terminal.text)
        assert "    error: quota exceeded\n    ask for more\n" in terminal.text


def test_a_replacement_shows_as_one_in_a_preview() -> None:
    step = change("node", {"image": "a"}, {"image": "b"}, op="create-replacement", keys=["image"])
    with Terminal(dry_run=True) as terminal:
        done = {"resOutputsEvent": step["resourcePreEvent"]}
        terminal.send(begin_stack(), step, done, *finish({"replace": 1}, preview=True))
        terminal.finish()
        assert "Previewing update (dev):" in terminal.text
        assert re.search(r"\+- +└─ openstack:compute:Instance +node +replace +\[diff: ~image\]", terminal.text)
        assert re.search(r"Type +Name +Plan +Info", terminal.text)


def test_what_does_not_fit_gives_way_to_what_happens() -> None:
    with Terminal(rows=16, columns=80) as terminal:
        done = [event(op, f"n{i}") for i in range(200) for op, event in (("create", begin), ("create", end))]
        terminal.send(
            begin_stack(), *done, begin("create", "broken"), fail("create", "broken"), begin("create", "busy")
        )
        lines = terminal.wait_for(lambda lines: any("200 resources done" in line for line in lines))
        text = "\n".join(lines)
        assert re.search(r"broken +\*\*creating failed", text)
        assert re.search(r"busy +creating", text)
        assert "n199" in text
        assert " n0 " not in text
        assert "1 in progress, 1 failed" in text
        terminal.finish()
        assert re.search(r"\bn0 +created", terminal.text)
        assert terminal.screen.cursor.hidden is False


@pytest.mark.parametrize(("rows", "columns"), [(1, 20), (2, 10), (5, 40)])
def test_a_tiny_terminal_is_enough(rows: int, columns: int) -> None:
    with Terminal(rows=rows, columns=columns) as terminal:
        terminal.send(begin_stack(), *(begin("create", f"n{i}") for i in range(20)), say("x", about="n1"))
        terminal.send(*finish({"create": 20}))
        assert terminal.finish() == 0


@pytest.mark.parametrize("ending", ["close", "crash"])
def test_the_terminal_is_given_back_however_it_ends(ending: str) -> None:
    with Terminal() as terminal:
        terminal.send(begin_stack(), begin("create", "node"))
        terminal.wait_for(lambda lines: any("creating" in line for line in lines))
        assert terminal.screen.cursor.hidden
        if ending == "crash":
            terminal.type("crash\n")
        assert terminal.finish() == (1 if ending == "crash" else 0)
        assert terminal.screen.cursor.hidden is False
        assert "creating (interrupted)" in terminal.text


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"CI": "true"}])
def test_where_the_cursor_cannot_or_should_not_move_lines_are_plain(env: dict[str, str]) -> None:
    with Terminal(env=env) as terminal:
        terminal.send(begin_stack(), begin("create", "node"), end("create", "node"), *finish({"create": 1}))
        terminal.finish()
        assert not re.search(rb"\x1b\[\?25l|\x1b\[\d*A", terminal.written)
        assert squeezed(terminal.lines)[2].startswith("+ openstack:compute:Instance node creating")


def test_no_color_leaves_the_tree_without_colours() -> None:
    events = [begin_stack(), begin("create", "node"), end("create", "node"), *finish({"create": 1})]
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal(env=env) as terminal:
            terminal.send(*events)
            terminal.finish()
            assert bool(re.search(rb"\x1b\[[0-9;]*m", terminal.written)) is coloured


def test_the_cost_of_a_frame_is_what_fits_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    resources, height, rendered = 3000, 30, 0

    def counted(model: Model, row: Row, *, live: bool) -> Cells:
        nonlocal rendered
        rendered += 1
        return cells(model, row, live=live)

    monkeypatch.setattr(cli.display.tree, "cells", counted)
    monkeypatch.setenv("LINES", str(height))
    console = open_console(io.StringIO(), color="never", interactive=True)
    display = TreeDisplay(Model(Options("dev", "lab")), console)
    display(begin_stack())
    for index in range(resources):
        display(begin("create", f"n{index}"))
        display(end("create", f"n{index}"))
        if index % 100 == 0:
            display.draw()
    frames = display.frames
    assert frames >= 30
    assert rendered <= frames * height
    rendered = 0
    display.close()
    # The drawing thread may have added a frame since.
    assert resources + 1 <= rendered <= resources + 1 + (display.frames - frames) * height


def test_events_do_not_draw_frames_the_clock_does() -> None:
    display = TreeDisplay(Model(Options("dev", "lab")), open_console(io.StringIO(), color="never", interactive=True))
    began = time.monotonic()
    for index in range(2000):
        display(begin("create", f"n{index}", SERVER))
    display.close()
    assert display.frames <= (time.monotonic() - began) * FRAMES_PER_SECOND + 1


def test_folding_costs_the_same_for_each_event() -> None:
    model = Model(Options("dev", "lab"))
    model.apply(begin_stack())
    parents = [urn("lab-dev", "pulumi:pulumi:Stack")]
    for index in range(50):
        model.apply(begin("create", f"n{index}", new=state(f"n{index}", parent=parents[-1])))
        parents.append(urn(f"n{index}"))
    assert model.shown == 51
    assert [branch for branch, _ in model.tree()] == ["", *("   " * index + "└─ " for index in range(50))]


def test_children_that_come_before_their_parent_hang_below_it() -> None:
    model = Model(Options("dev", "lab", kind="destroy"))
    parent = urn("cluster", "lab:Cluster")
    model.apply(begin_stack("delete"))
    model.apply(begin("delete", "node", old=state("node", parent=parent)))
    model.apply(begin("delete", "other"))
    model.apply(begin("delete", "cluster", "lab:Cluster"))
    assert [(branch, row.urn.name) for branch, row in model.tree()] == [
        ("", "lab-dev"),
        ("├─ ", "cluster"),
        ("│  └─ ", "node"),
        ("└─ ", "other"),
    ]


def test_parents_that_go_in_circles_do_no_harm() -> None:
    model = Model(Options("dev", "lab"))
    model.apply(begin("create", "a", new=state("a", parent=urn("b"))))
    model.apply(begin("create", "b", new=state("b", parent=urn("a"))))
    model.apply(begin("create", "c", new=state("c", parent=urn("c"))))
    assert {row.urn.name for _, row in model.tree()} == {"lab-dev", "a", "b", "c"}
