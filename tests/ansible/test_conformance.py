"""Kubernetes' own conformance tests on a cluster of ours: `pytest -m slow_cloud tests/ansible/test_conformance.py`.

With `--kubernetes-conformance docs/reference/kubernetes-conformance.md` it writes what came of them. Needs the bundle's
family `conformance`, and takes half an hour of two cores.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from tests.ansible.conftest import BUNDLE, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ansible.conftest import Machines

pytestmark = [pytest.mark.slow_cloud, pytest.mark.thorough, pytest.mark.timeout(3600)]
VERSION = "v1.37.2"
PROGRAMS = BUNDLE / "bin/conformance" / VERSION
MINUTES = 20
PROCESSES = 6
# Where the tests look for the images that the bundle has.
REGISTRIES = {"promoterE2eRegistry": "localhost", "gcRegistry": "localhost"}

LEFT_OUT = {
    "takes minutes by itself": ["\\[Slow\\]"],
    "needs the image sample-apiserver": ["Should be able to support the 1.17 Sample API Server"],
    "needs the image kitten": ["ImageVolume"],
    "needs the image nautilus": [
        "should create and stop a replication controller",
        "should scale a replication controller",
    ],
    "needs the image nonewprivs": ["should not allow privilege escalation when false"],
    "needs the image glibc-dns-testing": ["\\[sig-network\\] DNS should (provide|resolve)"],
}
"""Tests that are not tried, by the reason; parts of their names."""
EXPLAINED = {
    "[sig-node] ConfigMap should be consumable": "agnhost's shell here is bash, which drops variables such as `data-1`",
    "[sig-node] Secrets should be consumable": "agnhost's shell here is bash, which drops variables such as `data-1`",
    "should allow server and client pods to establish an mTLS connection": (
        "pulls agnhost anew by Kubernetes' tag; the cluster's registry has it by the bundle's"
    ),
}
"""Tests that fail, by a part of their name, and why."""


class Spec(NamedTuple):
    """What came of a conformance test."""

    name: str
    state: str
    why: str

    @property
    def group(self) -> str:
        """The Kubernetes group that owns it."""
        found = re.match(r"\[(sig-[\w-]+)\]", self.name)
        return found[1] if found else "others"

    @property
    def left_out(self) -> str | None:
        """Why it was not tried."""
        return next((why for why, parts in LEFT_OUT.items() if any(re.search(part, self.name) for part in parts)), None)

    @property
    def explained(self) -> str | None:
        """Why it is known to fail."""
        return next((why for part, why in EXPLAINED.items() if part in self.name), None)


def specs(report: Path) -> list[Spec]:
    """The conformance tests of Ginkgo's report."""
    (suite,) = json.loads(report.read_text())
    found = []
    for entry in suite["SpecReports"]:
        name = " ".join([*(entry["ContainerHierarchyTexts"] or []), entry["LeafNodeText"]])
        if entry["LeafNodeType"] == "It" and "[Conformance]" in name:
            why = entry.get("Failure", {}).get("Message", "")
            # One that a filter has left out, or that had not begun or not ended at the end, says nothing.
            untold = entry["State"] in {"skipped", "pending"} and not why
            state = "not tried" if untold or "suite timeout" in why else entry["State"]
            found.append(Spec(name, state, why))
    return found


def table(found: list[Spec], seconds: float) -> str:
    """The counts, what was left out and what failed, for people."""
    columns = {"passed": "passed", "failed": "failed", "skipped": "skipped", "not tried": "not tried"}
    rows = []
    for group in [*sorted({spec.group for spec in found}), "all"]:
        counts = Counter(columns.get(spec.state, "failed") for spec in found if group in {spec.group, "all"})
        rows.append(f"| {group} | " + " | ".join(str(counts[column]) for column in columns.values()) + " |")
    parts = [HEADER.format(version=VERSION, minutes=MINUTES, took=seconds / 60, processes=PROCESSES), *rows]
    parts += ["", "## Failed", ""]
    parts += [f"- {spec.name}: {spec.explained or spec.why.splitlines()[0]}" for spec in found if failed(spec)] or [
        "None."
    ]
    parts += ["", "## Skipped by the tests themselves", ""]
    parts += [f"- {spec.name}: {spec.why.splitlines()[0]}" for spec in found if spec.state == "skipped"] or ["None."]
    parts += ["", "## Not tried", ""]
    untried = [spec for spec in found if spec.state == "not tried"]
    parts += [f"- {spec.name}: {spec.left_out or 'the time was over'}" for spec in untried] or ["None."]
    return "\n".join(parts) + "\n"


HEADER = """\
# Kubernetes' conformance tests

Written by `pytest -m slow_cloud tests/ansible/test_conformance.py --kubernetes-conformance FILE`; do not edit.

All tests that Kubernetes {version} marks as conformance tests, built from its own module
(`k8s.io/kubernetes/test/e2e`), on a cluster of one control plane and two workers that are containers of devcloud:
{processes} at a time, for {minutes} minutes at most; these took {took:.0f}. Their images come from the bundle (agnhost,
busybox, pause); tests that need another one are not tried. A certified cluster passes all of them: this is no
certificate.

| group | passed | failed | skipped | not tried |
|---|---|---|---|---|"""


def failed(spec: Spec) -> bool:
    """Whether it was tried and did not pass."""
    return spec.state not in {"passed", "skipped", "not tried"}


def completed(archive: Path, target: Path) -> None:
    """A copy of the bundle's agnhost that has what Kubernetes' own has: a certificate for localhost, a shell without
    an `nc` of its own.
    """
    work = target.with_suffix("")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    certificate = ("-keyout", "localhost.key", "-out", "localhost.crt", "-subj", "/CN=localhost", "-days", "30")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *certificate], check=True, cwd=work)
    with tarfile.open(work / "layer", "w") as tar:
        for name in ("localhost.key", "localhost.crt"):
            (work / name).chmod(0o644)
            tar.add(work / name, name)
        shell = tarfile.TarInfo("bin/sh")
        shell.type, shell.linkname = tarfile.SYMTYPE, "bash"
        tar.addfile(shell)

    def stored(content: bytes) -> dict[str, Any]:
        digest = sha256(content).hexdigest()
        (work / "blobs/sha256" / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def read(descriptor: dict[str, Any]) -> Any:
        return json.loads((work / "blobs" / descriptor["digest"].replace(":", "/")).read_text())

    index = json.loads((work / "index.json").read_text())
    manifest = read(index["manifests"][0])
    config = read(manifest["config"])
    layer = stored((work / "layer").read_bytes())
    config["rootfs"]["diff_ids"].append(layer["digest"])
    config["history"].append({"created_by": "certificate"})
    manifest["layers"].append({"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer})
    manifest["config"] |= stored(json.dumps(config).encode())
    described = stored(json.dumps(manifest).encode())
    index["manifests"] = [entry | described for entry in index["manifests"]]
    (work / "index.json").write_text(json.dumps(index))
    with tarfile.open(target, "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(work / name, name)


def bring_images(cluster: Cluster) -> None:
    """Import the tests' images on every node."""
    agnhost = cluster.folder / "agnhost.tar"
    completed(BUNDLE / "images" / f"agnhost_{VERSION}.tar", agnhost)
    archives = [str(agnhost), str(BUNDLE / "images" / f"busybox_{VERSION}.tar")]
    plays: list[dict[str, Any]] = [
        {
            "hosts": "control_plane:workers",
            "gather_facts": False,
            "become": True,
            "tasks": [
                {"ansible.builtin.copy": {"src": "{{ item }}", "dest": "/opt/", "mode": "0644"}, "loop": archives},
                {
                    "ansible.builtin.command": "ctr --namespace k8s.io images import /opt/{{ item | basename }}",
                    "loop": archives,
                },
            ],
        }
    ]
    playbook = cluster.folder / "images.yml"
    playbook.write_text(yaml.safe_dump(plays))
    cluster.ok(playbook)


@pytest.fixture(scope="module")
def cluster(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    hosts = machines.boot("c0", "w0", "w1")
    made = Cluster(machines, tmp_path_factory.mktemp("cluster"), {"c0": hosts.pop("c0")}, hosts)
    made.ok("site")
    bring_images(made)
    return made


def test_kubernetes_conformance_tests_pass(
    cluster: Cluster, tmp_path: Path, pytestconfig: pytest.Config, figure: Callable[[str], None]
) -> None:
    registries = tmp_path / "registries.yaml"
    registries.write_text(yaml.safe_dump(REGISTRIES))
    left_out = [f"--skip={part}" for parts in LEFT_OUT.values() for part in parts]
    began = time.monotonic()
    with (tmp_path / "output").open("w") as output:
        subprocess.run(
            [
                PROGRAMS / "ginkgo", f"--procs={PROCESSES}", f"--timeout={MINUTES}m", "--no-color",
                "--focus=\\[Conformance\\]", *left_out,
                f"--output-dir={tmp_path}", "--json-report=report.json", PROGRAMS / "e2e.test", "--",
                f"--kubeconfig={cluster.kubeconfig}", f"--kubectl-path={BUNDLE}/bin/kubernetes/{VERSION}/kubectl",
                "--provider=skeleton", "--disable-log-dump",
            ],
            check=False, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT,
            env={"PATH": os.defpath, "HOME": str(tmp_path), "KUBE_TEST_REPO_LIST": str(registries)},
        )  # fmt: skip
    seconds = time.monotonic() - began
    found = specs(tmp_path / "report.json")
    result = table(found, seconds)
    if target := pytestconfig.getoption("--kubernetes-conformance"):
        target.write_text(result)
    counts = Counter(spec.state for spec in found)
    figure(f"conformance tests of Kubernetes {VERSION}: {dict(counts)} in {seconds / 60:.1f} min")
    unexplained = [f"{spec.name}: {spec.why}" for spec in found if failed(spec) and not spec.explained]
    assert counts["passed"] > 0
    assert unexplained == [], (tmp_path / "output").read_text()[-3000:]
