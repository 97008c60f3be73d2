"""``lab bench up``: how long `lab up` takes, beside another commit of this repository, in one run.

Each side is a clone with a home, a cache and a bundle of its own, so neither meets what the other has left; only uv's
cache of packages is shared. Both use the cloud that `./lab` uses, one after the other. Before the first measured
deployment each side makes one that does not count. What is measured:

- bundle: `lab bundle build` where nothing of it is there, downloads included. It is measured where a side has no bundle
  yet, or with --bundle. Bundles are kept in ~/.cache/ml-cluster/bench.
- up: `lab up --yes` to a served prediction, with the cloud and the bundle there
- second up: the same once more, without changes
- preview: `lab preview` with one setting changed, a worker more
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cli.session import ROOT

KEPT = Path("~/.cache/ml-cluster/bench").expanduser()
MEASURES = ("bundle", "up", "second up", "preview")


@dataclass
class Side:
    """A commit, and how long its commands took: seconds by measure."""

    commit: str
    folder: Path
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def clone(self) -> Path:
        """Its work tree."""
        return self.folder / "clone"

    @property
    def home(self) -> Path:
        """Its user's home, where its bundle is kept."""
        return KEPT / self.commit[:12]

    def prepare(self) -> None:
        """Clone it; the first start makes its virtual environment."""
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.clone)], check=True)
        subprocess.run(["git", "-C", str(self.clone), "checkout", "-q", self.commit], check=True)
        self.home.mkdir(parents=True, exist_ok=True)
        settings = self.clone / "Pulumi.dev.yaml"
        # An older commit's `destroy` knows no flag for data that is protected.
        settings.write_text(re.sub(r"(holds: \w+)", r"\1, protect: false", settings.read_text()))
        self.run("--help")

    def run(self, *arguments: str) -> float:
        """Run its `lab`; the seconds that it took.

        Raises:
            SystemExit: it failed; what it said goes to standard error.
        """
        foreign = ("OS_", "PULUMI_", "XDG_", "VIRTUAL_ENV", "LAB_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env |= {"HOME": str(self.home), "UV_CACHE_DIR": str(Path("~/.cache/uv").expanduser())}
        env |= {"PULUMI_CONFIG_PASSPHRASE": "bench", "PULUMI_BACKEND_URL": f"file://{self.folder}"}
        began = time.monotonic()
        result = subprocess.run(
            [self.clone / "lab", *arguments], cwd=self.clone, env=env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if result.returncode:
            sys.stderr.write(result.stdout)
            sys.exit(f"{self.commit[:12]}: lab {' '.join(arguments)} ended with {result.returncode}")
        return time.monotonic() - began

    def measure(self, what: str, *arguments: str) -> None:
        """Run its `lab`, and note how long it took."""
        seconds = self.run(*arguments)
        self.seconds[what].append(seconds)
        print(f"{self.commit[:12]}  {what:<10} {seconds:7.1f} s  (load {os.getloadavg()[0]:.1f})", flush=True)

    def build_bundle(self, *, anew: bool) -> None:
        """Have a bundle. Only where there was nothing of one does its time count."""
        cache = self.home / ".cache"
        if anew:
            shutil.rmtree(cache, ignore_errors=True)
        # devcloud has its own files in the same cache.
        if (cache / "ml-cluster/bundle").exists():
            self.run("bundle", "build")
        else:
            self.measure("bundle", "bundle", "build")

    def warm_up(self) -> None:
        """Bring the stack up once, unmeasured: the parts of the bundle that only this stack needs are built then."""
        try:
            self.run("up", "--yes")
        finally:
            self.run("destroy", "--yes")

    def deploy(self) -> None:
        """Bring the stack up, ask for changes, and take it down."""
        settings = self.clone / "Pulumi.dev.yaml"
        try:
            self.measure("up", "up", "--yes")
            self.measure("second up", "up", "--yes")
            before = settings.read_text()
            settings.write_text(one_worker_more(before))
            self.measure("preview", "preview")
            settings.write_text(before)
        finally:
            self.run("destroy", "--yes")


def one_worker_more(settings: str) -> str:
    """Settings of stack dev with one more worker."""
    head, found, tail = settings.partition("worker:")
    count, rest = tail.split("count: ", 1)
    number = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    assert found
    return f"{head}{found}{count}count: {int(number) + 1}{rest[len(number) :]}"


def show(console: Console, sides: list[Side]) -> None:
    """A row a measure, a column a side: the median of the rounds; and the first side as a share of the second."""
    table = Table(title="Seconds, medians of all rounds")
    table.add_column("")
    for side in sides:
        table.add_column(side.commit[:12], justify="right")
    table.add_column("ratio", justify="right")
    for what in MEASURES:
        medians = [statistics.median(side.seconds[what]) if side.seconds[what] else None for side in sides]
        known = [median for median in medians if median is not None]
        ratio = f"{known[0] / known[1]:.2f}" if len(known) == len(sides) == 2 else ""
        table.add_row(what, *("" if median is None else f"{median:.1f}" for median in medians), ratio)
    console.print(table)


def main() -> None:
    """Measure both sides in turn, and print the table."""
    parser = argparse.ArgumentParser(
        prog="lab bench up", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="COMMIT", help="the other side; without it, this commit alone")
    parser.add_argument("--rounds", type=int, default=1, help="deployments of each side; default: %(default)s")
    parser.add_argument("--bundle", action="store_true", help="build the bundles from nothing, whatever is there")
    chosen = parser.parse_args()
    commits = []
    for name in ["HEAD", *([chosen.against] if chosen.against else [])]:
        found = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if found.returncode:
            parser.error(f"there is no commit {name}")
        commits.append(found.stdout.strip())
    with tempfile.TemporaryDirectory(prefix="bench-up-") as folder:
        sides = [Side(commit, Path(folder) / commit[:12]) for commit in commits]
        for side in sides:
            side.prepare()
            side.run("devcloud", "up")
            side.build_bundle(anew=chosen.bundle)
            side.warm_up()
        for number in range(chosen.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                side.deploy()
        show(Console(), sides)


if __name__ == "__main__":
    main()
