"""The layout of Secrets is in one place: what makes them without Pulumi, and the documentation, are written from it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from infra import secret_layout
from infra.secret_layout import FORGE, FORGE_JOBS, MONITORED, PIPELINED, PLATFORM, Generated

if TYPE_CHECKING:
    from pathlib import Path

MONITORING_PASSWORDS = {"metadata-store-monitor", "tracking-monitor", "monitoring-admin"}
PIPELINES_PASSWORDS = {"pipelines-admin", "pipelines-database", "tracking-pipelines", "artifacts-pipelines"}


def test_the_generated_files_are_current() -> None:
    for path, content in secret_layout.files().items():
        assert path.read_text() == content, f"run `python -m infra.secret_layout`: {path} is not current"


@pytest.mark.parametrize("monitored", [True, False])
@pytest.mark.parametrize("pipelined", [True, False])
def test_passwords(monitored: bool, pipelined: bool) -> None:
    names = secret_layout.passwords(monitored=monitored, pipelined=pipelined)
    assert len(names) == len(set(names))
    parts = ((MONITORED, MONITORING_PASSWORDS, monitored), (PIPELINED, PIPELINES_PASSWORDS, pipelined))
    for _, own, there in parts:
        assert own & set(names) == (own if there else set())
    used = {
        content.password
        for layouts in (PLATFORM, *(layouts for layouts, _, there in parts if there))
        for layout in layouts.values()
        for content in layout.keys.values()
        if isinstance(content, Generated)
    }
    assert used - set(names) <= {name for _, own, there in parts if not there for name in own}


def test_the_script_fills_every_key_and_makes_every_secret(tmp_path: Path) -> None:
    """With a kubectl that notes what it is asked, on clusters with and without monitoring, pipelines and forge."""
    tool = tmp_path / "bin" / "kubectl"
    tool.parent.mkdir()
    tool.write_text(
        '#!/bin/sh\necho "$@" >> "$NOTES"\n'
        'case "$1 $2" in "get namespace") case " $NAMESPACES " in *" $3 "*) true ;; *) false ;; esac ;;\n'
        '"create secret") if [ "$3" = generic ]; then for f in "${7#--from-file=}"/* "${6#--from-file=}"/*; do\n'
        '[ -f "$f" ] && [ -s "$f" ] && echo "key $f" >> "$NOTES"; done; fi; true ;; *) cat > /dev/null ;; esac\n'
    )
    tool.chmod(0o755)
    with_monitoring = {**PLATFORM, **MONITORED}
    forge = {name: one for name, one in FORGE.items() if not name.startswith("monitoring/")}
    for namespaces, layouts in (
        ("", PLATFORM),
        ("monitoring", with_monitoring),
        (FORGE_JOBS, {**PLATFORM, **forge}),
        (f"monitoring {FORGE_JOBS}", {**with_monitoring, **FORGE}),
        ("monitoring pipelines", {**with_monitoring, **PIPELINED}),
    ):
        notes = tmp_path / f"notes-{namespaces.replace(' ', '-')}"
        environment = {"PATH": f"{tool.parent}:/usr/bin:/bin", "NOTES": str(notes), "NAMESPACES": namespaces}
        script = secret_layout.TREE / "secrets.sh"
        command = [str(script), "lab.example", "ada", "grace"]
        subprocess.run(command, env=environment, check=True, capture_output=True, cwd=tmp_path)
        noted = notes.read_text().splitlines()
        made = {line.removeprefix("key ") for line in noted if line.startswith("key ")}
        wanted = {f"{name.replace('/', '-')}/{key}" for name, layout in layouts.items() for key in layout.keys}
        assert wanted <= made
        for optional in ("monitoring", "pipelines"):
            assert optional in namespaces or not any(one.startswith(f"{optional}-") for one in made)
        users = {one.partition("/")[2] for one in made if one.startswith("platform-forge-users/")}
        assert users == ({"admin", "ada", "grace"} if FORGE_JOBS in namespaces else set())
