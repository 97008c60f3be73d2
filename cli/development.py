"""`lab test` and `lab bench`: what CI runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from cli import junit
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

# A separate devcloud for the tests.
CLOUD_STATE = Path("/var/lib/ml-cluster/test")
CLOUD_SUBNET = "172.25.1.0/24"
DEVCLOUD = [sys.executable, "-m", "devcloud"]
BUNDLE = [sys.executable, "-m", "cli", "bundle"]
MONITORING = ("metrics", "alertmanager", "node-exporter", "state-exporter")
BY_NAME = ("kubernetes-previous", *MONITORING)
CLOUDS_END = ("cloud's end", [*DEVCLOUD, "reset", "--yes"])
MAIN_PATH: tuple[tuple[str, list[str]], ...] = (
    ("from nothing to a served model", [*PYTEST, "-s", "-m", "slow_cloud", "tests/e2e/test_first_up.py"]),
    CLOUDS_END,
)


OF_MONITORING = "docs/reference/monitoring.md"
OF_ALERTS = ("kubernetes", "etcd", "gateway", "logs", *MONITORING)
MONITORED: tuple[tuple[str, list[str]], ...] = (
    ("bundle", [*BUNDLE, "build", *(word for name in OF_ALERTS for word in ("--only", name))]),
    (
        "every alert, secrets, a day, logs, pages",
        [
            *PYTEST, "-s", "-m", "slow_monitoring or slow_cluster", "--monitoring-report", OF_MONITORING,
            *(f"tests/k8s/test_{name}.py" for name in ("every_alert", "planted", "a_day", "logging", "pictures")),
        ],
    ),
)  # fmt: skip
REPORT = "docs/reference/virtual-machines.md"
VIRTUAL_MACHINES: tuple[tuple[str, list[str]], ...] = (
    ("bundle", [*BUNDLE, "build"]),
    ("bundle of the release before", [*BUNDLE, "build", "--only", "kubernetes-previous"]),
    ("cloud", [*DEVCLOUD, "up", "--virtual-machines", "--image", "CC-Ubuntu24.04-VM"]),
    (
        "a cluster on virtual machines",
        [*PYTEST, "-s", "-m", "slow_vm", "--virtual-machines-report", REPORT, "tests/ansible"],
    ),
    CLOUDS_END,
)


def on_a_cloud(marks: str) -> tuple[tuple[str, list[str]], ...]:
    """The stages that need a real cloud; `marks` selects tests as pytest's -m does."""
    return (
        ("bundle", [*BUNDLE, "build"]),
        ("bundle of what is had by name", [*BUNDLE, "build", *(word for name in BY_NAME for word in ("--only", name))]),
        ("images of the platform", [*PYTEST, "-m", "slow_images", "tests/images", "tests/models"]),
        ("an API server of its programs", [*PYTEST, "-m", "slow_cluster", "tests"]),
        ("the platform's images", [*PYTEST, "-m", "slow_images", "tests"]),
        ("cloud", [*DEVCLOUD, "up"]),
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
            help="Also run `lab up` and `lab destroy` in a fresh clone on a new devcloud. Needs Linux, root, 12 GiB of "
            "memory.",
        ),
    ] = False,
    cloud: Annotated[
        bool,
        typer.Option(
            "--cloud",
            help="Also run the tests that need a cloud, on a new devcloud. Needs Linux, root, 12 GiB of memory.",
        ),
    ] = False,
    virtual_machines: Annotated[
        bool,
        typer.Option(
            "--virtual-machines",
            help="Instead: a cluster on virtual machines of a devcloud made for it, emulated where KVM does not work; "
            f"what came of it goes to {REPORT}. Linux, root, 12 GiB of memory, an hour or two.",
        ),
    ] = False,
    monitoring: Annotated[
        bool,
        typer.Option(
            "--monitoring",
            help="Instead: every alert made true and mended, planted secrets looked for, a day of metrics simulated, "
            f"the pages looked at in Debian's Chromium; what came of it goes to {OF_MONITORING}. Linux, root, 3 GiB of "
            "memory, three quarters of an hour.",
        ),
    ] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="With --cloud: also run tests that take several minutes each.")
    ] = False,
) -> None:
    """Run the linter, the type checker and the tests.

    With arguments, run only pytest with these arguments: `lab test tests/cli -k stack`.
    """
    stages: list[tuple[str, list[str]]] = [("tests", [*PYTEST, *(context.args or ALL_CORES)])]
    checks = () if context.args else STATIC_CHECKS
    state = os.environ.get("DEVCLOUD_STATE", str(CLOUD_STATE))
    environment = {"DEVCLOUD_STATE": state, "DEVCLOUD_SUBNET": os.environ.get("DEVCLOUD_SUBNET", CLOUD_SUBNET)}
    environment |= {"LAB_TEST_CLOUD": "devcloud", "OS_CLIENT_CONFIG_FILE": f"{state}/clouds.yaml"}
    results = []
    cases: list[junit.Case] = []
    cloud_stages = MAIN_PATH if up else ()
    if cloud:
        cloud_stages = on_a_cloud("slow_cloud" if thorough else "slow_cloud and not thorough")
    if virtual_machines:
        checks, stages, cloud_stages = (), [], VIRTUAL_MACHINES
    if monitoring:
        checks, stages, cloud_stages = (), [], MONITORED
    # The type checker takes one core for half a minute, in which tests often wait: it runs beside them.
    with ThreadPoolExecutor() as pool:
        beside = [pool.submit(checked, name, command) for name, command in checks]
        for name, command in [*stages, *cloud_stages]:
            print(heading(name, command), flush=True)
            start = time.monotonic()
            added = environment if (name, command) in cloud_stages else {}
            with TemporaryDirectory() as folder:
                report = Path(folder) / "report.xml"
                reported = command
                if command[: len(PYTEST)] == PYTEST:
                    reported = [*PYTEST, f"--junitxml={report}", *command[len(PYTEST) :]]
                status = subprocess.run(reported, cwd=ROOT, check=False, env={**os.environ, **added}).returncode
                cases += junit.read(report)
            results.append(row(name, status, time.monotonic() - start))
            while beside:
                printed, of_check = beside.pop(0).result()
                print(printed, flush=True)
                results.append(of_check)
    print("\n" + table(("STAGE", "RESULT", "TIME"), results))
    if len(cases) > junit.SLOWEST:
        print("\n" + junit.times(cases))
    if failures := junit.failures(cases):
        print("\nFailed tests:\n" + "\n".join(failures))
    if any(result != "passed" for _, result, _ in results):
        raise typer.Exit(ExitCode.ERROR)


def checked(name: str, command: list[str]) -> tuple[str, tuple[str, str, str]]:
    """What a check prints, with its heading, and its row of the summary."""
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return f"{heading(name, command)}\n{done.stdout}", row(name, done.returncode, time.monotonic() - start)


def heading(name: str, command: list[str]) -> str:
    """What stands above a stage's output."""
    return f"== {name}: {' '.join([Path(command[0]).name, *command[1:]])}"


def row(name: str, status: int, seconds: float) -> tuple[str, str, str]:
    """A stage's row of the summary."""
    return name, "passed" if status == 0 else f"failed ({status})", f"{seconds:.1f} s"


def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The benchmark. Default: list them.", metavar="[NAME]")] = None,
) -> None:
    """Run a benchmark of tests/bench, with its own arguments."""
    names = {path.stem for path in (ROOT / "tests" / "bench").glob("[!_]*.py")}
    benchmarks = sorted(name for name in names if name != "conftest" and not name.startswith("test_"))
    if name is None:
        print("\n".join(benchmarks))
        return
    if name not in benchmarks:
        raise LabError(
            f"benchmark '{name}' does not exist",
            remedy=f"choose one of: {', '.join(benchmarks)}",
            code=ExitCode.CONFIGURATION,
        )
    session: Session = context.obj
    chosen = {"LAB_CWD": str(session.cwd)} | ({"PULUMI_STACK": session.stack_option} if session.stack_option else {})
    os.chdir(ROOT)
    # Replaces this process, so that the benchmark handles Ctrl-C and cleans up.
    os.execve(sys.executable, [sys.executable, "-m", f"tests.bench.{name}", *context.args], os.environ | chosen)  # noqa: S606
