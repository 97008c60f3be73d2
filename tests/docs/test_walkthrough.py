"""The commands of the docs on a running platform, as they stand there, block after block, each page in a shell.

Costs about 15 minutes on idle cores beside the platform itself.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from infra.manifests import kubectl
from tests.cli.harness import ROOT
from tests.docs.pages import PAGES, Block, blocks, missing, status_of
from tests.e2e.harness import BUNDLE
from tests.e2e.platform_stack import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
NAME = "tests/docs/test_walkthrough.py"
# The tutorial comes first: the version that it goes back to is the one that the platform came with.
BLOCKS = [
    block
    for page in sorted(PAGES, key=lambda page: page.parent.name != "tutorial")
    for block in blocks(page)
    if NAME in block.marks.get("tested-by", "")
]
END = "end of command"


class Shell:
    """A bash that remembers variables from one command to the next."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, line: str) -> tuple[int, list[str]]:
        """Exit status of a line, and what it prints. It finds nothing on its standard input."""
        assert self._bash.stdin
        assert self._bash.stdout
        self._bash.stdin.write(f'{{ {line}\n}} < /dev/null\nprintf "\\n{END} %s\\n" $?\n')
        self._bash.stdin.flush()
        shown = list[str]()
        for text in self._bash.stdout:
            if text.startswith(END):
                return int(text.split()[-1]), shown
            shown.append(text.rstrip())
        raise AssertionError(f"the shell has ended: {shown}")

    def close(self) -> None:
        self._bash.kill()
        self._bash.wait()


@pytest.fixture(scope="module")
def clone(platform: PlatformStack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as its readers have it, where `./lab` works on the stack of the tests."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name != "lab":
            (folder / path.name).symlink_to(path)
    lab = folder / "lab"
    lab.write_text(f'#!/bin/sh\nexec {ROOT}/lab --cwd {platform.lab.project} --engine {platform.lab.engine} "$@"\n')
    lab.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def shells(platform: PlatformStack, clone: Path) -> Iterator[dict[Path, Shell]]:
    """A shell for each page."""
    program = kubectl(str(BUNDLE), VERSION)
    assert program
    folder = program.rpartition("/")[0]
    environment = {**platform.lab.env, "PATH": f"{folder}:{os.environ['PATH']}", "COLUMNS": "200"}
    made = {block.page: Shell(clone, environment) for block in BLOCKS}
    yield made
    for shell in made.values():
        shell.close()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_does_what_it_says(block: Block, shells: dict[Path, Shell]) -> None:
    """Each command ends with the status that is said, and prints the lines below it."""
    for line, printed in block.lines:
        status, shown = shells[block.page].run(line)
        assert status == status_of(line), (line, shown)
        assert missing(printed, shown) is None, (line, shown)
