"""`lab model`: makes, lists and removes the models of the platform, a folder each; writes what k8s/ takes of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import ExitCode, LabError
from cli.model_code import pipeline_of, settings_of
from cli.session import confirm
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import as_json, table

if TYPE_CHECKING:
    from services.training.settings import Model

app = typer.Typer(
    name="model",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make, list and remove models.",
)
ROOT = Path(__file__).resolve().parent.parent
Name = Annotated[str, typer.Argument(help="A model: a folder of models/.", metavar="MODEL")]


def folder_of(name: str) -> Path:
    """The folder of a model.

    Raises:
        LabError: there is no such model.
    """
    folder = ROOT / "models" / name
    if name not in names():
        known = ", ".join(names()) or "none"
        raise LabError(
            f"model '{name}' does not exist", remedy=f"choose one of: {known}; `lab model new {name}` makes a model"
        )
    return folder


def names() -> list[str]:
    """All models, by name."""
    return sorted(path.parent.name for path in (ROOT / "models").glob("*/model.yaml"))


def written() -> dict[str, str]:
    """What k8s/models is to have, of all models.

    Raises:
        LabError: the settings of one are not valid.
    """
    from cli.scaffold import manifests

    folders = [ROOT / "models" / name for name in names()]
    return manifests([settings_of(folder) for folder in folders], [pipeline_of(folder) for folder in folders])


def write_manifests() -> list[str]:
    """Have k8s/models say what the models' settings say; the files that are new.

    Raises:
        LabError: the settings of a model are not valid.
    """
    from cli import scaffold

    target, files = ROOT / "k8s" / "models", written()
    new = scaffold.stale(target, files)
    scaffold.write(target, {name: files[name] for name in new})
    return new


@app.command()
def new(name: Annotated[str, typer.Argument(help="Its name, as part of a host name.", metavar="MODEL")]) -> None:
    """Make a model: a folder with its settings and one Python module, as an example to write over.

    Writes models/MODEL, and the manifests of its servers in k8s/models. Builds no image.
    """
    from cli import scaffold
    from services.training.settings import module_name, name_errors

    faults = name_errors(name)
    if not any(separator in name for separator in "/\\") and name not in {"", ".", ".."}:
        # Whatever case a file system has names in.
        there = {path.name.lower(): path for place in ("k8s/models", "models") for path in (ROOT / place).iterdir()}
        if (found := there.get(name.lower())) is not None:
            faults.append(f"is there already: {found.relative_to(ROOT)}")
    modules = {module_name(one): one for one in names()}
    if (other := modules.get(module_name(name))) is not None and other != name:
        faults.append(f"has the Python module of {other}")
    if faults:
        raise LabError(
            f"'{name}' cannot be the name of a model: it {'; it '.join(faults)}",
            code=ExitCode.CONFIGURATION,
            remedy="choose another name; nothing was written",
        )
    written()  # refuses faulty settings of other models before it writes anything
    files = scaffold.new_model(name)
    scaffold.write(ROOT / "models" / name, files)
    write_manifests()
    print(f"models/{name} has {', '.join(files)}; k8s/models/{name} follows model.yaml.")
    print(f"Next: edit models/{name}/{module_name(name)}.py, `lab train {name}`, `lab promote {name} --to production`.")


@app.command("ls")
def list_models(json: Json = False) -> None:
    """List all models: what they predict, their gates and variants."""
    models = [settings_of(ROOT / "models" / name) for name in names()]
    if json:
        print(as_json({"models": [model.model_dump() for model in models]}))
        return
    rows = [(one.name, one.about, _asked(one), ", ".join(one.variants) or "none") for one in models]
    print(table(("MODEL", "DESCRIPTION", "GATE", "VARIANTS"), rows))


def _asked(model: Model) -> str:
    score = model.gate["score"]
    return f"{score.get('name', 'accuracy')} {score['minimum']:g}"


@app.command()
def sync(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if k8s/models differs from the settings.")
    ] = False,
) -> None:
    """Write k8s/models from the settings of all models, models/MODEL/model.yaml. `lab train` does it too."""
    from cli import scaffold

    if check:
        if differing := scaffold.stale(ROOT / "k8s" / "models", written()):
            raise LabError(f"k8s/models differs in {', '.join(differing)}", remedy="run `lab model sync`")
        print("k8s/models is as the models' settings say.")
        return
    changed = write_manifests()
    print(f"Wrote {', '.join(f'k8s/models/{name}' for name in changed)}." if changed else "Nothing to write.")


@app.command("rm")
def remove(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a model's folders here; the next `lab up` takes its servers down.

    Its runs, versions and datasets stay: the registry and the object store keep them.
    """
    folder = folder_of(name)
    files = [path for path in folder.rglob("*") if path.is_file()]
    confirm(
        context.obj, yes,
        f"This deletes {folder.relative_to(ROOT)} with {len(files)} files, and k8s/models/{name}. The next `lab up`"
        f" takes all stages of {name} down.",
    )  # fmt: skip
    shutil.rmtree(folder)
    shutil.rmtree(ROOT / "k8s" / "models" / name, ignore_errors=True)
    write_manifests()
    print(f"{name} is removed here. Its runs, versions and datasets stay.")
