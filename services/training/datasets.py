"""Datasets: one CSV file per model with a label column, which DVC stores and versions in S3."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import yaml
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split

from services.training.errors import BAD_CODE, BAD_DATA, UNAVAILABLE, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvc.repo import Repo
    from numpy.typing import NDArray

    from services.training.module import Code

MIN_ROWS = 10


@dataclass(frozen=True)
class Table:
    """Rows of a version of the dataset."""

    version: str
    rows: Any
    """A pandas DataFrame."""
    label: str
    aside: list[str]

    @property
    def features(self) -> NDArray[Any]:
        """The feature columns, (n, k): float64, or objects if a column has anything but numbers."""
        values = self.rows.drop(columns=[self.label, *self.aside]).to_numpy()
        try:
            return np.ascontiguousarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            return np.ascontiguousarray(values, dtype=object)

    @property
    def labels(self) -> NDArray[Any]:
        """The label of each row, (n,)."""
        return np.asarray(self.rows[self.label].to_numpy())

    def split(self, share: float, *, stratify: bool) -> tuple[Table, Table]:
        """Rows to train on and rows to test with; always the same ones for a version.

        Raises:
            TrainingError: scikit-learn cannot split the rows so.
        """
        try:
            parts = train_test_split(
                self.rows, test_size=share, random_state=0, stratify=self.rows[self.label] if stratify else None
            )
        except ValueError as error:
            remedy = "; for a numeric label set `data: {stratify: false}`" if stratify else ""
            raise TrainingError(
                f"the rows cannot be split by column {self.label}: {error}{remedy}", BAD_DATA
            ) from error
        train, test = (Table(self.version, part.reset_index(drop=True), self.label, self.aside) for part in parts)
        return train, test


def from_module(code: Code) -> bytes:
    """The dataset that the module's `data` returns, as CSV.

    Raises:
        TrainingError: it does not return a DataFrame.
    """
    found = code.call("data")
    if not isinstance(found, pd.DataFrame):
        raise TrainingError(f"`data` of {code.settings.name} returns {type(found).__name__}, not a DataFrame", BAD_CODE)
    return bytes(found.to_csv(index=False, lineterminator="\n").encode())


def validate(code: Code, content: bytes) -> Table:
    """Read and validate a dataset from CSV.

    Raises:
        TrainingError: it is not valid; the message lists all errors.
    """
    name, data = code.settings.name, code.settings.data
    try:
        rows = pd.read_csv(io.BytesIO(content), float_precision="round_trip")
    except ValueError as error:
        raise TrainingError(f"the dataset of {name} is not CSV: {error}", BAD_DATA) from error
    errors = [f"there is no column {column}" for column in (data.label, *data.aside) if column not in rows.columns]
    if not errors:
        if missing := int(rows[data.label].isna().sum()):
            errors.append(f"{missing} rows without {data.label}")
        if code.has("faults"):
            errors += [str(fault) for fault in code.call("faults", rows)]
    if len(rows) < MIN_ROWS:
        errors.append(f"{len(rows)} rows, fewer than {MIN_ROWS}")
    if errors:
        raise TrainingError(f"the dataset of {name} is not valid: {'; '.join(errors)}", BAD_DATA)
    return Table(hashlib.md5(content, usedforsecurity=False).hexdigest(), rows, data.label, list(data.aside))


def ingest(code: Code, url: str, content: bytes) -> Table:
    """Validate a dataset, store it in S3 below `url`, and make it the current version.

    Raises:
        TrainingError: it is not valid, or S3 cannot be reached.
    """
    table, file = validate(code, content), f"{code.settings.name}.csv"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        repository = _repository(folder, f"{url}/{code.settings.name}")
        (folder / file).write_bytes(content)
        with _s3_errors(f"{url}/{code.settings.name}"):
            repository.add(str(folder / file))
            repository.push()
            bucket, key = _pointer(url, code)
            boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=(folder / f"{file}.dvc").read_bytes())
        repository.close()
    return table


def fetch(code: Code, url: str, version: str | None = None) -> Table:
    """The dataset of a version (DVC's MD5 of its content), by default the current one.

    Raises:
        TrainingError: there is none, its content does not match the version, or S3 cannot be reached.
    """
    file, where = f"{code.settings.name}.csv", f"{url}/{code.settings.name}"
    with tempfile.TemporaryDirectory() as scratch, _s3_errors(where):
        folder = Path(scratch)
        if version is None:
            bucket, key = _pointer(url, code)
            text = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            version = str(yaml.safe_load(text)["outs"][0]["md5"])
        repository = _repository(folder, where)
        out = {"md5": version, "hash": "md5", "path": file}
        (folder / f"{file}.dvc").write_text(yaml.safe_dump({"outs": [out]}))
        repository.pull()
        repository.close()
        content = (folder / file).read_bytes()
    table = validate(code, content)
    if table.version != version:
        raise TrainingError(f"the dataset stored as {version} has the MD5 {table.version}", BAD_DATA)
    return table


@contextmanager
def _s3_errors(url: str) -> Iterator[None]:
    """Turn errors of S3 and DVC into TrainingError."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 - takes a second, and most commands do not need it

    try:
        yield
    except (BotoCoreError, ClientError, DvcException, OSError) as error:
        raise TrainingError(
            f"the dataset in {url} is not available: {error}; is it ingested, and are AWS_ENDPOINT_URL and the"
            " credentials correct?",
            UNAVAILABLE,
        ) from error


def _repository(folder: Path, url: str) -> Repo:
    """A DVC repository without Git, with one remote."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ["DVC_SITE_CACHE_DIR"] = str(folder / "site")
    from dvc.repo import Repo  # noqa: PLC0415 - reads the environment

    repository = Repo.init(str(folder), no_scm=True)
    with repository.config.edit() as config:
        config["remote"]["storage"] = {"url": f"{url}/versions"}
        config["core"]["remote"] = "storage"
    repository.close()
    return Repo(str(folder))


def _pointer(url: str, code: Code) -> tuple[str, str]:
    """Bucket and key of the file that names the current version."""
    bucket, _, prefix = f"{url}/{code.settings.name}".removeprefix("s3://").partition("/")
    return bucket, f"{prefix}/{code.settings.name}.csv.dvc"
