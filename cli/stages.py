"""Stages that are set in Git: proposed by pull request, checked there, done after the merge, rolled back at once.

One file a model, cli/stage_file.py, says what its stages serve. The promotion service compares it with what they serve,
and does all steps of a commit or none (services/promotion/README.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from cli.box import ADMIN, MAIN
from cli.errors import LabError
from cli.promotion import ask, decide, in_git, number_of
from cli.repository import repository_of, repository_of_job
from cli.rollout import await_down, await_rollout, share_of, split
from cli.stage_file import FOLDER, Stages, of_models, path_of
from cli.stage_text import describe, headline
from cli.workloads import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.forge import Forge, Job
    from cli.repository import Repository
    from cli.workloads import Object, Platform

NEWEST = "newest"


def plan(platform: Platform, model: str, versions: Mapping[str, int | str]) -> dict[str, Object]:
    """What the promotion service would do, of each stage, to have the stages serve these versions.

    Raises:
        LabError: it does not answer.
    """
    found: dict[str, Object] = ask(platform, model, f"plan?{urlencode(versions)}")["stages"]
    return found


# On somebody's machine


def propose(
    platform: Platform, model: str, stage: Stage, version: str | None, share: int | None, user: str = ADMIN
) -> None:
    """Open a pull request, or update the open one, by whose merge a stage serves a version.

    Raises:
        LabError: the gate refuses the version; stages are not set in Git; the forge does not answer.
    """
    number = number_of(version)
    git = in_git(platform, model)
    if git is None:
        raise LabError(
            f"stages of {model} are not set in Git",
            remedy="promote without --pull-request, or set platform.promotion: git and run `lab up`",
        )
    with repository_of(platform, user) as repository:
        before = _stages_on(repository, platform, model)
        number = number or int(
            plan(platform, model, {**before.versions, stage.value: NEWEST})[stage.value]["version"] or 0
        )
        if not number:
            raise LabError(f"{model} has no version that has passed the gate", remedy=f"`lab train {model}` makes one")
        wanted = before.changed(stage.value, number, share or 0)
        said = git["said"].get(stage.value, {})
        if said.get("ahead") and said["version"] == number:
            raise LabError(
                f"{stage} of {model} was rolled back from version {number}, which Git still names",
                remedy=f"merge the rollback's pull request first; `lab rollback {model} --stage {stage}` opens it",
            )
        if wanted == before:
            print(f"{stage} of {model} is version {number} in Git already.")
            return
        steps = plan(platform, model, wanted.versions)
        if refused := steps[stage.value]["refused"]:
            raise LabError(refused, remedy=f"`lab gate {model} --version {number}` has all figures")
        made = repository.propose(
            f"promote-{model}-{stage}", {path_of(model): wanted.text(model)},
            headline(model, before, wanted), describe(platform, model, before, wanted, steps),
        )  # fmt: skip
        print(f"Pull request {made.number}: {made.title}\n  {made.url}\nIts merge has {stage} serve version {number}.")


def _stages_on(repository: Repository, platform: Platform, model: str) -> Stages:
    """The stages that `main` names; as they are now, where it does not name any yet."""
    files = of_models(repository.read(FOLDER).files)
    if model in files:
        return files[model]
    found = ask(platform, model, "stages")["stages"]
    served = {stage: {"version": int(one["version"])} for stage, one in found.items() if one["version"]}
    if Stage.canary in served:
        served[Stage.canary]["share"] = share_of(platform, model)
    return Stages.model_validate(served)


def roll_back(
    platform: Platform, model: str, stage: Stage, git: Object, incident: str | None, user: str = ADMIN
) -> None:
    """Have a stage serve what it served before, at once, and revert it in Git by a pull request.

    Where an earlier rollback has no pull request yet, it gets one, and nothing else is done.

    Raises:
        LabError: the promotion service refuses; or the stage serves the version, and the pull request is missing.
    """
    ahead = git["said"].get(stage.value, {}).get("ahead", False)
    if ahead:
        served = ask(platform, model, "stages")["stages"][stage.value]["version"]
        with repository_of(platform, user) as repository:
            if not _is_reverted(repository, model, stage, served):
                print(f"{stage} of {model} was rolled back to version {served}, and Git does not say so yet.")
                _revert(platform, repository, model, stage, served, incident)
                return
    if stage is Stage.canary:
        split(platform, model, 0)
    version, missing = decide(platform, model, stage, "rollback", incident=incident, ahead_of_git=True), None
    print(f"{stage} of {model} is to serve version {version}.", flush=True)
    try:
        with repository_of(platform, user) as repository:
            _revert(platform, repository, model, stage, version, incident)
    except LabError as error:
        missing = error
    await_rollout(platform, model, stage, version)
    if missing:
        raise LabError(
            f"Git still names another version for {stage} of {model}: {missing}",
            remedy=f"`lab rollback {model} --stage {stage}` again opens the pull request, and does nothing else",
        )


def _branch(model: str, stage: Stage) -> str:
    return f"rollback-{model}-{stage}"


def _is_reverted(repository: Repository, model: str, stage: Stage, version: str) -> bool:
    """Whether `main`, or an open pull request, has a stage serve what it was rolled back to."""
    branches = [MAIN, *([_branch(model, stage)] if repository.forge.is_proposed(_branch(model, stage)) else [])]
    named = [of_models(repository.read(FOLDER, branch).files).get(model) for branch in branches]
    return int(version) in [one.versions.get(stage.value) for one in named if one]


def _revert(
    platform: Platform, repository: Repository, model: str, stage: Stage, version: str, incident: str | None
) -> None:
    before = _stages_on(repository, platform, model)
    wanted = before.changed(stage.value, int(version))
    if wanted == before:
        print(f"Git says so already: nothing of {stage} has been merged since.")
        return
    mends = f" It resolves the incident `{incident}`." if incident else ""
    text = (
        f"`lab rollback` has {stage} of `{model}` serve version {version} again. The promotion service has done that"
        f" already, and keeps it until this is merged.{mends}\n\n"
        f"{describe(platform, model, before, wanted, plan(platform, model, wanted.versions))}"
    )
    title = f"Revert: {headline(model, before, wanted)}"
    made = repository.propose(_branch(model, stage), {path_of(model): wanted.text(model)}, title, text)
    print(f"Pull request {made.number}: {made.title}\n  {made.url}")


# In jobs


def changed(job: Job, forge: Forge, proposed: Mapping[str, Stages]) -> dict[str, tuple[Stages, Stages]]:
    """Of the stages in a pull request, those of models that it changes: as `main` has them, and as it has them."""
    with repository_of_job(job, forge) as repository:
        there = of_models(repository.read(FOLDER).files)
    return {
        model: (there.get(model, Stages()), wanted) for model, wanted in proposed.items() if there.get(model) != wanted
    }


def check(platform: Platform, job: Job, forge: Forge, changes: Mapping[str, tuple[Stages, Stages]]) -> None:
    """Comment on a pull request with what its stages would be, and what the gate says of them.

    Raises:
        LabError: the promotion service refuses a stage that it changes.
    """
    texts, refused = [], []
    for model, (before, wanted) in changes.items():
        steps = plan(platform, model, wanted.versions)
        texts.append(describe(platform, model, before, wanted, steps))
        refused += [f"{model}, {one['refused']}" for one in steps.values() if one["refused"]]
    verdict = "**Do not merge this:** the gate refuses it." if refused else "The gate passes it."
    text = "\n\n".join(["<!-- ml-cluster: stages -->", *texts, verdict])
    forge.put_comment(job.pull_request().number, f"{text}\n")
    print(text)
    if refused:
        raise LabError("\n".join(refused), remedy="change the file; `lab gate MODEL --version N` has all figures")


def settle(platform: Platform, job: Job, forge: Forge) -> None:
    """Have the stages of all models as `main` says now, and wait until they serve.

    Killed and run again, it goes on; where all is as it says, it does nothing.

    Raises:
        LabError: the promotion service refuses a stage, or one does not become ready. The other models' are done.
    """
    failed = []
    with repository_of_job(job, forge) as repository:
        models = of_models(repository.read(FOLDER).files)
        # Before `main` is read again: who has read it earlier, and comes later, is refused by the service.
        known = {model: in_git(platform, model) for model in models}
        snapshot = repository.read(FOLDER)
    merged = forge.find_merged(snapshot.commit)
    change = {
        "commit": snapshot.commit,
        "pull_request": merged.number if merged else None,
        "author": merged.author if merged else "",
    }
    for model, wanted in of_models(snapshot.files).items():
        after = (known.get(model) or {}).get("commit", "")
        try:
            _settle(platform, model, wanted, {**change, "after": after})
        except LabError as error:
            failed.append(f"{model}: {error}")
    if failed:
        raise LabError("\n".join(failed), remedy="correct the file by pull request, or run this job again")
    if not models:
        print(f"{MAIN} has no file {path_of('MODEL')}: stages stay as they are.")


def _settle(platform: Platform, model: str, wanted: Stages, change: Mapping[str, object]) -> None:
    steps = ask(platform, model, "stages", {"stages": wanted.versions, **change})["stages"]
    if not wanted.share and not steps[Stage.canary]["kept"]:
        split(platform, model, 0)
    for stage in Stage:
        made = steps[stage.value]
        if made["kept"]:
            print(f"{stage} of {model} stays at version {made['version']}: it was rolled back, and Git is to follow.")
        elif made["version"]:
            await_rollout(platform, model, stage, made["version"])
        elif made["did"]:
            await_down(platform, model, stage)
    if wanted.share and not steps[Stage.canary]["kept"]:
        split(platform, model, wanted.share)
        print(f"The canary of {model} gets {wanted.share} % of production's requests.")
    print(f"Stages of {model} are as commit {str(change['commit'])[:12]} says.")
