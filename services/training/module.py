"""A model's own code: fetched as of an archive, imported, called; what it does wrong is told with its line."""

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
from services.training.errors import FAULTY, SETTINGS, UNAVAILABLE, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from services.training.settings import Told

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

    def call(self, function: str, *given: Any, **options: Any) -> Any:
        """What a function of the module gives; of `options` it gets those that it takes.

        Raises:
            TrainingError: it raised something.
        """
        called: Callable[..., Any] = getattr(self.module, function)
        taken = inspect.signature(called).parameters
        with blamed(self.folder, function):
            return called(*given, **{name: value for name, value in options.items() if name in taken})


def fetched(told: Told) -> Code:
    """The model that the environment names, as of its archive.

    Raises:
        TrainingError: the object store has no such archive, or it is faulty.
    """
    if not told.model or not DIGEST.fullmatch(told.archive):
        raise TrainingError("MODEL_NAME and MODEL_CODE do not name a model and the SHA-256 of its archive", SETTINGS)
    bucket, _, prefix = told.code_url.removeprefix("s3://").partition("/")
    key = f"{prefix.strip('/')}/{told.archive}.tar".lstrip("/")
    try:
        content = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except (BotoCoreError, ClientError) as error:
        raise TrainingError(
            f"the code of {told.model}, s3://{bucket}/{key}, cannot be had: {error}; `lab train` puts it there",
            UNAVAILABLE,
        ) from error
    folder = Path(tempfile.mkdtemp(prefix="code-"), told.model)
    folder.mkdir()
    unpack(content, told.archive, folder)
    return load(folder)


def load(folder: Path) -> Code:
    """The model in a folder.

    Raises:
        TrainingError: its settings or its module are faulty.
    """
    model = settings.read(folder)
    name = settings.module_name(model.name)
    if not (folder / f"{name}.py").is_file():
        raise TrainingError(f"{model.name} has no module {name}.py", FAULTY)
    # What the module keeps of itself in a model is found by its name: it is imported as any other.
    sys.path.insert(0, str(folder))
    with blamed(folder, "its import"):
        module = importlib.import_module(name)
    if missing := [one for one in REQUIRED if not callable(getattr(module, one, None))]:
        raise TrainingError(f"{model.name}/{name}.py has no function {' and no function '.join(missing)}", FAULTY)
    if model.variants and "variant" not in inspect.signature(module.train).parameters:
        raise TrainingError(
            f"{model.name}/{name}.py: `train` does not take `variant`, and {settings.FILE} has variants", FAULTY
        )
    return Code(model, module, folder)


@contextmanager
def blamed(folder: Path, what: str) -> Iterator[None]:
    """Tells what a model's own code raises, with the line; the way there goes to standard error."""
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
        told = " ".join(str(error).split()) or "no reason given"
        raise TrainingError(
            f"{place or folder.name}, in {what}: {type(error).__name__}: {told[:1000]}", FAULTY
        ) from error
