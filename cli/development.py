"""`lab test` and `lab bench`: what CI runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import ExitCode, LabError
from cli.session import ROOT
from cli.text import table

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
ALL_CORES = ("-n", "auto", "--dist", "worksteal")
STATIC_CHECKS = (
    ("lint", [sys.executable, "-m", "ruff", "check", "."]),
    ("types", [sys.executable, "-m", "mypy", "--strict", "."]),
)


def test(context: typer.Context) -> None:
    """Run the linter, the type checker and the tests.

    With arguments, they go to pytest, and pytest alone runs: `lab test tests/cli -k stack`.
    """
    run_pytest = ("tests", [sys.executable, "-m", "pytest", *(context.args or ALL_CORES)])
    results = []
    for name, command in [run_pytest] if context.args else [*STATIC_CHECKS, run_pytest]:
        print(f"== {name}: {' '.join([Path(command[0]).name, *command[1:]])}", flush=True)
        start = time.monotonic()
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        results.append((name, "passed" if status == 0 else f"failed ({status})", f"{time.monotonic() - start:.1f} s"))
    print("\n" + table(("STAGE", "RESULT", "TIME"), results))
    if any(result != "passed" for _, result, _ in results):
        raise typer.Exit(ExitCode.ERROR)


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The benchmark. Default: list them.", metavar="[NAME]")] = None,
) -> None:
    """Run a benchmark of tests/bench, with its own arguments."""
    benchmarks = sorted(path.stem for path in (ROOT / "tests" / "bench").glob("[!_]*.py") if path.stem != "conftest")
    if name is None:
        print("\n".join(benchmarks))
        return
    if name not in benchmarks:
        raise LabError(
            f"there is no benchmark '{name}'",
            remedy=f"choose one of: {', '.join(benchmarks)}",
            code=ExitCode.CONFIGURATION,
        )
    command = [sys.executable, "-m", f"tests.bench.{name}", *context.args]
    raise typer.Exit(subprocess.run(command, cwd=ROOT, check=False).returncode)
