"""Getting a bundle together: from an existing bundle, from publishers' releases, else by building."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bundle import images, sbom
from bundle.errors import BundleError
from bundle.go import Toolchain
from bundle.manifest import HERE, digest
from bundle.store import SBOM, Artifact, Inventory, Store, copy, sha256, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from bundle.manifest import Family, Manifest

LOCK = HERE / "manifest.lock"
CACHE = Path("~/.cache/ml-cluster").expanduser()


class Lock:
    """manifest.lock: the digests of programs built from the manifest, by processor and input key."""

    def __init__(self, path: Path = LOCK) -> None:
        self.path = path
        self._known: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}

    def expected(self, key: str) -> dict[str, str]:
        """Digest by program of what the inputs with this key give."""
        return self._known.get(key, {})

    def keep(self, digests: dict[str, dict[str, str]]) -> None:
        """Replace what is known."""
        self._known = digests
        write_whole(self.path, json.dumps(digests, indent=1, sort_keys=True) + "\n")


class Builder:
    """Fills a bundle's directory. What is there already, or in the cache, is not made again."""

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        *,
        cache: Path = CACHE,
        lock: Lock | None = None,
        existing: Store | None = None,
        releases: bool = True,
    ) -> None:
        self.manifest = manifest
        self.store = store
        self.cache = cache
        self.lock = lock or Lock()
        self.existing = existing
        self.releases = releases
        self.toolchain = Toolchain(manifest, cache / "go")
        self._compiling = threading.Lock()

    def build(self, families: Iterable[str], names: Iterable[str], say: Callable[[str, str], None]) -> Inventory:
        """Get programs of `families` and images `names`; `say` hears of each (artifact, what happens to it).

        Raises:
            BundleError: something could not be had; the rest was finished, and the same call goes on from there.
        """
        names = list(names)
        families = sorted({*families, *(self.manifest.images[name].family for name in names)})
        inventory = Inventory(architecture=self.manifest.architecture)
        faults: list[str] = []
        with ThreadPoolExecutor(max_workers=4) as pool:
            programs = {name: pool.submit(self._family, name, say) for name in families}
            made: list[Future[list[Artifact]]] = list(programs.values())
            made += [pool.submit(self._image, name, programs, say) for name in names]
            for future in made:
                try:
                    inventory.artifacts += future.result()
                except BundleError as error:
                    faults += [str(error)] if str(error) not in faults else []
        if faults:
            raise BundleError("\n".join(faults), remedy="lab bundle build goes on with what is missing")
        write_whole(self.store.root / SBOM, sbom.render(inventory, self.store.root, self.toolchain.modules))
        self.store.write(inventory)
        self._drop_others(inventory)
        return inventory

    def record(self) -> None:
        """Write the digests of all built programs to the lock."""
        digests: dict[str, dict[str, str]] = {}
        for artifact in self.store.inventory().artifacts:
            if artifact.kind == "program" and artifact.source == "built":
                digests.setdefault(artifact.key, {})[artifact.name] = artifact.sha256
        self.lock.keep(digests)

    def _family(self, name: str, say: Callable[[str, str], None]) -> list[Artifact]:
        family = self.manifest.families[name]
        key = self.manifest.key(name)
        source, folder = self._obtain(name, family, key, say)
        found = []
        for program in family.programs:
            relative = f"bin/{name}/{family.version}/{program}"
            copy(folder / program, self.store.root / relative)
            found.append(
                self._artifact(program, family.version, "program", relative, source.format(program=program), key)
            )
        return found

    def _obtain(self, name: str, family: Family, key: str, say: Callable[[str, str], None]) -> tuple[str, Path]:
        cached = self.cache / "programs" / f"{name}-{key[:16]}"
        if not cached.exists() and self._copied(name, family, key, cached):
            say(name, "from an existing bundle")
        released = self.cache / "releases" / f"{name}-{family.version}-{self.manifest.architecture}"
        if not cached.exists() and self.releases and family.release:
            if released.exists() or self._downloaded(family, released):
                say(name, "published release")
                return family.release.url, released
        if not cached.exists():
            say(name, "fetching modules")
            with self._compiling:
                self.toolchain.ensure()
            self.toolchain.download(family)
            with self._compiling:
                say(name, "building")
                self.toolchain.build(family, cached)
        self._check(name, key, cached)
        say(name, "done")
        return "built", cached

    def _check(self, name: str, key: str, folder: Path) -> None:
        """The build is the one that was recorded."""
        for program, expected in self.lock.expected(key).items():
            if (found := sha256(folder / program)) != expected:
                raise BundleError(
                    f"{name}: {program} has SHA-256 {found}; manifest.lock says {expected} for the same inputs",
                    remedy=f"remove {folder} and build again; if that gives the same, the build is not reproducible here",
                )

    def _copied(self, name: str, family: Family, key: str, target: Path) -> bool:
        """Take a family from an existing bundle, where its files are what the lock says."""
        if self.existing is None:
            return False
        have = {artifact.name: artifact for artifact in self.existing.inventory().artifacts if artifact.key == key}
        expected = self.lock.expected(key)
        for program in family.programs:
            path = self.existing.root / have[program].path if program in have else None
            if path is None or sha256(path) != expected.get(program, have[program].sha256):
                return False
        new = target.with_name(target.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        for program in family.programs:
            copy(self.existing.root / have[program].path, new / program)
        new.rename(target)
        return True

    def _downloaded(self, family: Family, target: Path) -> bool:
        """Take a family from its publisher; False where that cannot be reached.

        Raises:
            BundleError: a file is not what its publisher's checksum says.
        """
        assert family.release
        new = target.with_name(target.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for program in family.programs:
            words = {"version": family.version, "arch": self.manifest.architecture, "program": program}
            try:
                expected = fetch(family.release.checksum.format(**words)).decode().split()[0]
                content = fetch(family.release.url.format(**words))
            except (OSError, ValueError, IndexError):
                shutil.rmtree(new)
                return False
            path = new / program
            path.write_bytes(content)
            path.chmod(0o755)
            if (found := sha256(path)) != expected:
                raise BundleError(f"{family.release.url.format(**words)} has SHA-256 {found}, not {expected}")
        new.rename(target)
        return True

    def _image(
        self, name: str, programs: dict[str, Future[list[Artifact]]], say: Callable[[str, str], None]
    ) -> list[Artifact]:
        image = self.manifest.images[name]
        version = self.manifest.families[image.family].version
        made_of = {artifact.name: artifact for artifact in programs[image.family].result()}
        key = digest([self.manifest.image_key(name), [made_of[program].sha256 for program in image.programs]])
        cached = self.cache / "images" / f"{name}-{key[:16]}.tar"
        if not cached.exists():
            say(name, "image")
            folder = self.store.root / Path(made_of[image.programs[0]].path).parent
            images.build(name, version, image, folder, cached)
        relative = f"images/{name}_{version}.tar"
        copy(cached, self.store.root / relative)
        say(name, "done")
        return [self._artifact(name, version, "image", relative, "built", key)]

    def _artifact(self, name: str, version: str, kind: str, relative: str, source: str, key: str) -> Artifact:
        path = self.store.root / relative
        return Artifact.model_validate(
            {
                "name": name,
                "version": version,
                "kind": kind,
                "path": relative,
                "sha256": sha256(path),
                "size": path.stat().st_size,
                "source": source,
                "key": key,
            }
        )

    def _drop_others(self, inventory: Inventory) -> None:
        """A version that was moved leaves nothing behind."""
        known = {artifact.path for artifact in inventory.artifacts}
        for path in [*self.store.root.glob("bin/*/*/*"), *self.store.root.glob("images/*")]:
            if str(path.relative_to(self.store.root)) not in known:
                path.unlink()


def fetch(url: str) -> bytes:
    """The body at an address.

    Raises:
        OSError: it cannot be reached.
    """
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        content: bytes = answer.read()
    return content
