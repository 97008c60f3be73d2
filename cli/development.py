"""`lab test` and `lab bench`: what CI runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import ExitCode, LabError
from cli.session import ROOT, Session
from cli.text import table

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
PYTEST = [sys.executable, "-m", "pytest"]
ALL_CORES = ("-n", "auto", "--dist", "worksteal")
STATIC_CHECKS = (
    ("lint", [sys.executable, "-m", "ruff", "check", "."]),
    ("types", [sys.executable, "-m", "mypy", "--strict", "."]),
)


# A devcloud of the tests' own, so that they leave the user's alone.
CLOUD_STATE = Path("/var/lib/ml-cluster/test")
CLOUD_SUBNET = "172.25.1.0/24"
DEVCLOUD = [sys.executable, "-m", "devcloud"]
BUNDLE = [sys.executable, "-m", "cli", "bundle"]
CLOUDS_END = ("cloud's end", [*DEVCLOUD, "reset", "--yes"])
MAIN_PATH: tuple[tuple[str, list[str]], ...] = (
    ("from nothing to a served model", [*PYTEST, "-s", "-m", "slow_cloud", "tests/e2e/test_first_up.py"]),
    CLOUDS_END,
)


def on_a_cloud(marks: str) -> tuple[tuple[str, list[str]], ...]:
    """The stages that need a real cloud; `marks` selects tests as pytest's -m does."""
    return (
        ("bundle", [*BUNDLE, "build"]),
        ("bundle of the release before", [*BUNDLE, "build", "--only", "kubernetes-previous"]),
        ("images of the platform", [*PYTEST, "-m", "slow_images", "tests/images", "tests/models"]),
        ("an API server of its programs", [*PYTEST, "-m", "slow_cluster", "tests"]),
        ("the platform's images", [*PYTEST, "-m", "slow_images", "tests"]),
        ("cloud", [*DEVCLOUD, "up", "--subnet", CLOUD_SUBNET]),
        ("provider on a cloud", [*PYTEST, "tests/providers/real", "tests/cli/test_cloud.py"]),
        ("program on a cloud", [*PYTEST, "-m", marks, "tests/e2e", "tests/ansible", "tests/bundle"]),
        ("the docs' commands", [*PYTEST, "-m", marks, "tests/docs"]),
        ("the cloud itself", [*PYTEST, "-m", marks, "tests/devcloud"]),
        CLOUDS_END,
    )


def run_tests(
    context: typer.Context,
    up: Annotated[
        bool,
        typer.Option(
            "--up",
            help="Then `lab up` in a fresh clone, on a devcloud made for it, and `lab destroy`: Linux, root, 12 GiB of "
            "memory.",
        ),
    ] = False,
    cloud: Annotated[
        bool,
        typer.Option("--cloud", help="Then those on a real devcloud, made for it: Linux, root, 12 GiB of memory."),
    ] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="With --cloud: those too that take more than some minutes each.")
    ] = False,
) -> None:
    """Run the linter, the type checker and the tests.

    With arguments, they go to pytest, and pytest alone runs: `lab test tests/cli -k stack`.
    """
    run_pytest = ("tests", [*PYTEST, *(context.args or ALL_CORES)])
    stages = [run_pytest] if context.args else [*STATIC_CHECKS, run_pytest]
    state = os.environ.get("DEVCLOUD_STATE", str(CLOUD_STATE))
    environment = {"DEVCLOUD_STATE": state, "DEVCLOUD_SUBNET": CLOUD_SUBNET}
    environment |= {"LAB_TEST_CLOUD": "devcloud", "OS_CLIENT_CONFIG_FILE": f"{state}/clouds.yaml"}
    results = []
    cloud_stages = MAIN_PATH if up else ()
    if cloud:
        cloud_stages = on_a_cloud("slow_cloud" if thorough else "slow_cloud and not thorough")
    for name, command in [*stages, *cloud_stages]:
        print(f"== {name}: {' '.join([Path(command[0]).name, *command[1:]])}", flush=True)
        start = time.monotonic()
        added = environment if (name, command) in cloud_stages else {}
        status = subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, **added}).returncode
        results.append((name, "passed" if status == 0 else f"failed ({status})", f"{time.monotonic() - start:.1f} s"))
    print("\n" + table(("STAGE", "RESULT", "TIME"), results))
    if any(result != "passed" for _, result, _ in results):
        raise typer.Exit(ExitCode.ERROR)


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The benchmark. Default: list them.", metavar="[NAME]")] = None,
) -> None:
    """Run a benchmark of tests/bench, with its own arguments."""
    found = {path.stem for path in (ROOT / "tests" / "bench").glob("[!_]*.py")}
    benchmarks = sorted(name for name in found if name != "conftest" and not name.startswith("test_"))
    if name is None:
        print("\n".join(benchmarks))
        return
    if name not in benchmarks:
        raise LabError(
            f"there is no benchmark '{name}'",
            remedy=f"choose one of: {', '.join(benchmarks)}",
            code=ExitCode.CONFIGURATION,
        )
    session: Session = context.obj
    chosen = {"LAB_CWD": str(session.cwd)} | ({"PULUMI_STACK": session.stack_option} if session.stack_option else {})
    os.chdir(ROOT)
    # In this process's place: Ctrl-C is the benchmark's own, which puts away what it has made.
    os.execve(sys.executable, [sys.executable, "-m", f"tests.bench.{name}", *context.args], os.environ | chosen)  # noqa: S606
