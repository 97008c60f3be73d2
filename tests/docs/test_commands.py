"""Every command in the docs exists, and is run: here, by the test that its block names, or by nobody here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
import yaml

from cli.app import PASS_THROUGH, app, hoist_globals
from tests.cli.harness import ROOT
from tests.docs.pages import (
    LANGUAGES,
    NEEDS,
    PAGES,
    Block,
    arguments_of_lab,
    blocks,
    missing,
    simple_commands,
    spans,
    status_of,
)

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = [block for page in PAGES for block in blocks(page)]
CONSOLE = [block for block in BLOCKS if block.language == "console"]
SPANS = [(page, line, text) for page in PAGES for line, text in spans(page)]
COMMAND = typer.main.get_command(app)
BENCHMARKS = {path.stem for path in (ROOT / "tests" / "bench").glob("[!_]*.py")}
TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
# What a shell does by itself, or what is there to look at something.
SHELL = {"cat", "cd", "cp", "done", "eval", "export", "for", "grep", "mkdir", "mv", "sed"}
# They take their commands from the pages: what names them, they run.
FOLLOWS = {"tests/docs/test_walkthrough.py", "tests/docs/test_own_model.py"}
PLACEHOLDER = re.compile(r"[<>{}*$…]|[A-Z]{3,}|\.\.\.|\bwines\b")  # a model of the reader's own
MISSING_FILE = re.compile(r"does not exist\.?$")


def verbs(arguments: list[str]) -> list[str]:
    """The verb, with those above it. The command line is parsed as `lab` parses it.

    Raises:
        Exception: `lab` would refuse it.
    """
    command: Any = COMMAND
    left = [word for word in hoist_globals(arguments) if word not in {"-h", "--help"}]
    asks_for_help = len(left) < len(hoist_globals(arguments))
    context, found = None, list[str]()
    while True:
        if hasattr(command, "commands") and not left:
            assert asks_for_help or command.invoke_without_command, "missing a verb"
            return found
        if asks_for_help and not hasattr(command, "commands"):
            return found
        try:
            context = command.make_context(found[-1] if found else "lab", left, parent=context)
        except Exception as error:
            if MISSING_FILE.search(str(error)):
                return found  # what the reader has by then
            raise
        if not hasattr(command, "commands"):
            if found == ["bench"]:
                assert context.params["name"] in {None, *BENCHMARKS}, context.params["name"]
            return found
        left = [*context._protected_args, *context.args]
        if not left and command.invoke_without_command:
            return found
        assert left, "missing a verb"
        name, command, left = command.resolve_command(context, left)
        assert name
        assert command
        found.append(name)
        if name in PASS_THROUGH and name != "bench":
            return found


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


def test_every_block_of_data_can_be_read() -> None:
    for block in BLOCKS:
        if block.language == "yaml":
            assert yaml.safe_load(block.text), block
        elif block.language == "json":
            assert json.loads(block.text), block
        elif block.language == "python":
            compile(block.text, str(block), "exec")


def test_there_are_commands() -> None:
    assert len(CONSOLE) > 20
    assert all([*block.commands] for block in CONSOLE), "a block without a line that begins with `$ `"


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_lab_takes_each_command_of_a_block(block: Block) -> None:
    for words in block.commands:
        if (arguments := arguments_of_lab(words)) is not None:
            assert words[0] != "lab", f"{words}: the reader has ./lab"
            verbs(arguments)


def test_lab_takes_each_command_in_a_sentence() -> None:
    faults = []
    for page, line, text in SPANS:
        if not text.startswith(("lab ", "./lab ")) or PLACEHOLDER.search(text):
            continue
        try:
            for words in simple_commands(text):
                if (arguments := arguments_of_lab(words)) is not None:
                    verbs(arguments)
        except Exception as error:
            # `lab promote` in a sentence need not have the arguments that it needs.
            if "issing " not in str(error):
                faults.append(f"{page.relative_to(ROOT)}:{line}: {text}: {error}")
    assert faults == []


def test_what_lab_does_not_know_is_noticed() -> None:
    assert verbs(["--stack", "dev", "promote", "digits", "--to", "canary", "--share", "10"]) == ["promote"]
    assert verbs(["stack", "output", "credentials", "--show-secrets"]) == ["stack", "output"]
    assert verbs(["devcloud", "up", "--help"]) == ["devcloud", "up"]
    assert verbs(["predict", "digits", "no/such/file.json"]) == ["predict"]
    for wrong in (
        ["fly"],
        ["up", "--altitude", "3"],
        ["promote", "digits", "--to", "moon"],
        ["promote", "digits"],
        ["stack", "fly"],
        ["bench", "fly"],
        ["stack"],
    ):
        with pytest.raises(Exception, match=r"\S"):
            verbs(wrong)


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_paths_in_a_block_exist(block: Block) -> None:
    for words in block.commands:
        for word in words:
            _exists(word.partition("=")[2] if word.startswith("--") and "=" in word else word, str(block))


def test_paths_in_a_sentence_exist() -> None:
    for page, line, text in SPANS:
        for word in text.split():
            _exists(word, f"{page.relative_to(ROOT)}:{line}")


def _exists(word: str, where: str) -> None:
    path, _, test = word.removeprefix("./").rstrip("/,:").partition("::")
    if "/" in path and path.partition("/")[0] in TOP and not PLACEHOLDER.search(path) and "@" not in path:
        assert (ROOT / path).exists(), f"{where}: there is no {path}"
        if test:
            assert f"def {test.partition('[')[0]}(" in (ROOT / path).read_text(), f"{where}: {path} has no {test}"


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_somebody_runs_a_block(block: Block) -> None:
    assert len(block.marks) == 1, (
        f"in front of {block} there must be one mark; tests/docs/pages.py says which there are"
    )
    (kind, value), *_ = block.marks.items()
    if kind == "needs":
        assert value in NEEDS
    elif kind == "tested-by":
        names = {name.strip() for name in value.split(",")}
        texts = [(ROOT / name).read_text() for name in names]
        for words in () if names & FOLLOWS else block.commands:
            assert any(_is_run(words, text) for text in texts), f"{block}: {' '.join(words)} is in none of {value}"


def _is_run(words: list[str], text: str) -> bool:
    """Whether a test mentions the verb, or the program that is not `lab`."""
    if (arguments := arguments_of_lab(words)) is not None:
        return f'"{verbs(arguments)[-1]}"' in text
    if words[1:2] == ["-m"]:
        return words[2] in text
    return words[0] in SHELL or re.search(rf"\b{re.escape(words[0])}\b", text) is not None


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is here, with its virtual environment."""
    folder = tmp_path_factory.mktemp("copy") / "ml-cluster"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.mark.parametrize("block", [block for block in CONSOLE if "run" in block.marks], ids=str)
def test_a_block_does_what_it_says(block: Block, copy: Path, tmp_path: Path) -> None:
    """Each command succeeds and prints the lines below it, where `…` stands for anything."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PULUMI_", "XDG_", "LAB_"))
    }
    environment = clean | {"HOME": str(tmp_path), "PULUMI_BACKEND_URL": f"file://{tmp_path}"}
    for line, printed in block.lines:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=copy, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == status_of(line), f"{block}: {line}: {done.stdout}"
        assert missing(printed, done.stdout.splitlines()) is None, f"{block}: {line}: {done.stdout}"


def test_a_line_that_is_not_printed_is_noticed() -> None:
    shown = ["Job training/digits-train-x2b", "  x2b | {}", "", "Registered as version 12 of digits: 0.9778"]
    assert missing(["Job training/digits-train-…", "…", "Registered as version 2 of digits: 0.97"], shown) is None
    assert missing(["Registered as version two of digits: 0.97"], shown) is not None
    assert missing(["Registered as version 2 of digits: …", "Job training/…"], shown) == "Job training/…"
    assert status_of("./lab train digits --variant bad    # exit status 1") == 1
    assert status_of("./lab up") == 0
