"""Runs a Pulumi program, or a policy pack, in a process of its own: ``python _program.py``, settings as JSON on stdin.

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
"""The engine has reported the error already; the CLI's language host exits with the same status."""
GARBAGE_THRESHOLD = 100_000
"""New objects per collection. With Python's default of 700 the collector takes a third of the time."""
MONITOR_GONE = "Resource monitor has terminated, shutting down"
"""The SDK's message when the engine ends a program after an error that it has reported."""


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
    if settings["policy_pack"]:
        return _run_policy_pack(settings)
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
    # A failed resource leaves futures that nobody awaits; asyncio would log each of them.
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


def _run_policy_pack(settings: dict[str, Any]) -> int:
    """Serve a policy pack's analyzer until the process is ended."""
    # The policy SDK reads them again at each call. What is set here, the process's own environ file does not show.
    os.environ.update(
        PULUMI_CONFIG=json.dumps(settings["config"]),
        PULUMI_ORGANIZATION="organization",
        PULUMI_PROJECT=settings["project"],
        PULUMI_STACK=settings["stack"],
        PULUMI_DRY_RUN=str(settings["dry_run"]).lower(),
    )
    program = settings["program"]
    sys.argv = [program]
    os.chdir(settings["pwd"])
    try:
        _run(program)
    except Exception:
        print(_user_trace(program), end="", file=sys.stderr)
        return EXIT_ERROR_SHOWN
    return 0


def _silence_sdk(log: Any) -> None:
    """Drop the SDK's own debug messages: at four calls per resource they are half of all calls to the engine."""
    debug = log.debug

    def debug_of_program(*args: Any, **kwargs: Any) -> None:
        if not sys._getframe(1).f_globals["__name__"].startswith("pulumi."):
            debug(*args, **kwargs)

    log.debug = debug_of_program


def _await_in_batches(stack: Any) -> None:
    """Let the SDK await the outputs that are left together, for a second at most, or until one fails.

    The SDK's own loop goes through all outputs after each one: over a minute with 3000 resources.
    """

    async def wait(tasks: Any, **_: Any) -> Any:
        return await asyncio.wait(tasks, timeout=1.0, return_when=asyncio.FIRST_EXCEPTION)

    batches = types.ModuleType(asyncio.__name__)
    batches.__dict__.update(vars(asyncio) | {"wait": wait})
    stack.asyncio = batches


def _run(program: str) -> None:
    # The file, not the folder: of a folder, bytecode would be run, which counts as current where a file was changed in
    # the second of the last run, to the same size.
    main = Path(program) / "__main__.py"
    runpy.run_path(str(main) if main.is_file() else program, run_name="__main__")


def _user_trace(program: str) -> str:
    """The traceback from the program's own first frame on; without one, as for a syntax error, the error alone."""
    _, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    inside = {str(Path(program)), str(Path(program) / "__main__.py")}
    first = next((index for index, frame in enumerate(frames) if frame.filename in inside), len(frames))
    shown = ["Traceback (most recent call last):\n", *traceback.format_list(frames[first:])]
    return "".join([*(shown if len(shown) > 1 else []), *traceback.format_exception_only(error)])


if __name__ == "__main__":
    sys.exit(main())
