"""`python -m tests.against COMMIT`: what that commit gets wrong, and this checkout right."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.against import engine, providers, settings, store
from tests.against.checkout import Checkout
from tests.against.table import Row, markdown, wrong
from tests.providers.kubernetes.control_plane import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.against.points import Case, Point

ROOT = Path(__file__).resolve().parents[2]
POINTS = (*engine.POINTS, *store.POINTS, *providers.POINTS, *settings.POINTS)
LEFT_OUT = {
    "10": "plain `pulumi up` without `uv`: needs the Pulumi CLI",
    "17": "requests that a model does not take: need the model servers' images (`-m slow_images tests/models`)",
    "18": "`lab up` asks once; what a Job prints: need a cloud (tests/e2e/test_first_up.py)",
}


def main() -> int:
    """0 if the commit gets each point wrong in some case, and this checkout all right."""
    parser = argparse.ArgumentParser(prog="python -m tests.against", description=__doc__)
    parser.add_argument("commit", help="the older commit")
    parser.add_argument("--only", action="append", metavar="POINT", help="only this point; may be repeated")
    parser.add_argument("--all", action="store_true", help="also list each case that the commit gets wrong")
    chosen = parser.parse_args()
    points = [point for point in POINTS if not chosen.only or point.number in chosen.only]
    with worktree(chosen.commit) as there:
        rows = [Row(point.number, point.fault, tried(point, there), tried(point, ROOT)) for point in points]
    rows.sort(key=lambda row: int(row.number))
    print(markdown(rows))
    print("\nNot tried here:", *(f"  {number}: {reason}" for number, reason in LEFT_OUT.items()), sep="\n")
    if chosen.all:
        print(f"\nWrong at {chosen.commit}:\n{wrong(rows, here=False)}")
    if text := wrong(rows, here=True):
        print(f"\nWrong here:\n{text}")
    return 0 if all(row.shows_it for row in rows) else 1


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit and this checkout's virtual environment."""
    with tempfile.TemporaryDirectory(prefix="against-") as scratch:
        folder = Path(scratch) / "worktree"
        git("worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
            yield folder
        finally:
            git("worktree", "remove", "--force", str(folder))


def git(*arguments: str) -> None:
    subprocess.run(["git", "-C", ROOT, *arguments], check=True)


def tried(point: Point, root: Path) -> list[Case] | None:
    """The cases of a point on the checkout at `root`; None where they could not be tried, which is reported."""
    if point.cluster and not list(BUNDLE.glob("bin/kubernetes/*/kube-apiserver")):
        print(f"{point.number}: needs an API server: ./lab bundle build", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory(prefix="against-") as scratch:
        try:
            return point.on(Checkout(root, Path(scratch)))
        except Exception:
            print(f"{point.number} {point.fault}, at {root}:\n{traceback.format_exc()}", file=sys.stderr)
            return None


if __name__ == "__main__":
    sys.exit(main())
