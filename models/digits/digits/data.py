"""The dataset: scikit-learn's 1,797 images of 8 by 8 pixels, as one CSV file that DVC keeps and versions in S3."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import numpy as np
import yaml
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from digits.settings import BAD_DATA, UNAVAILABLE, DigitsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvc.repo import Repo
    from numpy.typing import NDArray

FILE = "digits.csv"
POINTER = f"{FILE}.dvc"
PIXELS, CLASSES, BRIGHTEST = 64, 10, 16
ROWS_OF_CLASS = 100  # fewer make the floor of a class' recall a matter of luck
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Dataset:
    """Pixels, 0 to 16, and the digit that they show; a row an image."""

    version: str
    pixels: NDArray[np.float64]
    labels: NDArray[np.int64]

    def split(self) -> tuple[Dataset, Dataset]:
        """Rows to train on and rows to test with: of one version always the same ones."""
        parts = train_test_split(
            self.pixels, self.labels, test_size=TEST_SHARE, stratify=self.labels, random_state=0
        )  # fmt: skip
        train_pixels, test_pixels, train_labels, test_labels = parts
        return Dataset(self.version, train_pixels, train_labels), Dataset(self.version, test_pixels, test_labels)


def packaged() -> bytes:
    """The dataset as scikit-learn ships it."""
    pixels, labels = load_digits(return_X_y=True)
    table = np.column_stack([pixels, labels]).astype(int)
    header = ",".join([*(f"pixel{number}" for number in range(PIXELS)), "label"])
    lines = [header, *(",".join(map(str, row)) for row in table)]
    return ("\n".join(lines) + "\n").encode()


def validated(content: bytes) -> Dataset:
    """The dataset in a file.

    Raises:
        DigitsError: it is not what training expects; all faults are named.
    """
    try:
        table = np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise DigitsError(f"{FILE} is not a table of numbers: {error}", BAD_DATA) from error
    if table.shape[1] != PIXELS + 1:
        raise DigitsError(f"{FILE} has {table.shape[1]} columns, not {PIXELS} pixels and a label", BAD_DATA)
    pixels, labels = table[:, :PIXELS], table[:, PIXELS]
    if faults := list(_faults(pixels, labels)):
        raise DigitsError(f"{FILE} cannot be trained on: {'; '.join(faults)}", BAD_DATA)
    return Dataset(_md5(content), pixels, labels.astype(np.int64))


def _faults(pixels: NDArray[np.float64], labels: NDArray[np.float64]) -> Iterator[str]:
    wrong = ~((pixels >= 0) & (pixels <= BRIGHTEST)).all(axis=1)  # true of what is not a number, too
    if wrong.any():
        yield f"{wrong.sum()} rows with pixels outside 0 to {BRIGHTEST}, the first in line {wrong.argmax() + 2}"
    wrong = ~np.isin(labels, range(CLASSES))
    if wrong.any():
        yield f"{wrong.sum()} labels that are no digit, the first in line {wrong.argmax() + 2}"
    for digit in range(CLASSES):
        if (rows := int((labels == digit).sum())) < ROWS_OF_CLASS:
            yield f"{rows} images of {digit}, fewer than {ROWS_OF_CLASS}"


def ingest(url: str, content: bytes) -> Dataset:
    """Check a dataset, keep it in S3 below `url`, and make it the current one.

    Raises:
        DigitsError: it is faulty, or S3 cannot be reached.
    """
    dataset = validated(content)
    with tempfile.TemporaryDirectory() as folder:
        repository = _repository(Path(folder), url)
        Path(folder, FILE).write_bytes(content)
        with _reaching(url):
            repository.add(str(Path(folder, FILE)))
            repository.push()
            bucket, key = _pointer(url)
            boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=Path(folder, POINTER).read_bytes())
        repository.close()
    return dataset


def fetch(url: str, version: str | None = None) -> Dataset:
    """The dataset of a version (DVC's MD5 of its content), else the current one.

    Raises:
        DigitsError: there is none, it is not what its version says, or S3 cannot be reached.
    """
    with tempfile.TemporaryDirectory() as folder, _reaching(url):
        if version is None:
            bucket, key = _pointer(url)
            text = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            version = str(yaml.safe_load(text)["outs"][0]["md5"])
        repository = _repository(Path(folder), url)
        out = {"md5": version, "hash": "md5", "path": FILE}
        Path(folder, POINTER).write_text(yaml.safe_dump({"outs": [out]}))
        repository.pull()
        repository.close()
        content = Path(folder, FILE).read_bytes()
    dataset = validated(content)
    if dataset.version != version:
        raise DigitsError(f"the dataset kept as {version} has the MD5 {dataset.version}", BAD_DATA)
    return dataset


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Tells what S3 and DVC say as an error that a user can act on."""
    from dvc.exceptions import DvcException  # noqa: PLC0415 - takes a second, and most commands do not need it

    try:
        yield
    except (BotoCoreError, ClientError, DvcException, OSError) as error:
        raise DigitsError(
            f"the dataset in {url} cannot be had: {error}; is it ingested, and are AWS_ENDPOINT_URL and the credentials"
            " right?",
            UNAVAILABLE,
        ) from error


def _repository(folder: Path, url: str) -> Repo:
    """A DVC repository without Git, that has one remote."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ["DVC_SITE_CACHE_DIR"] = str(folder / "site")
    from dvc.repo import Repo  # noqa: PLC0415 - reads the environment

    repository = Repo.init(str(folder), no_scm=True)
    with repository.config.edit() as config:
        config["remote"]["storage"] = {"url": f"{url}/versions"}
        config["core"]["remote"] = "storage"
    repository.close()
    return Repo(str(folder))


def _pointer(url: str) -> tuple[str, str]:
    """Bucket and key of what names the current version."""
    parts = urlsplit(url)
    return parts.netloc, f"{parts.path.strip('/')}/{POINTER}"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
