"""`lab ci images`: a changed source is built and signed, and one pull request brings its digest to Git.

The bundle's one image is real; the forge is a server that speaks its API, with a real Git repository beside it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra.settings import Cluster
from tests.bundle.conftest import HELLO, Copy, copy_code, make_key, public_key
from tests.cli.forge_server import REPOSITORY, TOKEN, Forge
from tests.cli.harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSPHRASE = "planted-passphrase"  # noqa: S105
SETTINGS = "config:\n  ml-cluster:cluster: {{bundle: {bundle}, imageKeys: {keys}}}\n"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  containers:
    - name: it
      image: localhost/hello
"""

CLUSTER = """
import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider

class Nothing(ResourceProvider):
    def create(self, props):
        return CreateResult("dev", props)

class KubernetesCluster(Resource, module="ansible", name="KubernetesCluster"):
    def __init__(self, name, props):
        super().__init__(Nothing(), name, props, pulumi.ResourceOptions(additional_secret_outputs=["private_key"]))

KubernetesCluster("kubernetes", {
    "name": "dev", "user": "root", "private_key": pulumi.Output.secret(open(KEY).read()),
    "machines": [{"host": "control-0", "role": "control-plane", "address": "127.0.0.1", "floating_ip": None}],
    "servers": {"control-0": {"server": "id-0"}}, "variables": {"cluster_bundle": BUNDLE},
})
"""
"""A program whose cluster is one machine, which does not answer SSH."""
KUBERNETES = f"""
  kubernetes:
    version: {Cluster().kubernetes_version}
    module: hello
    programs: {{kubeadm: .}}
"""


class Repository:
    """A checkout of the main branch as a job has it, beside a bundle."""

    def __init__(self, folder: Path, forge: Forge) -> None:
        self.folder, self.forge = folder, forge
        self.copy: Copy = copy_code(folder)
        self.tree = self.copy.tree
        self.remote = folder / f"{REPOSITORY}"
        self.key = make_key(folder / "images.pem")
        self.login = folder / "login"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.login], check=True)
        for name in ("Pulumi.yaml", "__main__.py", "pyproject.toml", "uv.lock", "lab"):
            (self.tree / name).write_bytes((ROOT / name).read_bytes())
        (self.tree / "k8s/hello.yaml").write_text(POD)
        self.settings([])
        self.remote.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.remote), at=folder)
        self.git("init", "--quiet", "--initial-branch=main", ".")
        self.save("the beginning")
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "OS_", "LAB_"))},
            **forge.environment,
            "GITHUB_SERVER_URL": f"file://{folder}",
            "PULUMI_BACKEND_URL": f"file://{folder}/backend",
            "PULUMI_HOME": str(folder / "pulumi"),
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_STACK": "dev",
        }
        (folder / "backend").mkdir()
        done = self.lab("stack", "init", "dev")
        assert done.returncode == 0, done.stderr

    def settings(self, keys: list[str]) -> None:
        text = SETTINGS.format(bundle=self.copy.bundle, keys=json.dumps(keys))
        (self.tree / "Pulumi.dev.yaml").write_text(text)

    def git(self, *words: str, at: Path | None = None) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@lab.internal"]
        done = subprocess.run(
            ["git", "-C", str(at or self.tree), *name, *words], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def save(self, message: str) -> None:
        """Have main as the checkout is."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        self.git("push", "--quiet", "--force", str(self.remote), "HEAD:refs/heads/main")

    def lab(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from cli.app import main; main()", "--non-interactive", *words]
        done = subprocess.run(
            command, cwd=self.tree, env={**self.env, **env}, check=False, capture_output=True, text=True
        )
        for planted in (TOKEN, PASSPHRASE, *(path.read_text().splitlines()[1] for path in (self.key, self.login))):
            assert planted not in done.stdout + done.stderr
        return done

    def job(self, *, signs: bool = True, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the workflow's step on a fresh checkout of main."""
        self.git("fetch", "--quiet", str(self.remote), "main")
        self.git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
        done = self.lab("ci", "images", **({"LAB_IMAGE_KEY": self.key.read_text()} if signs else {}))
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def proposed(self, name: str) -> Any:
        """A file of the pull request's branch."""
        return self.git("show", f"images:{name}", at=self.remote)

    def merge(self) -> None:
        """Merge the one pull request that is open."""
        (one,) = [pull for pull in self.forge.pulls if pull["state"] == "open"]
        self.git("update-ref", "refs/heads/main", "refs/heads/images", at=self.remote)
        self.forge.merge(one["number"], self.git("rev-parse", "main", at=self.remote))

    def change(self, text: str) -> None:
        """Have another source on main."""
        self.git("fetch", "--quiet", str(self.remote), "main")
        self.git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
        path = self.tree / "bundle/go/hello/main.go"
        path.write_text(path.read_text().replace("Println(version", f'Println("{text}", version'))
        self.save(text)


@pytest.fixture
def forge() -> Iterator[Forge]:
    with Forge() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path, forge: Forge) -> Repository:
    return Repository(tmp_path, forge)


def test_a_changed_source_comes_to_git_by_one_pull_request(repository: Repository, forge: Forge) -> None:
    told = repository.job().stdout
    assert "Signed hello." in told
    assert "Opened pull request" in told
    (pull,) = forge.pulls
    assert (pull["head"]["ref"], pull["base"]) == ("images", "main")
    image = next(one for one in repository.copy.inventory.artifacts if one.kind == "image")
    assert image.digest is not None
    assert f"| hello v1.2.3 | none | `{image.digest[7:19]}` |" in pull["body"]
    assert image.digest in repository.proposed("k8s/images/kustomization.yaml")
    assert image.digest in repository.proposed("bundle/manifest.lock")
    envelope = json.loads(repository.proposed("bundle/signatures.json"))[image.digest]
    assert image.digest[7:] in base64.b64decode(envelope["payload"]).decode()
    # Once more, as after a job that was killed at its end: the same commit, whose approvals stay.
    commit = repository.git("rev-parse", "images", at=repository.remote)
    assert "Updated pull request" in repository.job().stdout
    assert repository.git("rev-parse", "images", at=repository.remote) == commit
    assert len(forge.pulls) == 1
    # Main moves on: the one pull request follows.
    repository.change("further")
    repository.job()
    assert len(forge.pulls) == 1
    newer = next(one for one in repository.copy.inventory.artifacts if one.kind == "image").digest
    assert newer != image.digest
    assert newer in repository.proposed("k8s/images/kustomization.yaml")
    repository.merge()
    assert "Git has these images already." in repository.job().stdout
    assert len(forge.pulls) == 1
    # Signatures of what nobody names any more are gone.
    assert list(json.loads(repository.proposed("bundle/signatures.json"))) == [newer]


def test_without_a_key_images_are_not_signed_and_a_stack_that_wants_them_signed_says_so(
    repository: Repository, forge: Forge
) -> None:
    forge.pulls.append({"number": 1, "state": "open", "head": {"ref": "images", "repo": {"full_name": "fork/cluster"}}})
    assert "Opened pull request" in repository.job(signs=False).stdout
    assert json.loads(repository.proposed("bundle/signatures.json")) == {}
    repository.settings([public_key(repository.key)])
    repository.save("only signed images")
    refused = repository.job(signs=False, status=1).stderr
    assert "there is no key to sign with" in refused
    assert "give this job the secret LAB_IMAGE_KEY" in refused


def test_images_that_the_cluster_did_not_get_are_not_proposed(repository: Repository, forge: Forge) -> None:
    """The nodes, and the key that logs in to them, are those of the stack's state."""
    repository.copy.manifest(HELLO + KUBERNETES)
    constants = f"KEY, BUNDLE = {str(repository.login)!r}, {str(repository.copy.bundle)!r}\n"
    (repository.tree / "__main__.py").write_text(constants + CLUSTER)
    repository.save("a cluster")
    (repository.tree / ".venv").symlink_to(Path(sys.executable).parents[1])
    done = repository.lab("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    refused = repository.job(status=1).stderr
    assert "the cluster's registry did not get the images: images.yml failed:" in refused
    assert "control-0" in refused
    assert "cannot be reached" in refused
    assert not forge.pulls
