"""Fills a bundle: from another bundle, from publishers' releases, or by building."""

from __future__ import annotations

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bundle import debian, go, images, layers, modules, sbom, signatures
from bundle.errors import BundleError
from bundle.files import emptied, exclusive, link, sha256, write_atomically
from bundle.go import Toolchain
from bundle.lock import Lock
from bundle.pages import Node
from bundle.processes import Tools
from bundle.releases import Releases
from bundle.store import INVENTORY, PLACES, REMEDY, SBOM, Artifact, Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bundle.manifest import Family, Manifest
    from bundle.store import Kind, Store
    from terminal.progress import Stages

    Say = Callable[[str], None]

# One family compiles at a time, on all processors; meanwhile others download, and images are built.
FAMILIES_AT_ONCE = 4


class Builder:
    """Fills a bundle's folder. Artifacts that match the manifest are kept."""

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        stages: Stages,
        *,
        cache: Path,
        existing: Store | None = None,
        releases: bool = True,
    ) -> None:
        self.manifest, self.store = manifest, store
        self.lock = Lock(manifest.architecture)
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        """How long what was made now took, by family; without waiting for its turn to compile."""
        self._stages = stages
        self._existing = existing
        self._releases = Releases() if releases else None
        self._tools = Tools(store.work)
        self._toolchain = Toolchain(manifest.go, manifest.architecture, cache / "go", self._tools)
        self._modules = cache / "go" / "mod"
        self._node = Node(cache / "node", self._tools)
        self._inventory = Inventory(architecture=manifest.architecture)
        self._writing, self._compiling, self._unpacking = threading.Lock(), threading.Lock(), threading.Lock()
        self._trees: dict[tuple[str, ...], tuple[Path, dict[str, str]]] = {}
        self._layers = layers.Layers(manifest, cache / "layers", self._tools)

    def build(self, families: list[str], *, renew: bool = False) -> Inventory:
        """Get the programs and images of `families`; `renew` rebuilds images with Debian packages and updates the lock.

        Raises:
            BundleError: something is not available; the rest is finished, and the same call continues from there.
        """
        os.umask(0o022)  # file modes in images must not depend on the user's umask
        with exclusive(self.store.root):
            with self._stages.stage("Check existing artifacts"):
                self._take_stock(families if renew else [])
            emptied(self.store.work)
            self._provide_tools(families)
            errors = self._run([partial(self._family, name, renew=renew) for name in self._in_order(families)])
            self._write_sbom()
            for image in signatures.attach(self.store, self._inventory):
                self.notes.append(f"image {image}: not of what its signature says; `lab bundle sign` signs it")
            shutil.rmtree(self.store.work)
        if errors:
            remedies = [*(error.remedy for error in errors if error.remedy), f"run {REMEDY} to continue"]
            raise BundleError("\n".join(map(str, errors)), remedy="; ".join(dict.fromkeys(remedies)))
        if renew:
            # Others in the bundle may be older than their entries.
            locked = [one for one in self._inventory.artifacts if one.is_locked and one.family in families]
            self.lock.record(locked, self.manifest.paths(self.manifest.families))
        return self._inventory

    def _in_order(self, families: list[str]) -> list[str]:
        """Families without programs come second, so that they are built while the first family compiles."""
        compiled = [name for name in families if self.manifest.families[name].all_programs]
        return [*compiled[:1], *(name for name in families if name not in compiled), *compiled[1:]]

    def _run(self, tasks: list[Callable[[], None]]) -> list[BundleError]:
        """Run all tasks on threads; return their BundleErrors."""
        with ThreadPoolExecutor(FAMILIES_AT_ONCE) as pool:
            futures = [pool.submit(task) for task in tasks]
            try:
                errors = [error for future in futures if (error := future.exception())]
            except KeyboardInterrupt:
                self._tools.stop()
                pool.shutdown(cancel_futures=True)
                raise
        for error in errors:
            if not isinstance(error, BundleError):
                raise error
        return [error for error in errors if isinstance(error, BundleError)]

    def _take_stock(self, renewed: list[str]) -> None:
        """Keep artifacts that are still needed; delete others, and `renewed` families' images with Debian packages."""
        paths = self.manifest.paths(self.manifest.families)
        if (self.store.root / INVENTORY).exists():
            inventory = self.store.inventory()
            # Signatures are put together anew at the end.
            existing = [artifact for artifact in inventory.artifacts if artifact.kind != "signature"]
            for artifact in existing:
                outdated = artifact.family in renewed and artifact.packages
                if artifact.path in paths and not outdated and self.store.holds(artifact):
                    self._inventory.put([artifact])
            if self._inventory.artifacts == existing:
                self._inventory.sbom_sha256 = inventory.sbom_sha256
        for path in (path for part in PLACES for path in self.store.root.glob(part)):
            if not self._inventory.find(str(path.relative_to(self.store.root))):
                path.unlink()

    def _provide_tools(self, families: list[str]) -> None:
        """Have what the missing artifacts take, before the first is made."""
        needed: set[str] = set()
        for name in families:
            family = self.manifest.families[name]
            have = self._have(self.manifest.program_paths(name), self.manifest.key(name))
            if family.cgo and not have:
                needed |= {"gcc", "libc6-dev", "libseccomp-dev", "pkg-config"}
            for image, description in family.images.items():
                path = self.manifest.image_path(name, image)
                if not (have and self._have([path], self._inventory.image_key(self.manifest, name, image))):
                    debian_packages = description.packages or self.manifest.stack(description.layer)
                    needed |= {"buildah", *(["mmdebstrap"] if debian_packages else [])}
        if missing := debian.missing(sorted(needed)):
            with self._stages.stage("Tools") as stage:
                debian.provide(missing, self._tools, stage.wait_for)

    def _family(self, name: str, *, renew: bool) -> None:
        family = self.manifest.families[name]
        key, paths = self.manifest.key(name), self.manifest.program_paths(name)
        began, self.seconds[name] = time.monotonic(), 0.0
        if not self._have(paths, key):
            with self._stage(f"{name} {family.version}") as (say, folder):
                self._register(folder, self._programs(name, key, folder, say), check=not renew)
        for image in family.images:
            key = self._inventory.image_key(self.manifest, name, image)
            if not self._have([self.manifest.image_path(name, image)], key):
                with self._stage(f"image {image} {family.version}") as (say, folder):
                    self._register(folder, [self._image(name, image, key, folder, say, renew=renew)], check=not renew)

        for kind, called, wanted in family.texts:
            key, path = self.manifest.text_key(name, called, wanted), self.manifest.text_path(name, kind, called)
            if not self._have([path], key):
                with self._stage(f"{kind} {called} {family.version}") as (say, folder):
                    modules.extract(wanted, kind, family.version, folder / called, cache=self._modules, say=say)
                    source = f"{wanted.module}@{family.version}"
                    made = self._artifact(folder / called, kind, name, key, path, source=source)
                    self._register(folder, [made], check=not renew)
        self.seconds[name] += time.monotonic() - began

    def _have(self, paths: list[str], key: str) -> bool:
        """Whether files made of what `key` stands for are there, or were taken from the existing bundle."""
        ours = [self._inventory.find(path) for path in paths]
        if all(artifact and artifact.key == key for artifact in ours):
            return True
        if self._existing is None:
            return False
        theirs = [artifact for artifact in self._existing.inventory().artifacts if artifact.path in paths]
        if len(theirs) < len(paths) or not all(one.key == key and self._existing.holds(one) for one in theirs):
            return False
        for artifact in theirs:
            link(self._existing.root / artifact.path, self.store.root / artifact.path)
        self._add(theirs)
        return True

    def _programs(self, name: str, key: str, folder: Path, say: Say) -> list[Artifact]:
        """Get a family's programs into `folder`, from its publisher or by building."""
        family = self.manifest.families[name]
        sources = self._releases.get(family, self.manifest.architecture, folder, say) if self._releases else {}
        tools: dict[str, str] = {}
        libraries: list[str] = []
        if not sources:
            tools = go.tools_of(family, self.manifest.go)
            home, libraries = self._source(family, emptied(folder), say)
            say("the Go toolchain")
            self._toolchain.ensure(family.go)
            say("its turn to compile")
            began = time.monotonic()
            with self._compiling:
                self.seconds[name] -= time.monotonic() - began
                say("Go modules")
                self._toolchain.generate(family, home, say)
                self._toolchain.build(family, home, folder, say)
        return [
            self._artifact(
                folder / program, "program", name, key, self.manifest.program_path(name, program),
                source=sources.get(program, "built"), tools=tools, libraries=libraries,
            )
            for program in family.all_programs
        ]  # fmt: skip

    def _source(self, family: Family, folder: Path, say: Say) -> tuple[Path, list[str]]:
        """Where a family's go.mod is, and the npm packages in the pages of the source beside it, if it has one."""
        if not (source := family.source):
            return family.folder, []
        home = folder / "go"
        shutil.copytree(family.folder, home)
        modules.unpack(source, family.version, home / "source", cache=self._modules, say=say)
        return home, self._node.make(source.pages, home / "source", say) if source.pages else []

    def _image(self, name: str, image: str, key: str, folder: Path, say: Say, *, renew: bool) -> Artifact:
        """Make an image in `folder`."""
        family = self.manifest.families[name]
        description = family.images[image]
        tags = [family.version, *description.tags]
        references = [f"localhost/{image}:{tag}" for tag in tags]
        tools, wheels = images.tools_of(), {}
        if description.layer:
            say("layers")
            stack = self._layers.stack(description.layer, say, renew=renew)
            packages = {name: version for layer in stack for name, version in layer.packages.items()}
            wheels = {name: version for layer in stack for name, version in layer.wheels.items()}
            tools |= layers.tools_of()
            layouts = [layer.layout for layer in stack]
            if description.programs:
                programs = [self.store.root / self.manifest.program_path(name, one) for one in description.programs]
                layouts.append(images.programs_layer(programs, folder / "programs", self._tools))
            digest = images.stack(references, description, folder / image, layouts)
        else:
            base, packages = self._tree(description.packages, say)
            say("buildah")
            digest = images.build(
                references, description, folder / image, self._tools,
                programs=(self.store.root / self.manifest.program_path(name, image)).parent, base=base,
            )  # fmt: skip
        return self._artifact(
            folder / image, "image", name, key, self.manifest.image_path(name, image),
            source="built", tools=tools, packages=packages, wheels=wheels, tags=tags, digest=digest,
            programs=[self.manifest.program_path(name, program) for program in description.programs],
        )  # fmt: skip

    def _tree(self, packages: tuple[str, ...], say: Say) -> tuple[Path | None, dict[str, str]]:
        """A tree of Debian packages, unpacked once for all images with the same ones, and their versions."""
        if not packages:
            return None, {}
        with self._unpacking:
            if packages not in self._trees:
                say(f"Debian packages: {', '.join(packages)}")
                root = self.store.work / f"debian-{len(self._trees)}"
                self._trees[packages] = root, debian.extract(packages, self.manifest.debian.suite, root, self._tools)
            return self._trees[packages]

    def _artifact(
        self,
        file: Path,
        kind: Kind,
        family: str,
        key: str,
        path: str,
        **details: object,
    ) -> Artifact:
        return Artifact.model_validate(
            {
                "name": file.name,
                "family": family,
                "version": self.manifest.families[family].version,
                "kind": kind,
                "path": path,
                "sha256": sha256(file),
                "size": file.stat().st_size,
                "key": key,
                **details,
            }
        )

    @contextmanager
    def _stage(self, title: str) -> Iterator[tuple[Say, Path]]:
        """Work on one thing: who hears of it, and an empty folder for it."""
        with self._stages.stage(title) as stage:
            folder = emptied(self.store.work / title.replace(" ", "-"))
            yield stage.wait_for, folder
            shutil.rmtree(folder)

    def _register(self, folder: Path, artifacts: list[Artifact], *, check: bool) -> None:
        """Move finished files to their place."""
        for artifact in artifacts:
            if check and (note := self.lock.check(artifact)):
                self.notes.append(f"{artifact.path}: {note}")
            target = self.store.root / artifact.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / artifact.name).replace(target)
        self._add(artifacts)

    def _add(self, artifacts: list[Artifact]) -> None:
        with self._writing:
            self._inventory.put(artifacts)
            self._inventory.sbom_sha256 = ""
            self.store.write(self._inventory)

    def _known_modules(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """What the bill of materials of the bundle that artifacts were taken from says: reading it takes no Go."""
        if self._existing is None:
            return {}
        path, digest = self._existing.root / SBOM, self._existing.inventory().sbom_sha256
        return sbom.read_modules(path.read_text()) if path.exists() and sha256(path) == digest else {}

    def _write_sbom(self) -> None:
        """Write the bill of materials, unless it is there already."""
        path = self.store.root / SBOM
        if not path.exists() or sha256(path) != self._inventory.sbom_sha256:
            known = self._known_modules()
            programs = [one for one in self._inventory.artifacts if one.kind == "program"]
            unread = [self.store.root / one.path for one in programs if (one.path, one.sha256) not in known]
            found = self._toolchain.modules(unread)
            contents = {
                one.path: known.get((one.path, one.sha256)) or found.get(self.store.root / one.path, [])
                for one in programs
            }
            write_atomically(path, sbom.render(self._inventory, contents))
            self._inventory.sbom_sha256 = sha256(path)
            self.store.write(self._inventory)
