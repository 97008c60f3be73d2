"""The steps of a model's pipeline, and the pipeline that they make."""

# Without postponed annotations: Dagster reads those of steps.
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import dagster as dg

from services.pipelines import analysis
from services.pipelines.cluster import Cluster
from services.pipelines.errors import DecidedError, PipelineError
from services.pipelines.jobs import REFUSED, Asked, Code, Jobs
from services.pipelines.launcher import MODEL_TAG
from services.pipelines.outputs import Outputs
from services.pipelines.registry import Registry
from services.pipelines.settings import GOALS, USUAL, Known
from services.pipelines.stages import CANARY, PRODUCTION, STAGING, Stages
from services.promotion.client import Promotion

Value = dict[str, Any]

DATA_TAG = "ml-cluster/data-version"
SECONDS_TO_RETRY = 15
MOST_AT_ONCE = 4
"""Steps of one run."""
ARCHIVE = "archive"
CONFIG = {
    ARCHIVE: dg.Field(
        str, default_value="", description="SHA-256 of the code's archive; by default that of what serves"
    ),
    "version": dg.Field(str, default_value="none", description="of the code: the commit, or a digest of its files"),
    "commit": dg.Field(str, default_value="none", description="that was checked out"),
    "dirty": dg.Field(bool, default_value=False, description="whether the files differ from the commit"),
    "seed": dg.Field(dg.Noneable(int), default_value=None, description="by default as the model says"),
    "data_version": dg.Field(str, default_value="", description="by default what is ingested now"),
    "to": dg.Field(
        str, default_value="", description=f"how far it goes, by default as the model says: {', '.join(GOALS)}"
    ),
}
"""What a run is asked for; all of it can be left out."""


class Step:
    """What a step works with."""

    def __init__(self, context: dg.OpExecutionContext, model: Known) -> None:
        self.context, self.model = context, model
        user, password = (os.environ[f"MLFLOW_TRACKING_{word}"] for word in ("USERNAME", "PASSWORD"))
        cluster = Cluster()
        self.jobs = Jobs(cluster, self.say)
        self.registry = Registry(os.environ["MLFLOW_TRACKING_URI"], user, password)
        self.stages = Stages(cluster, Promotion(os.environ["PROMOTION_URL"], user, password), self.say)
        self.metrics = analysis.Metrics(os.environ.get("METRICS_URL", ""))

    def say(self, text: str) -> None:
        """A line of the step's log."""
        self.context.log.info(text)

    def train(self, value: Value, variant: str, *arguments: str) -> Value:
        """What a command of training gives; the Job ends with the run, if somebody ends that."""
        takes = self.model.takes[variant if arguments[0] == "train" else USUAL]
        asked = Asked(
            self.model.name, Code(**value["code"]), takes, arguments,
            self.context.run.root_run_id or self.context.run_id, self.context.op.name,
        )  # fmt: skip
        try:
            return self.jobs.run(asked)
        except dg.DagsterExecutionInterruptedError:
            run = self.context.instance.get_run_by_id(self.context.run_id)
            # A pod that has to go leaves the Job to whoever takes the run up.
            if run and run.status in {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}:
                self.jobs.stop(asked)
            raise


@contextmanager
def told() -> Iterator[None]:
    """Have errors end a step as texts for people; what was decided is not tried again."""
    try:
        yield
    except DecidedError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except PipelineError as error:
        raise dg.Failure(str(error)) from None


def pipeline(model: Known) -> dg.JobDefinition:
    """The pipeline of a model."""
    asks = model.pipeline
    again = dg.RetryPolicy(
        max_retries=asks.retries, delay=SECONDS_TO_RETRY, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
    )
    maybe = {"out": dg.Out(is_required=False)}

    @dg.op(
        config_schema=CONFIG, retry_policy=again, description="Which code and how far: as asked, or as it serves now."
    )
    def code(context: dg.OpExecutionContext) -> dict[str, Any]:
        with told():
            return _code(Step(context, model))

    @dg.op(
        retry_policy=again, description="Ingests the dataset and checks it, or takes the version that was asked for."
    )
    def data(context: dg.OpExecutionContext, asked: dict[str, Any]) -> dict[str, Any]:
        with told():
            return _data(Step(context, model), asked)

    def train_as(variant: str) -> dg.OpDefinition:
        @dg.op(name=f"train_{_word(variant)}", retry_policy=again, description=f"Trains the variant {variant}.")
        def train(context: dg.OpExecutionContext, asked: dict[str, Any]) -> dict[str, Any]:
            with told():
                return _train(Step(context, model), asked, variant)

        return train

    def evaluate_as(variant: str) -> dg.OpDefinition:
        @dg.op(
            name=f"evaluate_{_word(variant)}", retry_policy=again,
            description="Tests the model on rows that it has not seen, and asks the gate about it.",
        )  # fmt: skip
        def evaluate(context: dg.OpExecutionContext, trained: dict[str, Any]) -> dict[str, Any]:
            with told():
                return _evaluate(Step(context, model), trained)

        return evaluate

    @dg.op(out=maybe, description="Takes the best of what the promotion service's gate has passed; fails without one.")
    def gate(context: dg.OpExecutionContext, tested: list[dict[str, Any]]) -> Iterator[dg.Output[dict[str, Any]]]:
        with told():
            best = _gate(Step(context, model), tested)
        yield from _on(context, best, "registry")

    @dg.op(out=maybe, retry_policy=again, description="Registers it as a version.")
    def register(context: dg.OpExecutionContext, best: dict[str, Any]) -> Iterator[dg.Output[dict[str, Any]]]:
        with told():
            step = Step(context, model)
            version = str(step.stages.ask("POST", model.name, "versions", {"run": best["run"]})["version"])
        context.add_output_metadata({"version": version})
        yield from _on(context, best | {"version": version}, "staging")

    @dg.op(out=maybe, retry_policy=again, description="Has staging serve it, and waits until it does.")
    def staging(context: dg.OpExecutionContext, registered: dict[str, Any]) -> Iterator[dg.Output[dict[str, Any]]]:
        with told():
            Step(context, model).stages.promote(model.name, STAGING, registered["version"])
        yield from _on(context, registered, "production")

    @dg.op(
        retry_policy=again,
        description="Gives it a share of production's requests, and watches it; ends it if it is worse.",
    )
    def canary(context: dg.OpExecutionContext, staged: dict[str, Any]) -> dict[str, Any]:
        with told():
            return _canary(Step(context, model), staged)

    @dg.op(retry_policy=again, description="Has production serve it, and waits until it does.")
    def production(context: dg.OpExecutionContext, proven: dict[str, Any]) -> dict[str, Any]:
        with told():
            return _production(Step(context, model), proven)

    @dg.job(
        name=_word(model.name), tags={MODEL_TAG: model.name}, description=model.about or f"Pipeline of {model.name}",
        resource_defs={"io_manager": dg.IOManagerDefinition.hardcoded_io_manager(Outputs())},
        executor_def=dg.multiprocess_executor.configured(
            {"max_concurrent": MOST_AT_ONCE, "start_method": {"forkserver": {"preload_modules": [__name__]}}}
        ),
    )  # fmt: skip
    def whole() -> None:
        ready = data(code())
        tested = [evaluate_as(variant)(train_as(variant)(ready)) for variant in asks.variants]
        production(canary(staging(register(gate(tested)))))

    return whole


def _word(name: str) -> str:
    """A name as Dagster takes one."""
    return name.replace("-", "_")


def _on(context: dg.OpExecutionContext, value: Value, goal: str) -> Iterator[dg.Output[Value]]:
    """Hand a value on if the run goes as far as to a goal; what comes after is skipped otherwise."""
    if GOALS.index(value["to"]) >= GOALS.index(goal):
        yield dg.Output(value, "out")
    else:
        context.log.info(f"this run goes to {value['to']}: it ends here")


def _code(step: Step) -> Value:
    asked, model = step.context.op_config, step.model
    to = asked["to"] or model.pipeline.to
    if to not in GOALS:
        raise DecidedError(f"`to` is {to}: choose one of {', '.join(GOALS)}")
    if asked[ARCHIVE]:
        code = Code(asked[ARCHIVE], asked["version"], asked["commit"], asked["dirty"])
    else:
        known = step.stages.ask("GET", model.name, "stages")
        version = known["stages"].get(PRODUCTION, {}).get("version") or next(iter(known["versions"]), None)
        if version is None:
            raise DecidedError(
                f"{model.name} has no version yet whose code could be taken: `lab pipeline run {model.name}`"
            )
        step.say(f"the code of version {version}")
        code = step.registry.code(model.name, version)
    step.context.add_output_metadata({"archive": code.digest, "commit": code.commit, "to": to})
    seed = model.pipeline.seed if asked["seed"] is None else asked["seed"]
    return {"code": asdict(code), "seed": seed, "data_version": asked["data_version"], "to": to}


def _data(step: Step, asked: Value) -> Value:
    from services.pipelines.data import current  # noqa: PLC0415 - half a second, which no other step needs

    version = asked["data_version"]
    if not version and step.model.ingests:
        version = step.train(asked, USUAL, "ingest")["data_version"]
    elif not version:
        version = current(step.model.name)
        if version is None:
            raise DecidedError(
                f"{step.model.name} has no dataset yet: ingest one, or give its module a function `data`"
            )
    step.context.add_output_metadata({"data_version": version})
    # Whoever looks for new data knows by this that it is not new.
    step.context.instance.add_run_tags(step.context.run_id, {DATA_TAG: version})
    return {**asked, "data_version": version}


def _train(step: Step, asked: Value, variant: str) -> Value:
    model, seed = step.model, str(asked["seed"])
    takes = model.takes[variant]
    image = step.jobs.template(takes)["spec"]["template"]["spec"]["containers"][0]["image"]
    run = step.registry.trained(
        model.name, code_archive=f"sha256:{asked['code']['digest']}", data_version=asked["data_version"],
        variant=variant, seed=seed, workers=str(takes.workers), image_digest=image,
    )  # fmt: skip
    cached = run is not None
    if cached:
        step.say(f"MLflow has run {run} of the same code, data, variant, seed and image: nothing is trained again")
    else:
        options = [] if variant == USUAL else [f"--variant={variant}"]
        options += [f"--seed={seed}", f"--data-version={asked['data_version']}"]
        run = str(step.train(asked, variant, "train", *options)["run"])
    step.context.add_output_metadata({"run": run, "cached": cached})
    return {**asked, "run": run, "variant": variant}


def _evaluate(step: Step, trained: Value) -> Value:
    model, run = step.model.name, trained["run"]
    verdict = _standing_verdict(step, run)
    if verdict:
        step.say(f"the gate has passed run {run} already: it is not tested again")
    else:
        ended = step.train(trained, USUAL, "evaluate", f"--run={run}")
        if ended["exit"] == REFUSED:
            step.say(str(ended.get("error")))
        verdict = step.stages.ask("GET", model, "verdict", run=run)
    score = verdict["gate"]["score"]["name"]
    figure = float(verdict["figures"][score])
    step.context.add_output_metadata({score: figure, "passed": verdict["passed"], "verdict": verdict["verdict"]})
    return {**trained, "score": figure, "passed": verdict["passed"], "reasons": verdict["reasons"]}


def _standing_verdict(step: Step, run: str) -> Value | None:
    """The last verdict about a run, if the same gate passed it beside the same version of production."""
    model = step.model.name
    asked = step.stages.ask("GET", model, "gate")
    try:
        verdict: Value = step.stages.ask("GET", model, "verdict", run=run)
    except DecidedError:
        return None
    beside = verdict["figures"].get("production", {}).get("version")
    served = asked["baseline"]["version"] if asked["baseline"] else None
    same = verdict["gate"] == asked["gate"] and str(beside) == str(served)
    return verdict if verdict["passed"] and same else None


def _gate(step: Step, tested: list[Value]) -> Value:
    for one in tested:
        told = "passes" if one["passed"] else f"is refused: {'; '.join(one['reasons'])}"
        step.say(f"{one['variant']}, run {one['run']}: {one['score']:.4f}, {told}")
    passed = [one for one in tested if one["passed"]]
    if not passed:
        raise DecidedError(
            "; ".join(f"the gate refuses {one['variant']}: {', '.join(one['reasons'])}" for one in tested)
        )
    # The first of equals: the order is the model's.
    return max(passed, key=lambda one: one["score"])


def _canary(step: Step, staged: Value) -> Value:
    model, version, stages = step.model.name, staged["version"], step.stages
    served = stages.served(model, PRODUCTION)
    if served in {None, version}:
        step.say("production serves nothing else: there is nothing to compare with")
        return staged
    asks = step.model.pipeline.canary
    try:
        stages.promote(model, CANARY, version)
        stages.share(model, asks.share)
        step.say(f"the canary gets {asks.share} % of production's requests, for {asks.minutes:g} minutes at least")
        count = lambda deployment, seconds: step.metrics.counted(deployment, seconds, asks.slow_ms)  # noqa: E731
        figures = analysis.watch(count, model, asks, step.say)
    except DecidedError as error:
        stages.back(model, version)
        raise DecidedError(
            f"{error}. It gets no requests any more; production serves version {served} as before"
        ) from None
    except (PipelineError, dg.DagsterExecutionInterruptedError):
        stages.share(model, 0)  # nobody watches it any more
        raise
    step.context.add_output_metadata({"figures": dg.MetadataValue.text("\n".join(figures))})
    return staged


def _production(step: Step, proven: Value) -> Value:
    model, version = step.model.name, proven["version"]
    try:
        step.stages.promote(model, PRODUCTION, version)
    except DecidedError as error:
        step.stages.back(model, version)
        raise DecidedError(f"{error}. The canary gets no requests any more") from None
    step.stages.share(model, 0)
    step.context.add_output_metadata({"version": version, "address": f"/v2/models/{model}"})
    return proven
