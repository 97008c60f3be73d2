"""`lab bundle`: every program and image of a cluster, in one directory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bundle import images
from bundle.build import CACHE, Builder
from bundle.errors import BundleError
from bundle.manifest import load
from bundle.store import Store

app = typer.Typer(
    name="bundle",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Every program and image of a cluster, in one directory that needs no internet.",
)
Folder = Annotated[Path, typer.Option("--bundle", envvar="LAB_BUNDLE", help="The bundle's folder.")]
DEFAULT = CACHE / "bundle"


@app.command()
def build(
    bundle: Folder = DEFAULT,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="A family or image; may be repeated. Default: all.")
    ] = None,
    existing: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A bundle to take from what is the same.")
    ] = None,
    releases: Annotated[bool, typer.Option(help="Take publishers' releases where they can be reached.")] = True,
    update_lock: Annotated[bool, typer.Option("--update-lock", help="Record the digests in manifest.lock.")] = False,
) -> None:
    """Get everything that is missing. Goes on where it was interrupted; 25 minutes of two cores from nothing."""
    manifest = load()
    wanted = only or [*manifest.families, *manifest.images]
    if unknown := [name for name in wanted if name not in manifest.families and name not in manifest.images]:
        names = ", ".join(sorted({*manifest.families, *manifest.images}))
        raise BundleError(f"the manifest has no {', '.join(unknown)}", remedy=f"there are: {names}")
    began = time.monotonic()

    def say(name: str, what: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {name}: {what}", flush=True)

    builder = Builder(
        manifest, Store(bundle), existing=Store(existing) if existing else None, releases=releases and not update_lock
    )
    inventory = builder.build(
        [name for name in wanted if name in manifest.families], [name for name in wanted if name in manifest.images], say
    )
    if update_lock:
        builder.record()
    size = sum(artifact.size for artifact in inventory.artifacts)
    print(f"{len(inventory.artifacts)} artifacts, {size / 1e9:.2f} GB, in {bundle}")


@app.command()
def verify(bundle: Folder = DEFAULT) -> None:
    """Check every file of the bundle against its digest."""
    store = Store(bundle)
    if faults := store.faults():
        raise BundleError("\n".join(faults), remedy="lab bundle build")
    print(f"{len(store.inventory().artifacts)} artifacts are what the inventory says")


@app.command("ls")
def list_artifacts(bundle: Folder = DEFAULT) -> None:
    """List what the bundle holds."""
    print(f"{'NAME':<26}{'VERSION':<11}{'KIND':<9}{'SIZE':>10}  {'SHA-256':<14}SOURCE")
    for artifact in Store(bundle).inventory().artifacts:
        size = f"{artifact.size / 1e6:.1f} MB"
        print(
            f"{artifact.name:<26}{artifact.version:<11}{artifact.kind:<9}{size:>10}  {artifact.sha256[:12]}  "
            f"{artifact.source}"
        )


@app.command()
def push(
    registry: Annotated[str, typer.Argument(help="Where to: HOST[:PORT][/PREFIX].")],
    bundle: Folder = DEFAULT,
    tls: Annotated[bool, typer.Option(help="Verify the registry's certificate; --no-tls for plain HTTP.")] = True,
) -> None:
    """Copy the bundle's images to a registry."""
    store = Store(bundle)
    if faults := store.faults():
        raise BundleError("\n".join(faults), remedy="lab bundle build")
    for artifact in store.inventory().artifacts:
        if artifact.kind == "image":
            reference = f"{registry}/{artifact.name}:{artifact.version}"
            images.push(store.root / artifact.path, reference, tls=tls)
            print(reference, flush=True)
