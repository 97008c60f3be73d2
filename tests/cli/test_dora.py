"""`lab dora` and `lab incident`: real updates of a real repository, kept in a real PostgreSQL."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from services.delivery.store import Store, StoreError
from tests.services.delivery.conftest import address, server

if TYPE_CHECKING:
    from tests.cli.harness import Lab

__all__ = ["address", "server"]
PROGRAM = "pulumi.ComponentResource('demo:a:Thing', 'thing{number}')\n"


@pytest.fixture
def repository(dev: Lab) -> Lab:
    """A project in Git, with the stack selected."""
    dev.run("stack", "select", "dev")
    git(dev, "init", "--quiet")
    (dev.project / ".gitignore").write_text("__pycache__/\n")
    return dev


def git(lab: Lab, *arguments: str) -> None:
    who = [word for name in ("user.name", "user.email") for word in ("-c", f"{name}=somebody")]
    subprocess.run(["git", "-C", str(lab.project), *who, *arguments], check=True)


def commit(lab: Lab, number: int, message: str = "A change") -> None:
    """Another program, in Git, in a second of its own: the history of a stack has no shorter times."""
    began = int(time.time())
    while int(time.time()) == began:
        time.sleep(0.01)
    lab.write(PROGRAM.format(number=number))
    git(lab, "add", "--all")
    git(lab, "commit", "--quiet", "-m", message)


def test_dora_counts_what_lab_up_did_and_says_what_is_missing(repository: Lab) -> None:
    commit(repository, 1)
    repository.run("up", "--skip-preview")
    repository.run("up", "--skip-preview")  # changes nothing
    commit(repository, 2)
    repository.write(PROGRAM.format(number=3))
    repository.run("up", "--skip-preview")
    told = repository.run("dora", "--json").json
    (figures,) = told["figures"]
    assert figures["subject"] == "infrastructure of demo/dev"
    assert figures["deploymentFrequency"]["deployments"] == 2
    assert figures["changeLeadTime"]["changes"] == 2
    assert 0 <= figures["changeLeadTime"]["medianSeconds"] < 300
    assert figures["changeFailRate"] == {"failed": 0, "rate": 0}
    store = "the store of events, with incidents and what its sources have forgotten"
    assert [one.partition(":")[0] for one in told["missing"]] == ["models", store, "infrastructure of demo/dev"]
    assert "uncommitted changes" in told["missing"][2]
    shown = repository.run("dora").stdout
    assert "infrastructure of demo/dev  2 (0.47 a week)" in shown
    assert "Missing: models: stack 'dev' has no platform" in shown


def test_an_incident_and_its_fix(repository: Lab, address: str) -> None:
    env = {"DELIVERY_STORE": address}
    commit(repository, 1)
    repository.run("up", "--skip-preview")
    repository.run("incident", "open", "no-network", env=env)
    commit(repository, 2, "Mend it\n\nIncident: no-network")
    repository.run("up", "--skip-preview")
    repository.run("incident", "close", "no-network", env=env)
    first, second = (repository.run("dora", "--json", env=env).json for _ in range(2))
    (figures,) = first["figures"]
    assert figures["changeFailRate"] == {"failed": 1, "rate": 0.5}
    assert figures["deploymentReworkRate"] == {"unplanned": 1, "rate": 0.5}
    assert 0 < figures["failedDeploymentRecoveryTime"]["medianSeconds"] < 300
    assert first["newEvents"] > 0
    assert (second["newEvents"], second["figures"]) == (0, first["figures"])


def test_an_incident_is_opened_once_and_closed_when_it_is_open(repository: Lab, address: str) -> None:
    env = {"DELIVERY_STORE": address}
    repository.refuse("incident", "close", "no-network", status=1, saying="was opened", env=env)
    repository.run("incident", "open", "no-network", "--at", "2026-03-01T10:00:00Z", env=env)
    repository.refuse("incident", "open", "no-network", status=1, saying="opened before", env=env)
    repository.run("incident", "open", "no-network", "--model", "digits", env=env)
    repository.refuse("incident", "open", "a", status=1, saying="has no platform")
    repository.refuse("incident", "open", "a", "--at", "noon", status=2, saying="not a time", env=env)


@pytest.mark.parametrize("since", ["yesterday", "30", "2026-13-01"])
def test_a_time_that_is_none_is_refused(repository: Lab, since: str) -> None:
    repository.refuse("dora", "--since", since, status=2, saying=f"--since {since}: not a time")


def test_a_span_that_ends_before_it_begins_is_refused(repository: Lab) -> None:
    repository.refuse(
        "dora", "--since", "2026-03-02", "--until", "2026-03-01", status=2, saying="is not before --until"
    )


def test_no_planted_secret_is_shown_or_kept(repository: Lab, address: str) -> None:
    """Of the stack's settings, a commit's text, the environment, and the store's own address."""
    planted = {where: f"planted-{where}-4f2a9c" for where in ("setting", "commit", "environment", "address")}
    env = {
        "DELIVERY_STORE": address.replace("postgres@", f"postgres:{planted['address']}@"),
        "A_TOKEN": planted["environment"],
    }
    repository.run("config", "set", "--secret", "password", stdin=f"{planted['setting']}\n")
    commit(repository, 1, f"A change\n\nThe password is {planted['commit']}.")
    repository.run("up", "--skip-preview", env=env)
    repository.run("incident", "open", "no-network", env=env)
    shown = [repository.run("dora", *options, env=env) for options in ((), ("--json",))]
    with psycopg.connect(address) as connection:
        kept = str(connection.execute("select * from delivery.events").fetchall())
    assert "no-network" in kept
    for where, secret in planted.items():
        assert secret not in kept, where
        for one in shown:
            assert secret not in one.stdout + one.stderr, where


@pytest.mark.parametrize(
    "address",
    ["postgresql:/a:planted@b/c", "postgresql://a:planted%zz@b/c", "postgresql://localhost:planted/d@b/c", "planted"],
)
def test_an_address_of_a_store_that_is_none_is_not_repeated(address: str) -> None:
    """A password with a sign that has to be written otherwise ends up anywhere in it."""
    with pytest.raises(StoreError, match="cannot be read; write") as refused:
        Store(address)
    assert "planted" not in str(refused.value)


def test_a_project_outside_git_is_told(dev: Lab) -> None:
    dev.run("stack", "select", "dev")
    dev.write(PROGRAM.format(number=1))
    dev.run("up", "--skip-preview")
    told = dev.run("dora", "--json").json
    assert any(one.startswith("Git: ") for one in told["missing"])
    assert told["figures"][0]["deploymentFrequency"]["deployments"] == 1
