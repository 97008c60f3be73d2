"""`lab ci images`: what has changed of the bundle is built, signed, and brought to the cluster and to Git."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import LabError
from cli.git_command import configured, git
from cli.session import ROOT
from infra.naming import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bundle.store import Artifact
    from cli.forge import Forge, Job
    from cli.session import Session

BRANCH = "images"
"""Of the pull request; there is one."""
MAIN = "main"
FILES = ("bundle/manifest.lock", "bundle/signatures.json", "k8s/images/kustomization.yaml")
TITLE = "Images: what their sources say"
CLUSTER = "ansible:KubernetesCluster"
NAME = {"NAME": "lab", "EMAIL": "lab@lab.internal"}
HELPER = '!f() { echo username=x-access-token; echo "password=$LAB_GIT_TOKEN"; }; f'
PACKAGES_SHOWN = 20


def update(session: Session, stack: str, job: Job, forge: Forge) -> None:
    """Build, sign and push what has changed; open or update the pull request with the new digests.

    Raises:
        LabError: git, the forge or a node refuses.
        BundleError: something could not be built, or there is a key that cannot sign.
    """
    from bundle.cli import KEY, sign_images, signing_key
    from cli.provision import cluster_of

    signer = signing_key()
    if cluster_of(session, stack).image_keys and signer is None:
        raise LabError(
            "cluster.imageKeys is set, and there is no key to sign with", remedy=f"give this job the secret {KEY}"
        )
    bundle = Path(cluster_of(session, stack).bundle).expanduser()
    changes = build(session, stack, bundle)
    if signer is not None:
        names = sign_images(bundle, signer)
        print(f"Signed {', '.join(names)}." if names else "All images are signed.")
    if not _git("status", "--porcelain", "--", *FILES):
        print("Git has these images already.")
        return
    feed(session, stack)
    commit(job)
    number, new = forge.put_pull_request(BRANCH, MAIN, TITLE, describe(changes))
    print(f"{'Opened' if new else 'Updated'} pull request {number}.")


def build(session: Session, stack: str, bundle: Path) -> list[tuple[Artifact | None, Artifact]]:
    """Build what the bundle lacks, and write manifest.lock and k8s/images; return images, before and after.

    Raises:
        BundleError: something could not be fetched or built; the next run continues from there.
    """
    import json

    from bundle.lock import LOCK, Lock
    from bundle.manifest import load
    from bundle.store import Store
    from cli.provision import families_of, provide_bundle
    from infra.manifests import IMAGES, pinned

    provide_bundle(session, stack)
    manifest, inventory = load(), Store(bundle).inventory()
    lock = Lock(inventory.architecture)
    wanted = manifest.paths(families_of(session, stack, manifest))
    changed = lock.outdated([one for one in inventory.artifacts if one.path in wanted])
    images = [(lock.before(one), one) for one in changed if one.kind == "image"]
    if changed:
        lock.record(changed, manifest.paths(manifest.families))
    IMAGES.write_text(pinned(json.loads(LOCK.read_text())))
    return images


def feed(session: Session, stack: str) -> None:
    """Bring the bundle's images and their signatures to the registry of the stack's cluster, if it has one.

    Nodes are logged in to with the stack's key for as long as that takes: the registry is written to from within the
    control planes alone, and has no login of its own.

    Raises:
        LabError: a node refuses.
    """
    from infra.kubernetes.inventory import control_planes, play

    props = _cluster(session, stack)
    if props is None:
        print(f"Stack '{stack}' has no cluster yet: `lab up` brings it the images.")
        return
    nodes = [{**node, **props["servers"][node["host"]]} for node in props["machines"]]
    try:
        play("images", props, control_planes(nodes))
    except RuntimeError as error:
        raise LabError(f"the cluster's registry did not get the images: {error}") from None


def _cluster(session: Session, stack: str) -> dict[str, Any] | None:
    """What the state has of the stack's cluster."""
    from engine.state import Codec
    from engine.values import reveal

    deployment = session.backend.load(session.project.name, stack).get("deployment") or {}
    found = [one for one in deployment.get("resources") or () if one["type"].endswith(CLUSTER) and one.get("id")]
    if session.project.name != PROJECT or not found:
        return None
    codec = Codec(session.state_secrets(stack))
    return {key: reveal(codec.decode_value(value)) for key, value in found[0]["outputs"].items()}


def commit(job: Job) -> None:
    """Put the files on the branch of the pull request, on the commit that is checked out.

    Raises:
        LabError: git refuses.
    """
    place = f"{os.environ.get('GITHUB_SERVER_URL', '')}/{job.repository}"
    secret = {"LAB_GIT_TOKEN": job.token, **configured({"credential.helper": HELPER})}
    _git("add", "--", *(name for name in FILES if Path(ROOT, name).exists()))
    # The same content gives the same commit: a push that changes nothing takes no approval away.
    date = _git("show", "--no-patch", "--format=%cI", "HEAD")
    who = {
        f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in {**NAME, "DATE": date}.items()
    }
    _git("commit", "--quiet", "--no-verify", "--message", TITLE, environment=who)
    _git("push", "--quiet", "--force", place, f"HEAD:refs/heads/{BRANCH}", environment=secret)


def describe(changes: list[tuple[Artifact | None, Artifact]]) -> str:
    """The text of the pull request: each image, its digests, and which packages differ."""
    intro = (
        "A job has built these images from the sources on the main branch, and brought them to the cluster's registry. "
        "The merge deploys them."
    )
    lines = [intro, "", "| image | before | after | packages that differ |", "|---|---|---|---|"]
    for before, after in changes:
        old = f"`{(before.digest or '')[7:19]}`" if before else "none"
        lines.append(
            f"| {after.name} {after.version} | {old} | `{(after.digest or '')[7:19]}` | {_differ(before, after)} |"
        )
    if not changes:
        lines = ["The images are those that Git has. What differs is their signatures, or how they are named."]
    return "\n".join(lines) + "\n"


def _differ(before: Artifact | None, after: Artifact) -> str:
    if before is None:
        return ""
    old, new = ({**one.packages, **one.wheels} for one in (before, after))
    rows = [
        f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    more = [f"and {len(rows) - PACKAGES_SHOWN} more"] if len(rows) > PACKAGES_SHOWN else []
    return "<br>".join([*rows[:PACKAGES_SHOWN], *more])


def _git(*words: str, environment: Mapping[str, str] | None = None) -> str:
    """Output of git in the checkout.

    Raises:
        LabError: it failed.
    """
    done = git(ROOT, *words, environment=environment)
    if done.returncode:
        raise LabError(
            f"git {words[0]} failed: {done.stderr.strip()[-500:]}",
            remedy="the job's token may lack the permission to write to the repository: see docs/how-to/images.md",
        )
    return done.stdout.strip()
