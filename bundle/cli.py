"""`lab bundle`: every program and image of a cluster, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bundle.errors import BundleError

app = typer.Typer(
    name="bundle",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Every program and image of a cluster, in one folder that needs no internet.",
)
DEFAULT = Path("~/.cache/ml-cluster/bundle")
DEFAULT_CACHE = Path("~/.cache/ml-cluster")
Folder = Annotated[Path, typer.Option("--bundle", envvar="LAB_BUNDLE", help="The bundle's folder.")]


@app.command()
def build(
    bundle: Folder = DEFAULT,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="FAMILY", help="Get this; may be repeated. Default: all.")
    ] = None,
    existing: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A bundle to take from what the manifest wants.")
    ] = None,
    releases: Annotated[bool, typer.Option(help="Take publishers' releases where they can be reached.")] = True,
    cache: Annotated[Path, typer.Option(help="Where the compiler and its caches are.")] = DEFAULT_CACHE,
    update_lock: Annotated[
        bool,
        typer.Option("--update-lock", help="Build with Debian's newest packages, and record that in manifest.lock."),
    ] = False,
) -> None:
    """Get what is missing, from DIR, from publishers' releases, else by building. Goes on where it was interrupted."""
    from bundle.build import Builder
    from bundle.manifest import load
    from bundle.store import Store
    from terminal.progress import Stages

    manifest = load()
    if unknown := [name for name in only or [] if name not in manifest.families]:
        raise BundleError(
            f"there is no family {', '.join(unknown)}", remedy=f"choose of: {', '.join(sorted(manifest.families))}"
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
            typer.echo("interrupted: `lab bundle build` goes on from here", err=True)
            raise typer.Exit(130) from None
    for note in builder.notes:
        print(f"note: {note}")
    size = sum(artifact.size for artifact in inventory.artifacts)
    print(f"{len(inventory.artifacts)} artifacts, {size / 1e9:.2f} GB, in {bundle}")


@app.command()
def verify(bundle: Folder = DEFAULT) -> None:
    """Check every file of the bundle against its digest, and against manifest.lock."""
    from bundle.lock import Lock
    from bundle.store import REMEDY, Store

    store = Store(bundle)
    inventory = store.inventory()
    faults = store.faults()
    lock = Lock(inventory.architecture)
    for artifact in inventory.artifacts:
        try:
            lock.check(artifact)
        except BundleError as error:
            faults.append(str(error))
    if faults:
        raise BundleError("\n".join(faults), remedy=f"{REMEDY} makes good what it can")
    print(f"{len(inventory.artifacts)} artifacts are what the inventory and the lock say")


@app.command()
def resolve() -> None:
    """Choose the versions of images' Python packages: images/*/requirements.txt from requirements.in."""
    from bundle import layers
    from bundle.manifest import load
    from bundle.processes import Tools
    from terminal.progress import Stages

    with Stages("Python packages of images") as stages, stages.stage("Resolve") as stage:
        layers.resolve(load(), Tools(), stage.wait_for)


@app.command("manifests")
def write_manifests(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one that this wrote.")],
    bundle: Folder = DEFAULT,
) -> None:
    """Write k8s/ to DIR, with manifests and images' digests of the bundle: for kubectl, or for a controller's Git."""
    from bundle.store import REMEDY, Store
    from infra.manifests import IMAGES, THIRD_PARTY, TREE, images_named, pinned, write_tree

    store = Store(bundle)
    artifacts = store.inventory().artifacts
    given = {one.name: one for one in artifacts if one.kind == "manifest" and store.holds(one)}
    images = {one.name: one for one in artifacts if one.kind == "image"}
    if missing := sorted([*(set(images_named()) - images.keys()), *(THIRD_PARTY.keys() - given.keys())]):
        raise BundleError(f"the bundle in {store.root} lacks {', '.join(missing)}", remedy=REMEDY)
    of_tree = IMAGES.relative_to(TREE)
    if target.exists() and any(target.iterdir()) and not Path(target, of_tree).exists():
        raise BundleError(f"{target} is not empty", remedy="name a folder that is not there yet")
    if target.resolve().is_relative_to(TREE):
        raise BundleError(f"{target} is a part of {TREE}", remedy="name a folder outside it")
    write_tree(target, {name: store.root / one.path for name, one in given.items()})
    Path(target, of_tree).write_text(pinned({"": [one.model_dump() for one in images.values()]}))
    profiles = ", ".join(sorted(path.name for path in Path(target, "clusters").iterdir()))
    print(
        f"kubectl apply --server-side -k {target}/clusters/PROFILE, one of {profiles}; {target}/README.md has the rest"
    )


@app.command("ls")
def list_artifacts(bundle: Folder = DEFAULT) -> None:
    """List what the bundle holds."""
    from bundle.store import Store

    print(f"{'NAME':<26}{'VERSION':<10}{'FAMILY':<21}{'KIND':<9}{'SIZE':>9}  {'SHA-256':<14}SOURCE")
    for artifact in Store(bundle).inventory().artifacts:
        print(
            f"{artifact.name:<26}{artifact.version:<10}{artifact.family:<21}{artifact.kind:<9}"
            f"{artifact.size / 1e6:>6.1f} MB  {artifact.sha256[:12]}  {artifact.source}"
        )


@app.command()
def push(
    registry: Annotated[str, typer.Argument(help="Where to: HOST[:PORT][/PREFIX].")],
    bundle: Folder = DEFAULT,
    tls: Annotated[bool, typer.Option(help="Verify the registry's certificate; --no-tls for plain HTTP.")] = True,
) -> None:
    """Copy the bundle's images to a registry; credentials are those of `skopeo login`."""
    from bundle import debian, images
    from bundle.processes import Tools
    from bundle.store import REMEDY, Store
    from terminal.progress import Stages

    store, tools = Store(bundle), Tools()
    if faults := store.faults():
        raise BundleError("\n".join(faults), remedy=REMEDY)
    with Stages(f"Images to {registry}") as stages:
        if debian.missing(["skopeo"]):
            with stages.stage("Tools") as stage:
                debian.provide(["skopeo"], tools, stage.wait_for)
        for artifact in store.inventory().artifacts:
            for image in (f"{artifact.name}:{tag}" for tag in artifact.tags):
                with stages.stage(image, waiting_for=registry):
                    images.push(store.root / artifact.path, f"localhost/{image}", f"{registry}/{image}", tools, tls=tls)
