"""Reads from MLflow's model registry what a stage is to serve: the version of an alias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model; no such alias
DENIED = "PERMISSION_DENIED"  # reading a model that does not exist is denied


class RegistryError(Exception):
    """The registry does not answer, or its answer is not valid."""


@dataclass(frozen=True)
class Answer:
    """What a stage is to serve: a version and where its files are; or nothing, and the reason."""

    version: str | None = None
    source: str = ""
    withdrawn: str | None = None
    """The version that was taken down on purpose (tag `withdrawn.<alias>` of the registered model)."""
    reason: str = ""


class Registry:
    """A reader of the registry."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def look_up(self, model: str, alias: str) -> Answer:
        """What a stage is to serve.

        Raises:
            RegistryError: the registry does not answer, or its answer is not valid.
        """
        return self._read(model, lambda: self._look_up(model, alias))

    def version(self, model: str, version: str) -> Answer:
        """A version and where its files are; nothing if it was deleted.

        Raises:
            RegistryError: the registry does not answer, or its answer is not valid.
        """
        return self._read(model, lambda: self._version(model, version))

    def _read(self, model: str, read: Callable[[], Answer]) -> Answer:
        try:
            return read()
        except RegistryError:
            raise
        except MlflowException as error:
            if error.error_code in {*MISSING, DENIED}:
                return Answer(reason=f"the registry has no model {model}")
            raise RegistryError(_line(error)) from error
        except Exception as error:  # the client may fail in any way on an unexpected answer
            raise RegistryError(f"{type(error).__name__}: {_line(error)}") from error

    def _version(self, model: str, version: str) -> Answer:
        return Answer(version, str(self._client.get_model_version_download_uri(model, version)))

    def _look_up(self, model: str, alias: str) -> Answer:
        try:
            version = str(self._client.get_model_version_by_alias(model, alias).version)
            if not version.isdecimal():
                raise RegistryError(f"the version of {model}@{alias} is {version!r}, which is not a number")
            return self._version(model, version)
        except MlflowException as error:
            if error.error_code not in MISSING:
                raise
        found = self._client.get_registered_model(model)
        if found.name != model:
            raise RegistryError(f"the registry returned {found.name!r} instead of {model}")
        return Answer(withdrawn=found.tags.get(f"withdrawn.{alias}"), reason=f"{model} has no alias {alias}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
