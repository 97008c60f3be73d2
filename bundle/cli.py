"""`lab bundle`: every program and image of a cluster, in one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bundle.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from bundle.manifest import Manifest
    from bundle.store import Inventory

app = typer.Typer(
    name="bundle",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Every program and image of a cluster, in one folder for use without internet.",
)
DEFAULT = Path("~/.cache/ml-cluster/bundle")
DEFAULT_CACHE = Path("~/.cache/ml-cluster")
KEY = "LAB_IMAGE_KEY"
"""Variable with the text of the key that signs images."""
Folder = Annotated[Path, typer.Option("--bundle", envvar="LAB_BUNDLE", help="Folder of the bundle.")]


@app.command()
def build(
    bundle: Folder = DEFAULT,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="FAMILY", help="Build only this family; repeatable. Default: all."),
    ] = None,
    existing: Annotated[Path | None, typer.Option("--from", metavar="DIR", help="Another bundle to copy from.")] = None,
    releases: Annotated[bool, typer.Option(help="Use publishers' releases if they can be reached.")] = True,
    cache: Annotated[Path, typer.Option(help="Folder for the compiler and caches.")] = DEFAULT_CACHE,
    update_lock: Annotated[
        bool,
        typer.Option("--update-lock", help="Build with Debian's newest packages, and update manifest.lock."),
    ] = False,
) -> None:
    """Copy, download or build what the bundle lacks. After an interruption, run it again to continue."""
    from bundle.build import Builder
    from bundle.manifest import load
    from bundle.store import Store
    from terminal.progress import Stages

    manifest = load()
    if unknown := [name for name in only or [] if name not in manifest.families]:
        raise BundleError(
            f"unknown family {', '.join(unknown)}", remedy=f"choose from: {', '.join(sorted(manifest.families))}"
        )
    families = only or [name for name, family in manifest.families.items() if not family.optional]
    if existing:
        Store(existing).inventory()
    with Stages(f"Bundle in {bundle}") as stages:
        builder = Builder(
            manifest, Store(bundle), stages, cache=cache.expanduser(),
            existing=Store(existing) if existing else None, releases=releases and not update_lock,
        )  # fmt: skip
        try:
            inventory = builder.build(families, renew=update_lock)
        except KeyboardInterrupt:
            typer.echo("interrupted: `lab bundle build` continues", err=True)
            raise typer.Exit(130) from None
    for note in builder.notes:
        print(f"note: {note}")
    _print_parts(manifest, inventory, builder.seconds)
    size = sum(artifact.size for artifact in inventory.artifacts)
    print(f"{len(inventory.artifacts)} artifacts, {size / 1e9:.2f} GB, in {bundle}")


def _print_parts(manifest: Manifest, inventory: Inventory, seconds: Mapping[str, float]) -> None:
    """Say what each part of a bundle, the cluster and capabilities of a platform, adds to its size, and took now."""
    from terminal.text import duration

    for group in dict.fromkeys(family.group for family in manifest.families.values()):
        of = {name for name, family in manifest.families.items() if family.group == group}
        if held := [artifact.size for artifact in inventory.artifacts if artifact.family in of]:
            took = sum(seconds.get(name, 0) for name in of)
            made = f", made in {duration(took)}" if took >= 1 else ""
            print(f"{group}: {len(held)} artifacts, {sum(held) / 1e6:.0f} MB{made}")


@app.command()
def verify(bundle: Folder = DEFAULT) -> None:
    """Verify every file of the bundle against the inventory and manifest.lock."""
    from bundle.lock import Lock
    from bundle.store import REMEDY, Store

    store = Store(bundle)
    inventory = store.inventory()
    problems = store.problems()
    lock = Lock(inventory.architecture)
    for artifact in inventory.artifacts:
        try:
            lock.check(artifact)
        except BundleError as error:
            problems.append(str(error))
    if problems:
        raise BundleError("\n".join(problems), remedy=f"run {REMEDY}")
    print(f"{len(inventory.artifacts)} artifacts match the inventory and the lock")


@app.command()
def sign(
    bundle: Folder = DEFAULT,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"PEM file of an Ed25519 key. Default: ${KEY} or ${KEY}_FILE.")
    ] = None,
) -> None:
    """Sign the images and their bills of materials: write bundle/signatures.json, for Git and for registries."""
    from bundle.signatures import public_key

    if (signer := signing_key(key)) is None:
        raise BundleError("there is no key to sign with", remedy=f"give --key FILE, or the key's text in ${KEY}")
    signed = sign_images(bundle, signer)
    print(f"Signed {', '.join(signed)}." if signed else "All images are signed already.")
    print(f"Nodes take them with the setting cluster.imageKeys: [{public_key(signer)}]")


def signing_key(file: Path | None = None) -> Ed25519PrivateKey | None:
    """The key in a file, else in the variable `KEY`, else in the file that LAB_IMAGE_KEY_FILE names; None without any.

    The variable is removed, because programs that are started later do not need it.

    Raises:
        BundleError: it cannot be read, or is not an Ed25519 key without a password.
    """
    from bundle.signatures import load_key

    text, path = os.environ.pop(KEY, ""), file or os.environ.get(f"{KEY}_FILE", "")
    if file or (path and not text):
        try:
            text = Path(path).expanduser().read_text()
        except OSError as error:
            raise BundleError(f"the key {path} cannot be read: {error.strerror}") from None
    return load_key(text) if text else None


def sign_images(bundle: Path, key: Ed25519PrivateKey) -> list[str]:
    """Sign what is not signed, and put the signatures into the bundle; return the names of the images."""
    from bundle import signatures
    from bundle.files import exclusive
    from bundle.lock import digests
    from bundle.store import Store

    store = Store(bundle)
    with exclusive(store.root):
        signed = signatures.sign(store, key, digests())
        signatures.attach(store, store.inventory())
    return signed


@app.command()
def resolve() -> None:
    """Resolve the images' Python packages: write images/*/requirements.txt from requirements.in."""
    from bundle import layers
    from bundle.manifest import load
    from bundle.processes import Tools
    from terminal.progress import Stages

    with Stages("Python packages of images") as stages, stages.stage("Resolve") as stage:
        layers.resolve(load(), Tools(), stage.wait_for)


@app.command("manifests")
def write_manifests(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one that this command has written.")],
    bundle: Folder = DEFAULT,
) -> None:
    """Write k8s/ and the cluster's add-ons to DIR, complete with files of the bundle: for kubectl, or for Git."""
    from bundle.store import REMEDY, Store
    from infra.manifests import IMAGES, TREE, pinned, required, write_addons, write_tree

    store = Store(bundle)
    artifacts = store.inventory().artifacts
    files = {one.name: one for one in artifacts if one.kind == "manifest" and store.holds(one)}
    images = {one.name: one for one in artifacts if one.kind == "image"}
    run, patched = required()
    if missing := sorted([*(run - images.keys()), *(patched - files.keys())]):
        raise BundleError(f"the bundle in {store.root} lacks {', '.join(missing)}", remedy=REMEDY)
    of_tree = IMAGES.relative_to(TREE)
    if target.exists() and any(target.iterdir()) and not Path(target, of_tree).exists():
        raise BundleError(f"{target} is not empty", remedy="use a folder that does not exist yet")
    if target.resolve().is_relative_to(TREE):
        raise BundleError(f"{target} is inside {TREE}", remedy="use a folder outside it")
    paths = {name: store.root / one.path for name, one in files.items()}
    write_tree(target, paths)
    write_addons(target / "addons", paths, {name: one.version for name, one in images.items()})
    Path(target, of_tree).write_text(pinned({"": [one.model_dump() for one in images.values()]}))
    profiles = ", ".join(sorted(path.name for path in Path(target, "clusters").iterdir()))
    print(f"kubectl apply --server-side -k {target}/clusters/PROFILE, one of {profiles}; see {target}/README.md")


@app.command("ls")
def list_artifacts(bundle: Folder = DEFAULT) -> None:
    """List the contents of the bundle."""
    from bundle.store import Store

    print(f"{'NAME':<26}{'VERSION':<10}{'FAMILY':<21}{'KIND':<9}{'SIZE':>9}  {'SHA-256':<14}SOURCE")
    for artifact in Store(bundle).inventory().artifacts:
        print(
            f"{artifact.name:<26}{artifact.version:<10}{artifact.family:<21}{artifact.kind:<9}"
            f"{artifact.size / 1e6:>6.1f} MB  {artifact.sha256[:12]}  {artifact.source}"
        )


@app.command()
def push(
    registry: Annotated[str, typer.Argument(help="The registry: HOST[:PORT][/PREFIX].")],
    bundle: Folder = DEFAULT,
    tls: Annotated[bool, typer.Option(help="Verify the registry's certificate; --no-tls for plain HTTP.")] = True,
) -> None:
    """Copy the bundle's images to a registry, with the credentials of `skopeo login`."""
    from bundle import debian, images
    from bundle.processes import Tools
    from bundle.store import REMEDY, Store
    from terminal.progress import Stages

    store, tools = Store(bundle), Tools()
    if problems := store.problems():
        raise BundleError("\n".join(problems), remedy=f"run {REMEDY}")
    with Stages(f"Images to {registry}") as stages:
        if debian.missing(["skopeo"]):
            with stages.stage("Tools") as stage:
                debian.provide(["skopeo"], tools, stage.wait_for)
        for artifact in store.inventory().artifacts:
            for image in (f"{artifact.name}:{tag}" for tag in artifact.tags):
                with stages.stage(image, waiting_for=registry):
                    images.push(store.root / artifact.path, f"localhost/{image}", f"{registry}/{image}", tools, tls=tls)
