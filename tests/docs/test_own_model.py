"""The how-tos of an own model, and of GitOps under another domain: their commands in a copy, and what comes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import kubeyaml
from infra.manifests import TREE, qualified_name
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


def test_an_own_model_stands_beside_the_example(tmp_path: Path) -> None:
    made = {f"{one['kind']} {qualified_name(one)}": one for one in followed("own-model.md", tmp_path)}
    for model in ("digits", "wines"):
        for stage in ("staging", "canary", "production"):
            server = made[f"Deployment serving/{model}-{stage}"]
            assert server["metadata"]["labels"]["ml-cluster.dev/model"] == model
            assert server["metadata"]["labels"]["ml-cluster.dev/alias"] == stage
            of_pods = server["spec"]["template"]["metadata"]["labels"].items()
            assert server["spec"]["selector"]["matchLabels"].items() <= of_pods
            selector = made[f"Service serving/{model}-{stage}"]["spec"]["selector"]
            assert selector.items() <= of_pods
            assert selector["app"] == model
        warm = made[f"Deployment serving/{model}-warm"]
        assert warm["metadata"]["labels"]["ml-cluster.dev/warm"] == "production"
        (host,) = made[f"HTTPRoute serving/{model}"]["spec"]["hostnames"]
        assert host == f"{model}.lab.internal"
    command = [str(program("kubernetes", "kubectl")), "kustomize", str(tmp_path / "k8s/models/wines/training/base")]
    run = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (job,) = [one for one in kubeyaml.read_documents(run) if one["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "-m", "wines"]
    assert container["image"].startswith("localhost/wines")
    assert "digits" not in run.replace("DIGITS_RESULT", "")


def test_another_domain_is_everywhere(tmp_path: Path) -> None:
    made = followed("gitops.md", tmp_path)
    hosts = {host for one in made if one["kind"] == "HTTPRoute" for host in one["spec"]["hostnames"]}
    assert "tracking.ml.example.org" in hosts
    assert "lab.internal" not in yaml.safe_dump_all(made)
