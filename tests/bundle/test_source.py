"""A family whose module is built from a copy, as it names itself otherwise than its proxy."""

from __future__ import annotations

import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from bundle.modules import checksum

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle.conftest import Copy

NAME = "example.org/forged"
SOURCE = {
    "go.mod": "module forged.example\n\ngo 1.26.0\n",
    "main.go": (
        'package main\n\nimport _ "embed"\n\n//go:embed data.txt\nvar data string\n\nfunc main() { print(data) }\n'
    ),
    "broken.go": "package main\n\nfunc broken() { nothing.AtAll() }\n",
    "pages/index.html": "<title>pages</title>",
    "generate.go": """\
//go:build ignore

package main

import "os"

func main() {
	content, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	if err := os.WriteFile(os.Args[2], content, 0o644); err != nil {
		panic(err)
	}
}
""",
}
FAMILY = """
families:
  forged:
    version: v1.0.0
    module: forged
    source:
      module: example.org/forged
      sum: {sum}
      without: [{without}]
      generate: [[generate.go, pages/index.html, data.txt]]
    programs: {{forged: forged.example}}
"""


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    """A module proxy in a folder, with one module."""
    archive = tmp_path / "proxy" / NAME / "@v" / "v1.0.0.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as opened:
        for path, text in SOURCE.items():
            opened.writestr(f"{NAME}@v1.0.0/{path}", text)
    return archive


def described(copy: Copy, sum_: str, without: str = "broken.go") -> None:
    folder = copy.tree / "bundle/go/forged"
    folder.mkdir(exist_ok=True)
    replaced = "require forged.example v1.0.0\n\nreplace forged.example => ./source\n"
    (folder / "go.mod").write_text(f"module ml-cluster.local/bundle/forged\n\ngo 1.26.0\n\n{replaced}")
    (folder / "go.sum").write_text("")
    copy.manifest(FAMILY.format(sum=sum_, without=without))


def test_it_is_built_without_what_cannot_be_and_with_what_is_generated(copy: Copy, proxy: Path) -> None:
    described(copy, checksum(proxy))
    copy.build(env={"GOPROXY": f"file://{proxy.parents[3]}"})
    ran = subprocess.run([copy.bundle / "bin/forged/v1.0.0/forged"], check=True, capture_output=True, text=True)
    assert ran.stderr == SOURCE["pages/index.html"]


def test_another_source_than_the_pinned_one_is_refused(copy: Copy, proxy: Path) -> None:
    described(copy, f"h1:{'A' * 43}=")
    done = copy.run("build", env={"GOPROXY": f"file://{proxy.parents[3]}"})
    assert done.returncode
    assert f"module {NAME}@v1.0.0 has the checksum {checksum(proxy)}, but manifest.yaml has" in done.stderr


def test_a_file_to_leave_out_that_is_not_there_is_named(copy: Copy, proxy: Path) -> None:
    described(copy, checksum(proxy), without="gone.go")
    done = copy.run("build", env={"GOPROXY": f"file://{proxy.parents[3]}"})
    assert done.returncode
    assert f"module {NAME}@v1.0.0 has no gone.go" in done.stderr
