"""Playbooks that really run, on this machine alone: what a user sees of them, and what they leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from infra.kubernetes.playbook import ANSIBLE, Job, PlaybookError, run

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
PLAY = "- hosts: all\n  gather_facts: false\n  tasks:\n"


def job(folder: Path, tasks: str, *, host: Mapping[str, object] = HERE, key: str | None = None) -> Job:
    (folder / "playbooks").mkdir()
    (folder / "playbooks" / "site.yml").write_text(PLAY + tasks)
    (folder / "ansible.cfg").write_text("[ssh_connection]\nretries = 0\n")
    inventory = {"all": {"hosts": {"worker-0": host}}}
    return Job(playbook="site.yml", project=folder, inventory=inventory, private_key=key, artifacts=folder / "runs")


def test_progress_stages_and_changes_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tasks = "    - {name: Touch, ansible.builtin.file: {path: %s, state: touch, mode: '0600'}}\n" % (tmp_path / "made")
    result = run(job(tmp_path, tasks))
    assert (result.status, result.changed, list(result.seconds)) == ("successful", 1, ["all"])
    errors = capfd.readouterr().err
    assert "all: Touch" in errors
    assert errors.endswith(result.table() + "\n")
    assert result.table().splitlines()[-1].startswith("Total")
    assert (tmp_path / "made").exists()


def test_a_task_of_a_role_is_named_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = job(tmp_path, "    - {name: Use it, ansible.builtin.include_role: {name: storage}}\n")
    tasks = tmp_path / "playbooks" / "roles" / "storage" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text("- {name: Look, ansible.builtin.debug: {msg: seen}}\n")
    run(wanted)
    assert "\nstorage: Look (" in capfd.readouterr().err


def test_a_failure_names_host_task_and_reason(tmp_path: Path) -> None:
    tasks = "    - {name: Find swap, ansible.builtin.fail: {msg: swap is on}}\n"
    with pytest.raises(PlaybookError) as caught:
        run(job(tmp_path, tasks))
    assert "worker-0, Find swap: swap is on" in str(caught.value)
    assert "Run `lab up` to continue" in str(caught.value)
    kept = Path(str(caught.value).split("Full output: ")[1])
    assert "swap is on" in kept.read_text()


def test_a_host_that_cannot_be_reached_is_named_with_likely_reasons(tmp_path: Path) -> None:
    host = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    with pytest.raises(PlaybookError, match=r"worker-0.*cannot be reached: .*127\.0\.0\.1 port 1.*security group"):
        run(job(tmp_path, "    - ansible.builtin.ping:\n", host=host))


def test_no_secret_is_left_in_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "correct horse")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    tasks = "    - {name: Ask the agent, ansible.builtin.command: ssh-add -l, changed_when: false}\n"
    result = run(job(tmp_path, tasks, key=pem))
    assert result.status == "successful"
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"correct horse" not in kept
    assert pem.splitlines()[1].encode() not in kept


def test_a_playbook_ends_with_its_parent(tmp_path: Path) -> None:
    wanted = job(
        tmp_path, f"    - {{name: Wait, ansible.builtin.wait_for: {{path: {tmp_path}/never, timeout: 600}}}}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "infra.kubernetes.playbook"], cwd=ANSIBLE.parent,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(wanted.model_dump_json() + "\n")
        process.stdin.flush()
        assert "Wait" in process.stderr.readline()
        its = psutil.Process(process.pid).children(recursive=True)
        assert any("ansible-playbook" in " ".join(one.cmdline()) for one in its)
        process.stdin.close()
        assert process.stdout is not None
        assert '"canceled"' in process.stdout.read()
    gone, alive = psutil.wait_procs(its, timeout=30)
    assert (len(gone), alive) == (len(its), [])
