"""`lab extend`, as far as it goes without a cloud; tests/e2e extends a real lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.harness import Lab


def test_a_stack_without_a_lease_is_refused(dev: Lab) -> None:
    before = (dev.project / "Pulumi.dev.yaml").read_text()
    dev.refuse("extend", "2", "--yes", "--stack", "dev", status=1, saying="the stack has no lease with hours or an end")
    assert (dev.project / "Pulumi.dev.yaml").read_text() == before


@pytest.mark.parametrize(
    ("lease", "longer"),
    [("{hours: 8}", "hours: 10"), ("{end: '2026-12-01T18:00+01:00'}", "2026-12-01T20:00:00+01:00")],
)
def test_the_settings_are_changed_only_on_success(dev: Lab, lease: str, longer: str) -> None:
    file = dev.project / "Pulumi.dev.yaml"
    file.write_text(f"{file.read_text()}config:\n  demo:lease: {lease} # until the deadline\n")
    before = file.read_text()
    dev.write("raise pulumi.RunError('refused')")
    dev.run("extend", "2", "--yes", "--stack", "dev", status=1)
    assert file.read_text() == before
    dev.write()
    dev.run("extend", "2", "--yes", "--stack", "dev")
    assert longer in file.read_text()
    assert "# until the deadline" in file.read_text()
