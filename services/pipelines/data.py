"""Which version of a model's dataset is the current one: a file on S3 names it (services/training/datasets.py)."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

import yaml
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from services.pipelines.errors import PipelineError

BUCKET = "datasets"
SECONDS_TO_ANSWER = 20


def current(model: str) -> str | None:
    """The version that was ingested last (DVC's MD5); None where there is none.

    Raises:
        PipelineError: S3 does not answer, or refuses.
    """
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/{model}/{model}.csv.dvc"
    signed = AWSRequest(method="GET", url=url)
    login = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    S3SigV4Auth(login, "s3", os.environ.get("AWS_DEFAULT_REGION", "us-east-1")).add_auth(signed)
    request = urllib.request.Request(url, headers=dict(signed.headers.items()))  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:  # noqa: S310
            return str(yaml.safe_load(answer.read())["outs"][0]["md5"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise PipelineError(f"the object store answers {error.code} about the dataset of {model}") from None
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise PipelineError(f"the object store does not say the dataset's version of {model}: {error}") from error
