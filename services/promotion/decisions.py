"""The decisions: what is registered, and what each stage serves. Each is whole: it is kept and done, or refused."""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from services.promotion.errors import InvalidError, PromotionError, RefusedError, UnknownError
from services.promotion.registry import FORMER, MOVED, OWN, MissingError
from services.promotion.steps import PROMOTED, ROLLED_BACK, TAKEN_DOWN, gone_ahead, step
from services.promotion.verdicts import Compared, Evidence, compare, judge

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from services.promotion.gates import Gate, Gates
    from services.promotion.registry import Registry
    from services.promotion.steps import Step
    from services.promotion.store import Store, Work

    Answer = dict[str, Any]

STAGES = ("staging", "canary", "production")
PRODUCTION = "production"
IMPORTED = "import"
TAG = re.compile(r"moved\.([a-z]+)\.(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)")


class Decisions:
    """Decides. What is decided is in PostgreSQL; aliases and tags of the registry follow in the same step.

    Raises:
        UnavailableError: PostgreSQL, the registry or the Kubernetes API does not answer; nothing is decided then.
    """

    def __init__(self, store: Store, registry: Registry, gates: Gates) -> None:
        self._store, self._registry, self._gates = store, registry, gates
        self.moved = threading.Condition()
        """Told of every move that this process makes."""
        self._moves = 0

    def start(self) -> None:
        """Make the tables, take over what tags of the registry say, and finish what an earlier end left undone."""
        self._store.migrate()
        self._import()
        self._agree()
        self.note_gates()
        self._tell()

    def note_gates(self) -> None:
        """Tell MLflow's server, through the database, which models have gates."""
        models = self._gates.models()
        with self._store.work() as work:
            work.note_gates(models)

    # Verdicts

    def gate(self, model: str, test: str | None) -> Answer:
        """A model's gate, and the version that it compares with; `known`: what that is right about is known."""
        gate = self._gates.of(model)
        with self._store.work() as work:
            served = work.stage(model, PRODUCTION)["version"]
            verdict = work.verdict_of_version(model, served) if served is not None and gate.production else None
        baseline = None
        if served is not None and gate.production:
            baseline = {"version": str(served), "known": bool(verdict and test and verdict["test"] == test)}
        return {"model": model, "gate": gate.model_dump(), "baseline": baseline}

    def evaluate(self, model: str, evidence: Evidence, caller: str) -> Answer:
        """What a model's gate says of a run.

        Raises:
            RefusedError: the model has no gate; the run has not one model; production's answers are missing.
        """
        gate = self._gates.of(model)
        models = self._registry.run(evidence.run).models
        if len(models) != 1:
            raise RefusedError(f"run {evidence.run} has {len(models)} logged models", "log one model in a run")
        with self._store.work() as work:
            work.lock(model)
            verdict = judge(gate, evidence, self._production(work, model, gate, evidence))
            number = work.add_verdict(model, models[0], gate, evidence, verdict, caller)
        told = {"model": model, "run": evidence.run, "verdict": number, "passed": verdict.passed}
        return {**told, "reasons": verdict.reasons, "figures": verdict.figures}

    def _production(self, work: Work, model: str, gate: Gate, evidence: Evidence) -> Compared | None:
        """What production's version is right about, of the evidence's rows; None where there is no such version."""
        served = work.stage(model, PRODUCTION)["version"]
        if gate.production is None or served is None:
            return None
        known = work.verdict_of_version(model, served)
        if known and known["test"] == evidence.test and len(known["correct"]) == len(evidence.right):
            return Compared(served, known["correct"])
        if evidence.baseline and evidence.baseline.version == served:
            return Compared(served, evidence.baseline.right)
        if self._is_there(work, model, served) is False:
            return None  # nobody can ask it any more
        raise RefusedError(
            f"{model}'s gate compares with production's version {served}, and nothing says what that is right about on"
            f" test rows {evidence.test}",
            "send its answers to the same rows as `baseline`",
        )

    def verdicts(self, model: str, run: str | None, version: int | None) -> Answer:
        """The last verdict about a run or a version, with the gate that it was judged by.

        Raises:
            UnknownError: there is none.
        """
        with self._store.work() as work:
            if run is None and version is None:
                raise InvalidError("say `run` or `version`")
            found = work.verdict_of_run(model, run) if run else work.verdict_of_version(model, version or 0)
        if found is None:
            raise UnknownError(f"there is no verdict about {f'run {run}' if run else f'version {version}'} of {model}")
        told = {key: found[key] for key in ("model", "run", "passed", "reasons", "figures", "gate", "test", "caller")}
        return {**told, "verdict": found["id"], "at": _written(found["at"])}

    # Versions

    def register(self, model: str, run: str) -> Answer:
        """Make a run's model a version; the same one when asked again.

        Raises:
            RefusedError: its last verdict is not that the gate passes it.
        """
        self._gates.of(model)
        with self._store.work() as work:
            work.lock(model)
            verdict = work.verdict_of_run(model, run)
            if verdict is None or not verdict["passed"]:
                why = "; ".join(verdict["reasons"]) if verdict else "it was not evaluated"
                raise RefusedError(f"run {run} has not passed the gate: {why}")
            there = work.version_of_run(model, run)
            if there and self._registry.exists(model, there["version"], run):
                return {"model": model, "run": run, "version": str(there["version"])}
            if not verdict["gate"]:
                raise RefusedError(f"run {run} was judged before this gate", "evaluate it again")
            of_run = self._registry.run(run).tags
            tags = {key: value for key, value in of_run.items() if not key.startswith(OWN)}
            name = verdict["gate"]["score"]["name"]
            tags |= {"gate": "passed", f"test_{name}": f"{verdict['figures'][name]:.6f}"}
            version = self._registry.register(model, run, verdict["model_id"], tags)
            work.add_version(model, version, run, verdict["id"])
        return {"model": model, "run": run, "version": str(version)}

    # Stages

    def promote(self, model: str, stage: str, number: int | None, incident: str | None, caller: str) -> Answer:
        """Have a stage serve a version, the newest by default.

        Raises:
            RefusedError: there is no such version; no verdict passed it; it was not compared with production; stages
                are set in Git.
        """
        self._refuse_past_git(model, f"`lab promote {model} --to {stage} --pull-request` proposes it there")
        gate = self._gates.of(model)
        with self._store.work() as work:
            work.lock(model)
            version = self._passed(work, model, number)
            state = work.stage(model, stage)
            current = state["version"]
            if stage == PRODUCTION and current is not None and current != version:
                self._compare(work, model, gate, version=version, served=current)
            self._registry.serve(model, stage, version)
            if current != version:
                former = [*state["former"], *([current] if current is not None else [])]
                work.set_stage(model, stage, version, former)
                work.add_move(model, stage, PROMOTED, version, caller=caller, incident=incident)
        self._told()
        return {"model": model, "stage": stage, "version": str(version), "before": _text(current)}

    def _passed(self, work: Work, model: str, number: int | None) -> int:
        """A version that may be promoted; by default the newest that is there."""
        known = [number] if number is not None else work.newest(model)
        for version in known:
            there = self._is_there(work, model, version)
            if there:
                return version
            if number is None:
                continue
            if there is False:
                raise RefusedError(f"{model} has no version {number} any more")
            raise RefusedError(
                f"{model} has no version {number} that has passed the gate",
                f"`lab train {model}` registers what passes; `lab stages {model}` shows what there is",
            )
        raise RefusedError(
            f"{model} has no version that has passed the gate", f"`lab train {model}` registers what passes"
        )

    def _refuse_past_git(self, model: str, remedy: str) -> None:
        if self._gates.in_git():
            raise RefusedError(f"stages of {model} are set in Git", remedy)

    def _compare(self, work: Work, model: str, gate: Gate, *, version: int, served: int) -> Answer | None:
        """How a version compares with what production serves by now; None where that cannot be said any more.

        Raises:
            RefusedError: it is worse by more than the margin, or was not compared.
        """
        verdict, known = work.verdict_of_version(model, version), work.verdict_of_version(model, served)
        if gate.production is None or verdict is None:
            return None
        if self._is_there(work, model, served) is False:
            return None  # it cannot be asked any more
        if (
            known
            and (test := known["test"])
            and (test, len(known["correct"])) == (verdict["test"], len(verdict["correct"]))
        ):
            found, reason = compare(gate, verdict["correct"], Compared(served, known["correct"]))
            if reason:
                raise RefusedError(f"the gate refuses version {version} of {model}: {reason}")
            return found
        if verdict["figures"].get("production", {}).get("version") != served and IMPORTED not in {
            verdict["caller"], known["caller"] if known else "",
        }:  # fmt: skip
            raise RefusedError(
                f"version {version} of {model} was not compared with version {served}, which production serves by now",
                f"evaluate run {verdict['run']} again, then promote it",
            )
        compared: Answer | None = verdict["figures"].get("production")
        return compared

    def rollback(self, model: str, stage: str, incident: str | None, caller: str, *, ahead_of_git: bool) -> Answer:
        """Have a stage serve what it served before its last promotion. Deleted versions are passed over, once.

        With `ahead_of_git`, where stages are set in Git: Git is to follow, and does not undo it before it has.

        Raises:
            RefusedError: it has not served anything before that is still there; stages are set in Git.
        """
        if not ahead_of_git:
            self._refuse_past_git(model, f"`lab rollback {model} --stage {stage}` is at once, and reverts it there too")
        ahead = ahead_of_git and self._gates.in_git()
        with self._store.work() as work:
            work.lock(model)
            state = work.stage(model, stage)
            current = state["version"]
            version, former, passed_over = self._before(work, model, state["former"])
            if version is not None:
                self._registry.serve(model, stage, version)
                work.add_move(
                    model, stage, ROLLED_BACK, version, caller=caller, incident=incident, passed_over=passed_over
                )
                work.set_stage(model, stage, version, former)
                if ahead:
                    git = work.git(model)
                    work.set_git(model, git["revision"], gone_ahead(git["said"], stage, current))
            elif passed_over:
                work.set_stage(model, stage, current, former)
        told = [str(one) for one in passed_over]
        if version is None:
            before = f" before version {current}" if current is not None else ""
            said = f" that is still there; deleted since: {', '.join(told)}" if told else ""
            raise RefusedError(f"{stage} of {model} has served nothing{before}{said}")
        self._told()
        return {
            "model": model, "stage": stage, "version": str(version), "before": _text(current), "passed_over": told
        }  # fmt: skip

    def former(self, model: str, stage: str) -> Answer:
        """Where a rollback of a stage would lead, which nothing is changed by; no version where it would be refused."""
        with self._store.work() as work:
            state = work.stage(model, stage)
            version, _, passed_over = self._before(work, model, state["former"])
        told = [str(one) for one in passed_over]
        return {
            "model": model, "stage": stage, "version": _text(version), "before": _text(state["version"]),
            "passed_over": told,
        }  # fmt: skip

    def _before(self, work: Work, model: str, served: list[int]) -> tuple[int | None, list[int], list[int]]:
        """Of versions, the oldest first: the last that is still there, those before it, and those that are not."""
        former, passed_over = list(served), []
        while former and not self._is_there(work, model, former[-1]):
            passed_over.append(former.pop())
        return former.pop() if former else None, former, passed_over

    def _is_there(self, work: Work, model: str, version: int) -> bool | None:
        """Whether the registry has a version still; None where it was never registered here."""
        found = work.version(model, version)
        return None if found is None else self._registry.exists(model, version, found["run"])

    def withdraw(self, model: str, stage: str, number: int, caller: str) -> Answer:
        """Take a stage down that serves a version: it serves nothing until something is promoted or rolled back.

        Raises:
            RefusedError: the stage is to serve another version by now; stages are set in Git.
        """
        self._refuse_past_git(model, f"take {stage} out of models/{model}/stages.yaml, by pull request")
        with self._store.work() as work:
            work.lock(model)
            state = work.stage(model, stage)
            current = state["version"]
            if current not in {None, number}:
                raise RefusedError(f"{stage} of {model} serves version {current}, not {number}")
            if current is None and not state["former"]:
                raise RefusedError(f"{stage} of {model} has served nothing")
            with suppress(MissingError):
                self._registry.withdraw(model, stage, number)
            if current is not None:
                work.set_stage(model, stage, None, [*state["former"], current])
                work.add_move(model, stage, TAKEN_DOWN, number, caller=caller)
        self._told()
        return {"model": model, "stage": stage, "version": str(number)}

    # Stages that are set in Git

    def plan(self, model: str, wanted: Mapping[str, int | None]) -> Answer:
        """What would be done to have stages as Git says, and why not; changes nothing.

        `wanted`: a version for each stage that serves, None for the newest.
        """
        gate = self._gates.of(model)
        with self._store.work() as work:
            steps, told = self._steps(work, model, gate, wanted)
            served = work.stage(model, PRODUCTION)["version"]
            for stage, made in steps.items():
                about: Answer = {"compared": None}
                if made.version is not None and served is not None and made.version != served:
                    with suppress(RefusedError):  # it is in `refused` already, where it is a reason
                        about["compared"] = self._compare(work, model, gate, version=made.version, served=served)
                told[stage] |= about
        return {"model": model, "stages": told}

    def settle(
        self, model: str, wanted: Mapping[str, int], change: Mapping[str, Any], after: str, caller: str
    ) -> Answer:
        """Have the stages as a commit says: all of them, or none. Asked again, it does nothing.

        `change` is kept with each step: `commit`, `pull_request`, `author`. `after`: the commit that was done last.

        Raises:
            RefusedError: stages are not set in Git; another commit was done since; the gate refuses one of them.
        """
        if not self._gates.in_git():
            raise RefusedError(f"stages of {model} are not set in Git", "set platform.promotion: git, and run `lab up`")
        gate = self._gates.of(model)
        with self._store.work() as work:
            work.lock(model)
            git = work.git(model)
            if git["revision"] not in {after, change["commit"]}:
                raise RefusedError(f"commit {git['revision'][:12]} of {model} was done since", "read Git again")
            steps, told = self._steps(work, model, gate, wanted)
            if reasons := [one["refused"] for one in told.values() if one["refused"]]:
                raise RefusedError("; ".join(reasons), "what stages serve stays as it is; change Git")
            for stage, made in steps.items():
                self._do(work, model, stage, made, before=told[stage]["before"], change=change, caller=caller)
            said = {
                stage: git["said"][stage] if made.kept else {"version": wanted.get(stage), "ahead": False}
                for stage, made in steps.items()
            }
            work.set_git(model, change["commit"], said)
        if any(made.did for made in steps.values()):
            self._told()
        return {"model": model, "stages": told}

    def _steps(
        self, work: Work, model: str, gate: Gate, wanted: Mapping[str, int | None]
    ) -> tuple[dict[str, Step], dict[str, Answer]]:
        """The step of each stage that is or was served, and what is told of it, a reason against it too."""
        steps: dict[str, Step] = {}
        told: dict[str, Answer] = {}
        said = work.git(model)["said"]
        for stage in STAGES:
            state, refused = work.stage(model, stage), ""
            number = wanted.get(stage)
            try:
                if stage in wanted and number is None:
                    number = self._passed(work, model, None)
                made = step(state["version"], state["former"], said.get(stage), number)
                if made.did in {PROMOTED, ROLLED_BACK}:
                    self._passed(work, model, made.version)
                if made.did == PROMOTED and stage == PRODUCTION and state["version"] is not None:
                    assert made.version is not None
                    self._compare(work, model, gate, version=made.version, served=state["version"])
            except RefusedError as error:
                made = step(state["version"], state["former"], said.get(stage), number)
                refused = f"{stage}: {error}"
            steps[stage] = made
            told[stage] = {
                "did": made.did, "version": _text(made.version), "before": _text(state["version"]),
                "kept": made.kept, "refused": refused,
            }  # fmt: skip
        return steps, told

    def _do(
        self, work: Work, model: str, stage: str, made: Step, *, before: str | None, change: Mapping[str, Any],
        caller: str,
    ) -> None:  # fmt: skip
        if made.did is None:
            return
        moved = made.version
        if made.version is not None:
            self._registry.serve(model, stage, made.version)
        else:
            assert before is not None
            moved = int(before)
            with suppress(MissingError):
                self._registry.withdraw(model, stage, moved)
        assert moved is not None
        work.set_stage(model, stage, made.version, made.former)
        work.add_move(model, stage, made.did, moved, caller=caller, git=change)

    # What is known

    def stages(self, model: str) -> Answer:
        """What each stage of a model serves, since when, and what it served before, the last first.

        Raises:
            UnknownError: nothing is known of the model.
        """
        in_git = self._gates.in_git()
        with self._store.work() as work:
            rows, newest, git = work.stages(model), work.newest(model), work.git(model)
        if not rows and not newest and model not in self._gates.models():
            raise UnknownError(f"there is no model {model}")
        stages = {
            row["stage"]: {
                "version": _text(row["version"]), "since": _written(row["since"]),
                "former": [str(one) for one in reversed(row["former"])],
            }
            for row in rows
        }  # fmt: skip
        answer = {"model": model, "stages": stages, "versions": [str(one) for one in newest]}
        return answer | {"git": {"commit": git["revision"], "said": git["said"]} if in_git else None}

    def history(self, model: str, stage: str | None, count: int) -> Answer:
        """What was done to a model's stages, the last first: what, when, by whom."""
        with self._store.work() as work:
            rows = work.moves(model, stage, count)
        moves = [
            {
                "move": row["id"], "stage": row["stage"], "did": row["did"], "version": str(row["version"]),
                "passed_over": [str(one) for one in row["passed_over"]], "incident": row["incident"],
                "by": row["caller"], "at": _written(row["at"]), "git": row["git"],
            }
            for row in rows
        ]  # fmt: skip
        return {"model": model, "history": moves}

    def changes(self, since: int, seconds: float) -> Answer:
        """The number of the last move; waits for one after `since`, at most so long."""
        with self.moved:
            seen = self._moves
        with self._store.work() as work:
            last = work.last_move()
        if last <= since:
            with self.moved:
                self.moved.wait_for(lambda: self._moves != seen, seconds)
            with self._store.work() as work:
                last = work.last_move()
        return {"last": last}

    def _told(self) -> None:
        """After a move: those that wait for one, and the registry's tags, which the delivery figures are made of."""
        with self.moved:
            self._moves += 1
            self.moved.notify_all()
        with suppress(PromotionError, MissingError):  # they are told with the next move, or at the next start
            self._tell()

    def _tell(self) -> None:
        with self._store.work() as work:
            for move in work.untold():
                told = {"did": move["did"], "version": str(move["version"])}
                told |= {"incident": move["incident"]} if move["incident"] else {}
                with suppress(MissingError):  # a model that was deleted has no tags
                    key = f"{MOVED}.{move['stage']}.{_written(move['at'])}"
                    self._registry.tag(move["model"], key, json.dumps(told))
                work.told(move["id"])

    # The start

    def _import(self) -> None:
        """Take over, once, what the registry's tags say: how it was before there was this service."""
        with self._store.work() as work:
            work.lock(IMPORTED)
            if work.first("select once from promotion.imported"):
                return
            for model, aliases, tags in self._registry.models():
                self._import_versions(work, model)
                for stage in STAGES:
                    former = [int(one) for one in tags.get(f"{FORMER}.{stage}", "").split(",") if one.isdecimal()]
                    current = int(aliases[stage]) if stage in aliases else None
                    while former and former[-1] == current:
                        former.pop()
                    if former or current is not None:
                        work.set_stage(model, stage, current, former)
                _import_moves(work, model, tags)
            work.connection.execute("insert into promotion.imported (once) values (true)")

    def _import_versions(self, work: Work, model: str) -> None:
        for version, run, model_id, tags in self._registry.versions(model):
            if tags.get("gate") == "passed":
                figures = {key.removeprefix("test_"): tags[key] for key in tags if key.startswith("test_")}
                made = work.one(
                    "insert into promotion.verdicts"
                    " (model, run, model_id, passed, reasons, figures, gate, test, correct, caller)"
                    " values (%s, %s, %s, true, '[]', %s::jsonb, '{}', '', '', %s) returning id",
                    model, run, model_id, json.dumps(figures), IMPORTED,
                )  # fmt: skip
                work.add_version(model, version, run, made["id"])

    def _agree(self) -> None:
        """Have the aliases say what was decided, where an end came in between."""
        with self._store.work() as work:
            decided: dict[str, dict[str, int | None]] = {}
            for row in work.all("select model, stage, version from promotion.stages"):
                decided.setdefault(row["model"], {})[row["stage"]] = row["version"]
        for model, stages in decided.items():
            try:
                found = self._registry.ask("GET", "registered-models/get", name=model)["registered_model"]
            except MissingError:
                continue
            aliases = {one["alias"]: int(one["version"]) for one in found.get("aliases", ())}
            for stage in STAGES:
                version = stages.get(stage)
                with suppress(MissingError, RefusedError):  # a version that was deleted
                    if version is not None and aliases.get(stage) != version:
                        self._registry.serve(model, stage, version)
                    elif version is None and stage in aliases:
                        self._registry.withdraw(model, stage, aliases[stage])


def _import_moves(work: Work, model: str, tags: dict[str, str]) -> None:
    for key in sorted(tags, key=lambda one: one.rpartition(".")[2]):
        if not (found := TAG.fullmatch(key)):
            continue
        try:
            told = json.loads(tags[key])
            move = (model, found[1], str(told["did"]), int(told["version"]), told.get("incident"), IMPORTED, found[2])
        except (ValueError, KeyError, TypeError):
            continue  # somebody else's tag
        work.connection.execute(
            "insert into promotion.moves (model, stage, did, version, incident, caller, at, told)"
            " values (%s, %s, %s, %s, %s, %s, %s, true)",
            move,
        )


def _text(version: int | None) -> str | None:
    return None if version is None else str(version)


def _written(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
