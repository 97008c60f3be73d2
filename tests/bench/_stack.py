"""What the benchmarks of a running platform share: which stack's it is, and figures."""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import LabError, exit_code, report
from cli.session import ROOT, Session
from cli.workloads import Platform
from engine.errors import EngineError
from providers.framework import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 2**20


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that say which stack is meant."""
    made = argparse.ArgumentParser(
        prog=f"lab bench {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--stack", help="the stack; the selected one by default")
    project = os.environ.get("LAB_CWD", ROOT)
    made.add_argument("--cwd", type=Path, default=project, help="folder of its project; this repository by default")
    return made


def session_of(arguments: argparse.Namespace) -> Session:
    """What the verbs of `lab` would work on."""
    cwd = arguments.cwd.resolve()
    return Session(cwd, arguments.stack, "embedded", interactive=False, color="never", verbose=False)


def platform_of(arguments: argparse.Namespace) -> Platform:
    """The platform of the stack that is meant.

    Raises:
        LabError: it has none.
    """
    return Platform.of(session_of(arguments))


def reported(main: Callable[[], None]) -> Callable[[], None]:
    """A benchmark whose troubles are told as `lab` tells its own."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except EngineError as error:
            report(error)
            sys.exit(exit_code(error))
        except ProviderError as error:
            report(LabError(error.args[0], remedy=error.remedy))
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    return wrapped


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` % of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]
