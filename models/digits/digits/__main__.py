"""`python -m digits COMMAND`; `README.md` says what each takes and exits with."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from digits.settings import BAD_DATA, UNAVAILABLE, DigitsError, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from digits.data import Dataset

# What takes seconds to import is imported by the commands that need it.
# ruff: noqa: PLC0415
STAGES = ("staging", "canary", "production")
VARIANTS = ("sklearn", "torch", "bad")
Parameters = ParamSpec("Parameters")
variant_option = click.option("--variant", type=click.Choice(VARIANTS), default="sklearn", show_default=True)
seed_option = click.option("--seed", type=int, default=0, show_default=True)
data_option = click.option("--data-version", help="The dataset's version (default: the current one).")
stage_option = click.option("--to", "stage", type=click.Choice(STAGES), required=True)
incident_option = click.option("--incident", help="What it mends, where it was not planned.")


def say(text: str) -> None:
    """Tell whoever follows the run what is done; standard output is the result's. Only the first of workers says it."""
    if os.environ.get("RANK", "0") == "0":
        click.echo(text, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Handwritten digits: from data to a promoted model."""


def told(command: Callable[Parameters, dict[str, Any]]) -> Callable[Parameters, None]:
    """Print what a command gives as JSON, and write it to the file that DIGITS_RESULT names; the same with errors."""

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from mlflow.exceptions import MlflowException

        settings = Settings()
        code = 0
        try:
            result = command(*args, **kwargs)
        except DigitsError as error:
            result, code = {"error": str(error)}, error.code
        except (MlflowException, BotoCoreError, ClientError) as error:
            result, code = {"error": f"the tracking server or its object store says: {error}"}, UNAVAILABLE
        text = json.dumps(result)
        if settings.result and result:  # workers but the first have none, and may share the file with it
            Path(settings.result).write_text(text)
        if code:
            click.echo(f"error: {result['error']}", err=True)
        elif result:
            click.echo(text)
        sys.exit(code)

    return wrapped


@cli.command()
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: scikit-learn's.")
@told
def ingest(file: Path | None) -> dict[str, Any]:
    """Check the dataset, keep it in S3 and make it the current version."""
    from digits import data

    found = data.ingest(Settings().data_url, file.read_bytes() if file else data.packaged())
    return {"data_version": found.version, "rows": len(found.labels)}


@cli.command()
@variant_option
@seed_option
@data_option
@told
def train(variant: str, seed: int, data_version: str | None) -> dict[str, Any]:
    """Train a variant, and log it as a run of MLflow. Under torchrun, each worker runs this."""
    from digits import data

    return _train(data.fetch(Settings().data_url, data_version), variant, seed)


@cli.command()
@click.option("--run", required=True, help="The run's id.")
@told
def evaluate(run: str) -> dict[str, Any]:
    """Test a run's model; exits with 3 where the gate refuses it."""
    import mlflow

    from digits import data

    version = mlflow.MlflowClient().get_run(run).data.tags.get("data_version")
    if version is None:
        raise DigitsError(f"run {run} does not say what data it was trained on", BAD_DATA)
    return _evaluate(data.fetch(Settings().data_url, version), run)


@cli.command()
@click.option("--run", required=True, help="The run's id.")
@told
def register(run: str) -> dict[str, Any]:
    """Register a run's model, if the gate has passed it."""
    from digits import registry

    return {"run": run, "version": registry.register(Settings(), run)}


@cli.command()
@stage_option
@click.option("--version", help="Default: the newest.")
@incident_option
@told
def promote(stage: str, version: str | None, incident: str | None) -> dict[str, Any]:
    """Have a stage serve a version."""
    from digits import registry

    return {"stage": stage, "version": registry.promote(Settings(), stage, version, incident)}


@cli.command()
@stage_option
@incident_option
@told
def rollback(stage: str, incident: str | None) -> dict[str, Any]:
    """Have a stage serve what it served before, of what is still in the registry."""
    from digits import registry

    version, passed_over = registry.rollback(Settings(), stage, incident)
    return {"stage": stage, "version": version, "passed_over": passed_over}


@cli.command()
@stage_option
@click.option("--version", required=True, help="The version that it serves.")
@told
def withdraw(stage: str, version: str) -> dict[str, Any]:
    """Take a stage down: it serves nothing any more."""
    from digits import registry

    registry.withdraw(Settings(), stage, version)
    return {"stage": stage, "version": version}


@cli.command()
@variant_option
@seed_option
@data_option
@click.option("--promote", "stage", type=click.Choice(STAGES), help="Then promote it to this stage.")
@told
def run(variant: str, seed: int, data_version: str | None, stage: str | None) -> dict[str, Any]:
    """All of it: ingest what scikit-learn ships unless a version is named, train, evaluate, register."""
    from digits import data

    settings = Settings()
    if data_version:
        dataset = data.fetch(settings.data_url, data_version)
    elif os.environ.get("RANK", "0") == "0":
        dataset = data.ingest(settings.data_url, data.packaged())
    else:
        dataset = data.validated(data.packaged())
    say(f"data: version {dataset.version}, {len(dataset.labels)} rows")
    result = _train(dataset, variant, seed)
    if not result:
        return result
    result |= _evaluate(dataset, result["run"])
    from digits import registry

    result["version"] = registry.register(settings, result["run"])
    say(f"registered as version {result['version']}")
    if stage:
        registry.promote(settings, stage, result["version"])
        say(f"{stage} is to serve it")
        result["stage"] = stage
    return result


def _train(dataset: Dataset, variant: str, seed: int) -> dict[str, Any]:
    """Train on a dataset; nothing comes of workers but the first."""
    part, _ = dataset.split()
    began, workers = time.monotonic(), 1
    if variant == "torch":
        from digits import distributed

        model = distributed.train(part, seed)
        workers = distributed.workers()
        if model is None:
            return {}
    else:
        from digits import training

        model = training.train_bad(part, seed) if variant == "bad" else training.train_sklearn(part, seed)
    from digits import registry

    say(f"trained {variant} on {len(part.labels)} rows in {time.monotonic() - began:.1f} s")
    run = registry.log(Settings(), part, model, variant=variant, seed=seed, workers=workers)
    say(f"logged as run {run}")
    return {"run": run, "variant": variant, "data_version": dataset.version}


def _evaluate(dataset: Dataset, run: str) -> dict[str, Any]:
    from digits import registry

    _, part = dataset.split()
    metrics = registry.evaluate(Settings(), run, part)
    say(f"tested on {len(part.labels)} rows: accuracy {metrics['test_accuracy']:.4f}; the gate passes it")
    return {"run": run, **metrics}


if __name__ == "__main__":
    cli()
