"""Streams that the Pulumi CLI recorded look as they did under the CLI.

The expected texts have the lines that the CLI printed for the same runs, but for three things: a stack that is not
registered yet is `running`, failed steps have a time, and keys that force a replacement are marked.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.display.stream import show

FIXTURES = Path(__file__).parent / "fixtures"


def recorded(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "kind", "dry_run"),
    [
        ("up-create", "update", False),
        ("preview-changes", "update", True),
        ("refresh", "refresh", False),
        ("destroy-failure", "destroy", False),
    ],
)
def test_progress_is_the_clis(name: str, kind: str, dry_run: bool) -> None:
    out, _ = show(recorded(name), kind=kind, dry_run=dry_run, project="conformance")
    lines = [line.rstrip() for line in re.sub(r"\((\d+\.)?\d+s\)", "(N)", out).splitlines()]
    assert lines == (FIXTURES / f"{name}.plain.txt").read_text().splitlines()


@pytest.mark.parametrize(("name", "dry_run"), [("preview-changes", True), ("up-changes", False)])
def test_diff_view_is_the_clis(name: str, dry_run: bool) -> None:
    out, errors = show(recorded(name), diff=True, dry_run=dry_run, project="conformance")
    assert [line.rstrip() for line in out.splitlines()] == (FIXTURES / f"{name}.diff.txt").read_text().splitlines()
    assert "warning: a warning" in errors


def test_default_providers_are_not_shown() -> None:
    events = recorded("up-create")
    assert any("pulumi:providers:testbed::default" in json.dumps(event) for event in events)
    for flags in ({}, {"diff": True}, {"json": True}):
        out, _ = show(events, project="conformance", **flags)
        assert '"urn":"urn:pulumi:dev::conformance::pulumi:providers:testbed::default"' not in out
        assert "pulumi:providers:testbed default" not in out
        assert "[urn=urn:pulumi:dev::conformance::pulumi:providers:testbed::default]" not in out
