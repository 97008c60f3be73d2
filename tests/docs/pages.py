"""What README.md and docs/ say one can type, and what is said of each block of it.

A block of commands is fenced as `console`: lines that begin with `$ ` are commands of a user, with `# ` of root; the
others are what they print, in this order among others, where `…` stands for anything and a number for any number. A
command that fails says so: `# exit status 1`. The HTML comment in front of a block says who runs it:

    <!-- run -->                                  tests/docs/test_commands.py does, in a copy of the repository
    <!-- tested-by: tests/e2e/test_first_up.py -->   tests that run these commands, separated by commas
    <!-- needs: chameleon -->                     nobody can here: something of NEEDS is needed for it
"""

from __future__ import annotations

import itertools
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt

from tests.cli.harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
NEEDS = {
    "chameleon": "an account and a project at chameleoncloud.org",
    "forge": "a cluster with a forge on it",
    "git-host": "a repository on a host that runs jobs for pull requests",
    "gitops": "a cluster with a GitOps controller on it",
    "second-machine": "another machine to copy to, or to make nodes of",
    "browser": "somebody who looks at it",
    "bucket": "a bucket of an S3 outside the cluster, and its keys",
}
MARK = re.compile(r"<!--\s*(run|tested-by|needs)(?::\s*(.*?))?\s*-->")
LANGUAGES = {"console", "csv", "json", "mermaid", "python", "text", "yaml"}
NUMBER = re.compile(r"\d+(?:\\\.\d+)*")
KEYWORDS = {"!", "do", "else", "if", "then", "while"}
SEPARATORS = {"|", "||", "&&", ";", "&"}
VARIABLE = re.compile(r"[A-Za-z_]\w*=")
SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the marks in front of it."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def lines(self) -> Iterator[tuple[str, list[str]]]:
        """Each command line, with what it prints."""
        command, printed = "", list[str]()
        going_on = False
        for line in self.text.splitlines():
            if going_on:
                command += f" {line.strip()}"
            elif line.startswith(("$ ", "# ")):
                if command:
                    yield command, printed
                command, printed = line[2:], []
            else:
                printed.append(line)
                continue
            going_on = command.endswith("\\")
            command = command.removesuffix("\\").rstrip()
        if command:
            yield command, printed

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each simple command."""
        for line, _ in self.lines:
            yield from simple_commands(line)


def status_of(line: str) -> int:
    """The exit status that a command line is said to have."""
    found = re.search(r"# .*\bexit status (\d+)", line)
    return int(found[1]) if found else 0


def missing(printed: Iterable[str], shown: Iterable[str]) -> str | None:
    """The first line that is said to be printed, and is not."""
    left = iter(shown)
    for wanted in filter(str.strip, printed):
        parts = [NUMBER.sub(r"\\d[\\d.]*", re.escape(part)) for part in wanted.rstrip().split("…")]
        if wanted.strip() != "…" and not any(re.fullmatch(".*".join(parts), line.rstrip()) for line in left):
            return wanted
    return None


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell's line, those in `$(...)` too; variables in front are left out."""
    for inner in SUBSTITUTION.findall(line):
        yield from simple_commands(inner)
    lexer = shlex.shlex(SUBSTITUTION.sub("SUBSTITUTED", line), posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in SEPARATORS:
            if words:
                yield words
            words = []
        elif words or not (VARIABLE.match(word) or word in KEYWORDS):
            words.append(word)


def arguments_of_lab(words: list[str]) -> list[str] | None:
    """What a command gives to `lab`, on this machine or another; None where it is not about it."""
    for number, word in enumerate(words):
        if word == "lab" or word.endswith("/lab"):
            return words[number + 1 :] if number == 0 or words[0] == "ssh" else None
    return None


def _tokens(text: str) -> list[Any]:
    return list(MarkdownIt("commonmark").enable("table").parse(text))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    marks: dict[str, str] = {}
    for token in _tokens(page.read_text()):
        if token.type == "html_block":
            marks |= {name: value or "" for name, value in MARK.findall(token.content)}
        elif token.type == "fence":
            yield Block(page, token.map[0] + 1, token.info.strip(), token.content, marks)
            marks = {}
        elif token.type in {"paragraph_open", "heading_open", "table_open"}:
            marks = {}


def spans(page: Path) -> Iterator[tuple[int, str]]:
    """The code within sentences and tables, with its line."""
    for line, child in _inline(page):
        if child.type == "code_inline":
            yield line, child.content


def links(page: Path) -> Iterator[tuple[int, str]]:
    """What a page links to, pictures too, with its line."""
    for line, child in _inline(page):
        for name in ("href", "src"):
            if name in child.attrs:
                yield line, child.attrs[name]


def _inline(page: Path) -> Iterator[tuple[int, Any]]:
    for token in _tokens(page.read_text()):
        for child in token.children or ():
            yield token.map[0] + 1, child


def anchors(page: Path) -> set[str]:
    """The fragments that lead to its headings, as Git hosts make them."""
    tokens = _tokens(page.read_text())
    titles = [after.content for before, after in itertools.pairwise(tokens) if before.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
