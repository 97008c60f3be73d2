"""`python -m services.training COMMAND`; `README.md` has the commands and their exit codes."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from services.training.errors import BAD_DATA, SETTINGS, UNAVAILABLE, TrainingError
from services.training.settings import JobSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.training.datasets import Table
    from services.training.module import Code

# Commands import what takes seconds to import.
# ruff: noqa: PLC0415
STAGES = ("staging", "canary", "production")
DEFAULT_VARIANT = "default"
"""The lineage's name for a model that was trained without a variant."""
Parameters = ParamSpec("Parameters")
variant_option = click.option("--variant", help="A variant of the model's settings.")
seed_option = click.option("--seed", type=int, default=0, show_default=True)
data_option = click.option("--data-version", help="The dataset's version (default: the current one).")
stage_option = click.option("--to", "stage", type=click.Choice(STAGES), required=True)
incident_option = click.option("--incident", help="The incident that it fixes.")


def report(text: str) -> None:
    """Print progress to standard error; standard output has the result. Only the first worker prints it."""
    if _is_first():
        click.echo(text, err=True)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train, evaluate, register and promote a model that is one folder."""


def json_command(command: Callable[Parameters, dict[str, Any]]) -> Callable[Parameters, None]:
    """Print a command's result, or its error, as JSON and write it to the file that RESULT names."""

    @functools.wraps(command)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from mlflow.exceptions import MlflowException

        from services.training import flavors

        code, file = 0, JobSettings().result
        try:
            result = command(*args, **kwargs)
        except TrainingError as error:
            result, code = {"error": str(error)}, error.code
        except MlflowException as error:
            failure = flavors.training_error(error, "MLflow error")
            result, code = {"error": str(failure)}, failure.code
        except (BotoCoreError, ClientError) as error:
            result, code = {"error": f"object store error: {error}"}, UNAVAILABLE
        text = json.dumps(result)
        if file and result:  # other workers have none, and may share the file with the first
            Path(file).write_text(text)
        if code:
            click.echo(f"error: {result['error']}", err=True)
        elif result:
            click.echo(text)
        sys.exit(code)

    return wrapper


def _load_code() -> Code:
    from services.training import module

    return module.fetch(JobSettings())


@cli.command()
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: the module's data."
)
@json_command
def ingest(file: Path | None) -> dict[str, Any]:
    """Validate a dataset, store it in S3 and make it the current version."""
    from services.training import datasets

    code = _load_code()
    dataset = datasets.ingest(code, JobSettings().data_url, file.read_bytes() if file else datasets.from_module(code))
    return {"data_version": dataset.version, "rows": len(dataset.rows)}


@cli.command()
@variant_option
@seed_option
@data_option
@json_command
def train(variant: str | None, seed: int, data_version: str | None) -> dict[str, Any]:
    """Train a variant and log it as an MLflow run. Under torchrun, each worker runs this."""
    from services.training import datasets

    code = _load_code()
    return _train(code, datasets.fetch(code, JobSettings().data_url, data_version), variant, seed)


@cli.command()
@click.option("--run", required=True, help="The run's id.")
@json_command
def evaluate(run: str) -> dict[str, Any]:
    """Test a run's model; exits with 3 if the gate refuses it."""
    import mlflow

    from services.training import datasets
    from services.training.registry import DATA_VERSION

    code = _load_code()
    version = mlflow.MlflowClient().get_run(run).data.tags.get(DATA_VERSION)
    if version is None:
        raise TrainingError(f"run {run} has no tag {DATA_VERSION}: its dataset is unknown", BAD_DATA)
    return _evaluate(code, datasets.fetch(code, JobSettings().data_url, version), run)


@cli.command()
@click.option("--run", required=True, help="The run's id.")
@json_command
def register(run: str) -> dict[str, Any]:
    """Register a run's model if it passed the gate."""
    from services.training import registry

    return {"run": run, "version": registry.register(JobSettings().model, run)}


@cli.command()
@stage_option
@click.option("--version", help="Default: the newest.")
@incident_option
@json_command
def promote(stage: str, version: str | None, incident: str | None) -> dict[str, Any]:
    """Promote a version to a stage."""
    from services.training import registry

    return {"stage": stage, "version": registry.promote(JobSettings().model, stage, version, incident)}


@cli.command()
@stage_option
@incident_option
@json_command
def rollback(stage: str, incident: str | None) -> dict[str, Any]:
    """Return a stage to the version before its last promotion; skips deleted versions."""
    from services.training import registry

    version, passed_over = registry.rollback(JobSettings().model, stage, incident)
    return {"stage": stage, "version": version, "passed_over": passed_over}


@cli.command()
@stage_option
@click.option("--version", required=True, help="The version that the stage serves.")
@json_command
def withdraw(stage: str, version: str) -> dict[str, Any]:
    """Take down a stage."""
    from services.training import registry

    registry.withdraw(JobSettings().model, stage, version)
    return {"stage": stage, "version": version}


@cli.command()
@variant_option
@seed_option
@data_option
@click.option("--promote", "stage", type=click.Choice(STAGES), help="Promote it to this stage.")
@json_command
def run(variant: str | None, seed: int, data_version: str | None, stage: str | None) -> dict[str, Any]:
    """Run all steps: ingest what the module's `data` returns, or fetch a version; train, evaluate, register."""
    from services.training import datasets, registry

    job, code = JobSettings(), _load_code()
    if data_version or not code.has("data"):
        dataset = datasets.fetch(code, job.data_url, data_version)
    elif _is_first():
        dataset = datasets.ingest(code, job.data_url, datasets.from_module(code))
    else:
        dataset = datasets.validate(code, datasets.from_module(code))
    report(
        f"code {job.archive[:12]} of commit {job.commit[:12]};"
        f" data: version {dataset.version}, {len(dataset.rows)} rows"
    )
    result = _train(code, dataset, variant, seed)
    if not result:
        return result
    result |= _evaluate(code, dataset, result["run"])
    result["version"] = registry.register(job.model, result["run"])
    report(f"registered as version {result['version']}")
    if stage:
        registry.promote(job.model, stage, result["version"])
        report(f"promoted to {stage}")
        result["stage"] = stage
    return result


def _train(code: Code, dataset: Table, variant: str | None, seed: int) -> dict[str, Any]:
    """Train on a dataset; only the first worker returns a result."""
    from services.training import registry

    settings = code.settings
    if variant is not None and variant not in settings.variants:
        known = ", ".join(settings.variants) or "none"
        raise TrainingError(f"{settings.name} has no variant {variant}; its variants: {known}", SETTINGS)
    part, _ = dataset.split(settings.data.test, stratify=settings.data.stratify)
    started = time.monotonic()
    model = code.call("train", part.features, part.labels, seed, variant=variant)
    if not _is_first():
        return {}
    report(f"trained on {len(part.rows)} rows in {time.monotonic() - started:.1f} s")
    trained = registry.Trained(variant or DEFAULT_VARIANT, seed, int(os.environ.get("WORLD_SIZE", "1")))
    run = registry.log(JobSettings(), code, part, model, trained)
    report(f"logged as run {run}")
    return {"run": run, "variant": trained.variant, "data_version": dataset.version}


def _evaluate(code: Code, dataset: Table, run: str) -> dict[str, Any]:
    from services.training import registry

    data = code.settings.data
    _, part = dataset.split(data.test, stratify=data.stratify)
    metrics = registry.evaluate(code, run, part)
    score, *_ = metrics
    report(f"tested on {len(part.rows)} rows: {score.removeprefix('test_')} {metrics[score]:.4f}; it passed the gate")
    return {"run": run, score: metrics[score]}


if __name__ == "__main__":
    cli()
