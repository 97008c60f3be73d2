"""`python -m services.pipelines serve` and `run ID`: the service, and the worker of one run."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from services.pipelines.errors import PipelineError
from services.pipelines.models import MODELS, text

if TYPE_CHECKING:
    from collections.abc import Callable

CODE_PORT, WEB_PORT = 4266, int(os.environ.get("PORT", "3000"))
DEFINITIONS = "services.pipelines.definitions"
SECONDS_BETWEEN, SECONDS_TO_END = 30.0, 10.0
# All that the three processes import by and by: they are copies of one that has it, and share the memory.
SHARED = (
    "dagster._cli.api", "dagster._core.workspace.context", "dagster._daemon.cli", "dagster._daemon.monitoring",
    "dagster._daemon.sensor", "dagster._grpc.server", "dagster._scheduler.scheduler", "dagster_graphql.schema",
    "dagster_postgres", "dagster_webserver.app", "dagster_webserver.cli", "psycopg2", "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto", DEFINITIONS,
)  # fmt: skip
log = logging.getLogger("pipelines")


def _code() -> None:
    from dagster._cli.api import api_cli  # noqa: PLC0415

    api_cli(["grpc", "-m", DEFINITIONS, "-h", "127.0.0.1", "-p", str(CODE_PORT), "--location-name", "pipelines"])


def _daemon() -> None:
    from dagster._daemon.cli import run_command  # noqa: PLC0415

    run_command(["-w", os.environ["WORKSPACE"], "--log-level", "warning"])


def _web() -> None:
    from dagster_webserver.cli import dagster_webserver  # noqa: PLC0415

    dagster_webserver(
        ["-w", os.environ["WORKSPACE"], "-h", os.environ.get("HOST", "0.0.0.0"), "-p", str(WEB_PORT)]  # noqa: S104
    )


PARTS: tuple[Callable[[], None], ...] = (_code, _daemon, _web)


def serve() -> int:
    """Run all three parts until one ends, or the cluster's models are others: then all end, and are started anew."""
    models = _models()
    for module in SHARED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is shared stays so: the collector does not touch it
    running: dict[int, str] = {}
    for part in PARTS:
        if pid := os.fork():
            running[pid] = part.__name__.strip("_")
            continue
        try:
            part()
        finally:
            os._exit(1)
    ending = signal.SIGTERM
    stop: list[int] = []
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda number, _: stop.append(number))
    looked = time.monotonic()
    while not stop:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid:
            log.error("the part `%s` ended: all are started anew", running.pop(pid))
            break
        if time.monotonic() - looked > SECONDS_BETWEEN:
            looked = time.monotonic()
            if _changed(models):
                log.warning("the cluster's models are others now: all is started anew")
                break
        time.sleep(0.2)
    _end(running, ending)
    return 0 if stop else 1


def _changed(models: str) -> bool:
    try:
        return text() != models
    except PipelineError as error:
        log.warning("will look again: %s", error)
        return False


def _models() -> str:
    """What the cluster says of its models, as soon as it does; kept where the processes that come find it."""
    while True:
        try:
            found = text()
        except PipelineError as error:
            log.warning("will try again: %s", error)
            time.sleep(2)
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            file.write(found)
        os.environ[MODELS] = file.name
        return found


def _end(running: dict[int, str], signum: int) -> None:
    """End the parts; those that take too long at once."""
    deadline = time.monotonic() + SECONDS_TO_END
    for pid in running:
        os.kill(pid, signum)
    while running:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        running.pop(pid, None)
        if time.monotonic() > deadline:
            for left in running:
                os.kill(left, signal.SIGKILL)
            deadline += SECONDS_TO_END
        time.sleep(0.1)


def run(run_id: str) -> int:
    """Do a run, to its end."""
    from dagster import DagsterInstance  # noqa: PLC0415
    from dagster._cli.api import execute_run_command  # noqa: PLC0415
    from dagster._grpc.types import ExecuteRunArgs  # noqa: PLC0415
    from dagster._serdes import serialize_value  # noqa: PLC0415

    _models()
    with DagsterInstance.get() as instance:
        found = instance.get_run_by_id(run_id)
    if found is None or found.job_code_origin is None:
        log.error("there is no run %s", run_id)
        return 1
    told = serialize_value(ExecuteRunArgs(found.job_code_origin, run_id, None))
    execute_run_command([told], standalone_mode=False)
    return 0


def main() -> int:
    """As the arguments say."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    match sys.argv[1:]:
        case ["serve"]:
            return serve()
        case ["run", run_id]:
            return run(run_id)
    sys.stderr.write("usage: python -m services.pipelines serve | run ID\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
