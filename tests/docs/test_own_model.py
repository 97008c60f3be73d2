"""The how-to of an own model, in a copy; that of GitOps under another domain, and what comes of its commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import kubeyaml
from cli import own_models
from infra.manifests import TREE
from services.training.settings import Data, Inputs, Model
from tests.cli.harness import ROOT
from tests.docs.pages import blocks
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow_cluster
LAB = """
    import sys
    from pathlib import Path
    from infra import manifests
    manifests.TREE = Path("k8s")
    assert sys.argv[1:3] == ["bundle", "manifests"]
    manifests.write_tree(Path(sys.argv[3]), {})
"""
NAME = "tests/docs/test_own_model.py"


def followed(page: str, folder: Path) -> list[dict[str, Any]]:
    """The objects that the last command of a page's block prints, after those before it."""
    shutil.copytree(TREE, folder / "k8s")
    # `lab bundle manifests` of this copy, without a bundle.
    lab = folder / "lab"
    lab.write_text(f"#!{sys.executable}\n{textwrap.dedent(LAB)}")
    lab.chmod(0o755)
    (block,) = [one for one in blocks(ROOT / "docs" / "how-to" / page) if NAME in one.marks.get("tested-by", "")]
    script = "\n".join(line for line, _ in block.lines)
    path = f"{program('kubernetes', 'kubectl').parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return kubeyaml.read_documents(done.stdout)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the models' folders."""
    for folder in ("models", "k8s"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(own_models, "ROOT", tmp_path)
    return tmp_path


def test_the_page_of_an_own_model_shows_what_the_commands_say(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/how-to/own-model.md").read_text()
    own_models.new("wines")
    assert capsys.readouterr().out in page
    own_models.list_models()
    assert capsys.readouterr().out.rstrip() in page
    own_models.sync(check=False)
    assert capsys.readouterr().out in page
    assert (copy / "models/wines/wines.py").exists()


def test_the_page_names_every_setting_and_every_function() -> None:
    page = (ROOT / "docs/how-to/own-model.md").read_text()
    for name in Model.model_fields:
        assert re.search(rf"^\| `{name}\b", page, re.MULTILINE), name
    for inner in (*(f"data.{name}" for name in Data.model_fields), *(f"inputs.{name}" for name in Inputs.model_fields)):
        assert f"`{inner}`" in page, inner
    for function in ("train", "evaluate", "data", "faults", "log"):
        assert f"| `{function}(" in page, function


def test_another_domain_is_everywhere(tmp_path: Path) -> None:
    made = followed("gitops.md", tmp_path)
    hosts = {host for one in made if one["kind"] == "HTTPRoute" for host in one["spec"]["hostnames"]}
    assert "tracking.ml.example.org" in hosts
    assert "lab.internal" not in yaml.safe_dump_all(made)
