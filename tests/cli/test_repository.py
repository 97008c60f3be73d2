"""Files by git, pull requests by REST: of a Git repository and a forge over HTTP. The real forge: tests/forge."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cli.errors import LabError
from cli.forge import Job
from cli.repository import repository_of, repository_of_job
from cli.workloads import Platform
from tests.cli.forge_server import REPOSITORY, TOKEN, Forge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "models/digits/stages.yaml"


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    """A forge whose repository has a file on `main`, and the variables of a job."""
    work, bare = tmp_path / "work", tmp_path / REPOSITORY
    for folder in (work, bare):
        folder.mkdir(parents=True)
    git(bare, "init", "--quiet", "--bare", "--initial-branch=main")
    git(work, "init", "--quiet", "--initial-branch=main")
    (work / FILE).parent.mkdir(parents=True)
    (work / FILE).write_text("production: {version: 1}\n")
    (work / "README.md").write_text("more\n")
    save(tmp_path)
    with Forge() as made:
        for name, value in {**made.environment, "GITHUB_SERVER_URL": f"file://{tmp_path}"}.items():
            monkeypatch.setenv(name, value)
        yield made


def save(folder: Path) -> str:
    """Have `main` be as the work tree is; the commit."""
    git(folder / "work", "add", "--all")
    git(folder / "work", "commit", "--quiet", "--message", "main")
    git(folder / "work", "push", "--quiet", str(folder / REPOSITORY), "HEAD:refs/heads/main")
    return git(folder / "work", "rev-parse", "HEAD").strip()


def branch(folder: Path, name: str) -> str:
    return git(folder / REPOSITORY, "rev-parse", name).strip()


def test_a_file_is_proposed_once_and_again_where_main_has_moved(forge: Forge, tmp_path: Path) -> None:
    with repository_of_job(Job.current()) as repository:
        before = repository.read("models")
        assert before.files == {FILE: "production: {version: 1}\n"}
        assert before.commit == branch(tmp_path, "main")
        assert not repository.forge.is_proposed("promote")
        changed = {FILE: "production: {version: 2}\n", "models/wines/stages.yaml": "{}\n"}
        made = repository.propose("promote", changed, "digits: version 2", "Its figures.")
        first = branch(tmp_path, "promote")
        assert repository.forge.is_proposed("promote")
        # The same again: the same pull request, the same commit, no push that takes an approval away.
        assert repository.propose("promote", changed, "digits: version 2", "Its figures.").number == made.number
        assert branch(tmp_path, "promote") == first
        assert git(tmp_path / REPOSITORY, "diff", "--name-only", "main", "promote").split() == sorted(changed)
        assert git(tmp_path / REPOSITORY, "log", "-1", "--format=%an %s", "promote").strip() == "lab digits: version 2"
        assert repository.read("models", "promote").files == changed

        (tmp_path / "work/README.md").write_text("even more\n")
        main = save(tmp_path)
        assert repository.read("models").commit == main
        repository.propose("promote", changed, "digits: version 2", "Other figures.")
        assert branch(tmp_path, "promote^") == main
    (pull,) = forge.pulls
    assert (pull["title"], pull["body"]) == ("digits: version 2", "Other figures.")


def test_what_goes_wrong_is_said_without_the_token(forge: Forge, tmp_path: Path) -> None:
    with repository_of_job(Job.current()) as repository:
        with pytest.raises(LabError, match=r"git fetch: .* does not answer, or refuses"):
            repository.read("models", "no-such-branch")
        (tmp_path / REPOSITORY).rename(tmp_path / "away")
        with pytest.raises(LabError) as failed:
            repository.read("models")
    assert TOKEN not in f"{failed.value} {failed.value.remedy}"
    assert forge.pulls == []


def test_without_the_forge_on_the_cluster_it_is_the_one_of_the_variables(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = Platform("ci", "lab.example", "127.0.0.1", 1, "", {}, "")
    with repository_of(platform) as repository:
        assert repository.read("models").files.keys() == {FILE}
    assert "GITHUB_TOKEN" not in os.environ  # a job's programs do not get it
    with pytest.raises(LabError, match="the stack has no forge") as refused, repository_of(platform):
        pass
    assert "platform.forge" in str(refused.value.remedy)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    own = Platform("ci", "lab.example", "127.0.0.1", 1, "", {"forge": {"admin": "p", "ada": "q"}}, "")
    with pytest.raises(LabError, match="the forge has no user 'eve'") as refused, repository_of(own, "eve"):
        pass
    assert refused.value.remedy == "choose one of: admin, ada"
    assert forge.requests == []
