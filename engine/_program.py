"""Runs a Pulumi program in a process of its own: ``python _program.py``, with the settings as JSON on standard input.

Settings come through a pipe because they hold decrypted secrets, which neither arguments nor the environment should.
"""

import asyncio
import gc
import json
import logging
import os
import runpy
import sys
import traceback
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

EXIT_ERROR_SHOWN = 32
"""The error is with the engine already; the CLI's language host uses the same status."""
GARBAGE_THRESHOLD = 100_000
"""Of new objects. Python's own, 700, has the collector go through all outputs again and again: a third of the time."""
MONITOR_GONE = "Resource monitor has terminated, shutting down"
"""What the SDK says when the engine refuses to go on, having said why."""


def main() -> int:
    # This script's own folder: its modules are not the program's to import.
    sys.path.pop(0)
    try:
        import pulumi  # noqa: PLC0415
        import pulumi.runtime  # noqa: PLC0415
    except ImportError as error:
        print(f"the Pulumi SDK is not installed in {sys.prefix}: {error}", file=sys.stderr)
        return 1
    settings = json.load(sys.stdin)
    sys.path.insert(0, settings["pwd"])
    pulumi.runtime.set_all_config(settings["config"], settings["config_secret_keys"])
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=settings["address"],
            engine=settings["address"],
            project=settings["project"],
            stack=settings["stack"],
            organization="organization",
            parallel=settings["parallel"],
            dry_run=settings["dry_run"],
            root_directory=settings["root"],
        )
    )
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    _silence_sdk(pulumi.log)
    _await_in_batches(pulumi.runtime.stack)
    program = settings["program"]
    sys.argv = [program]
    os.chdir(settings["pwd"])
    # A failed resource leaves futures that nobody awaits; asyncio would complain about each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # The SDK blocks one thread for each call to the engine: as many as there can be registrations under way.
    executor = ThreadPoolExecutor(max_workers=max(settings["parallel"], 1) * 4)
    loop.set_default_executor(executor)
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: _run(program)))
    except pulumi.RunError as error:
        if str(error) != MONITOR_GONE:
            pulumi.log.error(str(error))
        return EXIT_ERROR_SHOWN
    except Exception:
        pulumi.log.error(f"Program failed with an unhandled exception:\n{_user_trace(program)}")
        return EXIT_ERROR_SHOWN
    finally:
        executor.shutdown(wait=True)
        loop.close()
    return 0


def _silence_sdk(log: Any) -> None:
    """Keep the SDK's own debug messages here: at four calls a resource they are half of all that goes to the engine."""
    debug = log.debug

    def debug_of_program(*args: Any, **kwargs: Any) -> None:
        if not sys._getframe(1).f_globals["__name__"].startswith("pulumi."):
            debug(*args, **kwargs)

    log.debug = debug_of_program


def _await_in_batches(stack: Any) -> None:
    """Let the SDK await the outputs that are left together, for a second at most, or until one fails.

    It awaits them until the first is there, then the rest anew, going through all of them each time: with 3000
    resources that took it over a minute.
    """

    async def wait(tasks: Any, **_: Any) -> Any:
        return await asyncio.wait(tasks, timeout=1.0, return_when=asyncio.FIRST_EXCEPTION)

    batches = types.ModuleType(asyncio.__name__)
    batches.__dict__.update(vars(asyncio) | {"wait": wait})
    stack.asyncio = batches


def _run(program: str) -> None:
    runpy.run_path(program, run_name="__main__")


def _user_trace(program: str) -> str:
    """The traceback from the program's own first frame on."""
    _, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    inside = {str(Path(program)), str(Path(program) / "__main__.py")}
    first = next((index for index, frame in enumerate(frames) if frame.filename in inside), 0)
    shown = traceback.format_list(frames[first:])
    return "".join(["Traceback (most recent call last):\n", *shown, *traceback.format_exception_only(error)])


if __name__ == "__main__":
    sys.exit(main())
