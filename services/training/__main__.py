"""`python -m services.training COMMAND`; `README.md` says what each takes and exits with."""

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
from services.training.settings import Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.training.datasets import Table
    from services.training.module import Code

# What takes seconds to import is imported by the commands that need it.
# ruff: noqa: PLC0415
STAGES = ("staging", "canary", "production")
USUAL = "default"
"""What the lineage calls a model that was trained as no variant."""
Parameters = ParamSpec("Parameters")
variant_option = click.option("--variant", help="A variant of the model's settings.")
seed_option = click.option("--seed", type=int, default=0, show_default=True)
data_option = click.option("--data-version", help="The dataset's version (default: the current one).")
stage_option = click.option("--to", "stage", type=click.Choice(STAGES), required=True)
incident_option = click.option("--incident", help="What it mends, where it was not planned.")


def say(text: str) -> None:
    """Tell whoever follows the run what is done; standard output is the result's. Only the first of workers says it."""
    if _is_first():
        click.echo(text, err=True)


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A model that is one folder: from data to a promoted version."""


def told(command: Callable[Parameters, dict[str, Any]]) -> Callable[Parameters, None]:
    """Print what a command gives as JSON, and write it to the file that RESULT names; the same with errors."""

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from mlflow.exceptions import MlflowException

        from services.training import flavors

        code, file = 0, Told().result
        try:
            result = command(*args, **kwargs)
        except TrainingError as error:
            result, code = {"error": str(error)}, error.code
        except MlflowException as error:
            failure = flavors.told(error, "MLflow says")
            result, code = {"error": str(failure)}, failure.code
        except (BotoCoreError, ClientError) as error:
            result, code = {"error": f"the object store says: {error}"}, UNAVAILABLE
        text = json.dumps(result)
        if file and result:  # workers but the first have none, and may share the file with it
            Path(file).write_text(text)
        if code:
            click.echo(f"error: {result['error']}", err=True)
        elif result:
            click.echo(text)
        sys.exit(code)

    return wrapped


def _code() -> Code:
    from services.training import module

    return module.fetched(Told())


@cli.command()
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: the module's data."
)
@told
def ingest(file: Path | None) -> dict[str, Any]:
    """Check a dataset, keep it in S3 and make it the current version."""
    from services.training import datasets

    code = _code()
    found = datasets.ingest(code, Told().data_url, file.read_bytes() if file else datasets.own(code))
    return {"data_version": found.version, "rows": len(found.rows)}


@cli.command()
@variant_option
@seed_option
@data_option
@told
def train(variant: str | None, seed: int, data_version: str | None) -> dict[str, Any]:
    """Train a variant, and log it as a run of MLflow. Under torchrun, each worker runs this."""
    from services.training import datasets

    code = _code()
    return _train(code, datasets.fetch(code, Told().data_url, data_version), variant, seed)


@cli.command()
@click.option("--run", required=True, help="The run's id.")
@told
def evaluate(run: str) -> dict[str, Any]:
    """Test a run's model; exits with 3 where the gate refuses it."""
    import mlflow

    from services.training import datasets
    from services.training.registry import DATA_VERSION

    code = _code()
    version = mlflow.MlflowClient().get_run(run).data.tags.get(DATA_VERSION)
    if version is None:
        raise TrainingError(f"run {run} does not say what data it was trained on", BAD_DATA)
    return _evaluate(code, datasets.fetch(code, Told().data_url, version), run)


@cli.command()
@click.option("--run", required=True, help="The run's id.")
@told
def register(run: str) -> dict[str, Any]:
    """Register a run's model, if the gate has passed it."""
    from services.training import registry

    return {"run": run, "version": registry.register(Told().model, run)}


@cli.command()
@stage_option
@click.option("--version", help="Default: the newest.")
@incident_option
@told
def promote(stage: str, version: str | None, incident: str | None) -> dict[str, Any]:
    """Have a stage serve a version."""
    from services.training import registry

    return {"stage": stage, "version": registry.promote(Told().model, stage, version, incident)}


@cli.command()
@stage_option
@incident_option
@told
def rollback(stage: str, incident: str | None) -> dict[str, Any]:
    """Have a stage serve what it served before, of what is still in the registry."""
    from services.training import registry

    version, passed_over = registry.rollback(Told().model, stage, incident)
    return {"stage": stage, "version": version, "passed_over": passed_over}


@cli.command()
@stage_option
@click.option("--version", required=True, help="The version that it serves.")
@told
def withdraw(stage: str, version: str) -> dict[str, Any]:
    """Take a stage down: it serves nothing any more."""
    from services.training import registry

    registry.withdraw(Told().model, stage, version)
    return {"stage": stage, "version": version}


@cli.command()
@variant_option
@seed_option
@data_option
@click.option("--promote", "stage", type=click.Choice(STAGES), help="Then promote it to this stage.")
@told
def run(variant: str | None, seed: int, data_version: str | None, stage: str | None) -> dict[str, Any]:
    """All of it: ingest what the module's `data` gives unless a version is named, train, evaluate, register."""
    from services.training import datasets, registry

    settings, code = Told(), _code()
    if data_version or not code.has("data"):
        dataset = datasets.fetch(code, settings.data_url, data_version)
    elif _is_first():
        dataset = datasets.ingest(code, settings.data_url, datasets.own(code))
    else:
        dataset = datasets.validated(code, datasets.own(code))
    say(
        f"code {settings.archive[:12]} of commit {settings.commit[:12]};"
        f" data: version {dataset.version}, {len(dataset.rows)} rows"
    )
    result = _train(code, dataset, variant, seed)
    if not result:
        return result
    result |= _evaluate(code, dataset, result["run"])
    result["version"] = registry.register(settings.model, result["run"])
    say(f"registered as version {result['version']}")
    if stage:
        registry.promote(settings.model, stage, result["version"])
        say(f"{stage} is to serve it")
        result["stage"] = stage
    return result


def _train(code: Code, dataset: Table, variant: str | None, seed: int) -> dict[str, Any]:
    """Train on a dataset; nothing comes of workers but the first."""
    from services.training import registry

    settings = code.settings
    if variant is not None and variant not in settings.variants:
        known = ", ".join(settings.variants) or "none"
        raise TrainingError(f"{settings.name} has no variant {variant}; there are: {known}", SETTINGS)
    part, _ = dataset.split(settings.data.test, stratify=settings.data.stratify)
    began = time.monotonic()
    model = code.call("train", part.features, part.labels, seed, variant=variant)
    if not _is_first():
        return {}
    say(f"trained on {len(part.rows)} rows in {time.monotonic() - began:.1f} s")
    trained = registry.Trained(variant or USUAL, seed, int(os.environ.get("WORLD_SIZE", "1")))
    run = registry.log(Told(), code, part, model, trained)
    say(f"logged as run {run}")
    return {"run": run, "variant": trained.variant, "data_version": dataset.version}


def _evaluate(code: Code, dataset: Table, run: str) -> dict[str, Any]:
    from services.training import registry

    data = code.settings.data
    _, part = dataset.split(data.test, stratify=data.stratify)
    metrics = registry.evaluate(code, run, part)
    headline, *_ = metrics
    say(
        f"tested on {len(part.rows)} rows: {headline.removeprefix('test_')} {metrics[headline]:.4f}; the gate passes it"
    )
    return {"run": run, headline: metrics[headline]}


if __name__ == "__main__":
    cli()
