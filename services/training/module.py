"""A model's own code: fetched as an archive, imported and called; errors name its file and line."""

from __future__ import annotations

import importlib
import inspect
import linecache
import sys
import tempfile
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from services.training import settings
from services.training.archive import DIGEST, unpack
from services.training.errors import BAD_CODE, SETTINGS, UNAVAILABLE, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from services.training.settings import JobSettings

REQUIRED = ("train", "evaluate")


@dataclass(frozen=True)
class Code:
    """A model's settings, and its module."""

    settings: settings.Model
    module: ModuleType
    folder: Path

    def has(self, function: str) -> bool:
        """Whether the module has a function."""
        return callable(getattr(self.module, function, None))

    def call(self, function: str, *arguments: Any, **options: Any) -> Any:
        """Call a function of the module, with those of `options` that it accepts.

        Raises:
            TrainingError: the function raised an exception.
        """
        called: Callable[..., Any] = getattr(self.module, function)
        accepted = inspect.signature(called).parameters
        with code_errors(self.folder, function):
            return called(*arguments, **{name: value for name, value in options.items() if name in accepted})


def fetch(job: JobSettings) -> Code:
    """Fetch the job's archive from the object store, unpack it and load the model.

    Raises:
        TrainingError: the object store has no such archive, or the archive or its code is not valid.
    """
    if not job.model or not DIGEST.fullmatch(job.archive):
        raise TrainingError("MODEL_NAME and MODEL_CODE must name a model and the SHA-256 of its archive", SETTINGS)
    bucket, _, prefix = job.code_url.removeprefix("s3://").partition("/")
    key = f"{prefix.strip('/')}/{job.archive}.tar".lstrip("/")
    try:
        content = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except (BotoCoreError, ClientError) as error:
        raise TrainingError(
            f"the code of {job.model}, s3://{bucket}/{key}, is not available: {error}; `lab train` uploads it",
            UNAVAILABLE,
        ) from error
    folder = Path(tempfile.mkdtemp(prefix="code-"), job.model)
    folder.mkdir()
    unpack(content, job.archive, folder)
    return load(folder)


def load(folder: Path) -> Code:
    """Load the model in a folder.

    Raises:
        TrainingError: its settings or its module are not valid.
    """
    model = settings.read(folder)
    name = settings.module_name(model.name)
    if not (folder / f"{name}.py").is_file():
        raise TrainingError(f"{model.name} has no module {name}.py", BAD_CODE)
    # Pickled models refer to the module by its name, so it is imported as any other.
    sys.path.insert(0, str(folder))
    with code_errors(folder, "its import"):
        module = importlib.import_module(name)
    if missing := [one for one in REQUIRED if not callable(getattr(module, one, None))]:
        raise TrainingError(f"{model.name}/{name}.py has no function {' and no function '.join(missing)}", BAD_CODE)
    if model.variants and "variant" not in inspect.signature(module.train).parameters:
        raise TrainingError(
            f"{model.name}/{name}.py: `train` does not take `variant`, and {settings.FILE} has variants", BAD_CODE
        )
    return Code(model, module, folder)


@contextmanager
def code_errors(folder: Path, what: str) -> Iterator[None]:
    """Turn exceptions of a model's own code into TrainingError with file and line; print the traceback."""
    try:
        yield
    except TrainingError:
        raise
    except (Exception, SystemExit) as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).is_relative_to(folder)]
        place = (
            f"{folder.name}/{Path(frames[-1].filename).relative_to(folder)}, line {frames[-1].lineno}" if frames else ""
        )
        if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(folder):
            place = f"{folder.name}/{Path(error.filename).relative_to(folder)}, line {error.lineno}"
        linecache.checkcache()
        traceback.print_exception(error)
        text = " ".join(str(error).split()) or "no reason given"
        raise TrainingError(
            f"{place or folder.name}, in {what}: {type(error).__name__}: {text[:1000]}", BAD_CODE
        ) from error
