"""``lab bench engine``: what the engine costs for 10 to 3000 resources, beside the Pulumi CLI where it is installed.

Every figure is of whole commands, from the shell and back, run one after the other on this machine. Resources are
served by a provider that does nothing, so the time is the engine's, the program's and the protocol's. Peak memory is
the largest resident set of any process of the command (engine, program or provider).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
LAB = HERE.parent.parent / "lab"
SIZES = (10, 100, 1000, 3000)
DYNAMIC = 200
"""How many dynamic resources the Pulumi CLI's reference figures are of: 9.8 s to create, 5.5 s for a no-op preview."""
OPERATIONS = ("up", "no-op preview", "no-op up", "one change", "destroy")
GROWTH_LIMIT = 4.0
"""3000 resources may cost this many times what 1000 cost: linear growth with a third to spare."""


@dataclass
class Figures:
    """Seconds per operation, and the highest memory of any, in MiB."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0


class Subject:
    """An engine under test: how its command line says each operation."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment

    def measure(self, count: int, folder: Path, *, dynamic: bool) -> Figures:
        """Take a stack of ``count`` resources through all operations."""
        program = folder / "program"
        shutil.copytree(HERE / "program", program)
        settings = {"toolchain": "uv", "virtualenv": str(Path(sys.executable).parents[1])}
        project = {"name": "bench", "runtime": {"name": "python", "options": settings}}
        (program / "Pulumi.yaml").write_text(json.dumps(project))
        # What the CLI's `uv` toolchain looks for next to the program.
        (program / "uv.lock").write_text('version = 1\nrequires-python = ">=3.11"\n')
        (folder / "state").mkdir()
        environment = self._environment | {
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "bench",
        }
        figures = Figures()

        def run(operation: str, *arguments: str) -> None:
            began = time.monotonic()
            peak = _run([*self._command, "--cwd", str(program), *arguments], environment)
            if operation:
                figures.seconds[operation] = time.monotonic() - began
                figures.peak_mib = max(figures.peak_mib, peak)

        quick = ("--yes", "--skip-preview", "--non-interactive", "--stack", "bench")
        run("", "stack", "init", "bench")
        run("", "config", "set", "count", str(count), "--stack", "bench")
        run("", "config", "set", "dynamic", str(dynamic).lower(), "--stack", "bench")
        run("up", "up", *quick)
        run("no-op preview", "preview", "--non-interactive", "--stack", "bench")
        run("no-op up", "up", *quick)
        run("", "config", "set", "size", "2", "--stack", "bench")
        run("one change", "up", *quick)
        run("destroy", "destroy", *quick)
        return figures


def _run(command: list[str], environment: dict[str, str]) -> float:
    """Run a command to its end and return the largest resident set of its processes in MiB."""
    output = tempfile.TemporaryFile()  # noqa: SIM115
    process = os.posix_spawnp(
        command[0],
        command,
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)],
    )
    _, status, usage = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status):
        output.seek(0)
        sys.exit(f"{' '.join(command)} failed:\n{output.read().decode(errors='replace')}")
    output.close()
    return usage.ru_maxrss / 1024


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(prog="lab bench engine", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of resources")
    parser.add_argument(
        "--dynamic", type=int, default=DYNAMIC, help="number of dynamic resources; default: %(default)s"
    )
    arguments = parser.parse_args()
    console = Console(width=110)
    python = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{HERE}:{python}:{os.environ['PATH']}", "PULUMI_SKIP_UPDATE_CHECK": "true"}
    subjects = [Subject("embedded engine", [str(LAB), "--engine", "embedded"], environment)]
    if shutil.which("pulumi"):
        subjects.append(Subject("Pulumi CLI", ["pulumi"], environment))
    results: dict[str, dict[str, Figures]] = {subject.name: {} for subject in subjects}
    for count, dynamic in [(arguments.dynamic, True), *((count, False) for count in arguments.sizes)]:
        case = f"{count} dynamic" if dynamic else str(count)
        for subject in subjects:
            with tempfile.TemporaryDirectory() as folder:
                console.print(f"{subject.name}: {case} resources ...")
                results[subject.name][case] = subject.measure(count, Path(folder), dynamic=dynamic)
    for subject in subjects:
        console.print(_table(subject.name, results[subject.name]))
    if len(subjects) > 1:
        console.print(_comparison(*(results[subject.name] for subject in subjects)))
    else:
        console.print("The Pulumi CLI is not on PATH: nothing to compare with.")
    ratio = _growth(results[subjects[0].name])
    if ratio is not None:
        console.print(f"Growth from 1000 to 3000 resources: {ratio:.2f} times (limit {GROWTH_LIMIT:.0f})")


def _table(title: str, figures: dict[str, Figures]) -> Table:
    table = Table("resources", *(f"{name}, s" for name in OPERATIONS), "peak, MiB", title=title)
    for case, row in figures.items():
        table.add_row(case, *(f"{row.seconds[name]:.2f}" for name in OPERATIONS), f"{row.peak_mib:.0f}")
    return table


def _comparison(own: dict[str, Figures], other: dict[str, Figures]) -> Table:
    table = Table("resources", *OPERATIONS, title="embedded engine / Pulumi CLI (below 1: faster)")
    for case, row in own.items():
        table.add_row(case, *(f"{row.seconds[name] / other[case].seconds[name]:.2f}" for name in OPERATIONS))
    return table


def _growth(figures: dict[str, Figures]) -> float | None:
    if "1000" not in figures or "3000" not in figures:
        return None
    return max(figures["3000"].seconds[name] / figures["1000"].seconds[name] for name in OPERATIONS)


if __name__ == "__main__":
    main()
