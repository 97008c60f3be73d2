"""The settings refuse what is wrong, all of it at once, and take what is right."""

import copy
import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from ruamel.yaml import YAML

from infra.reference import ROOT, project_file, reference
from infra.settings import REFERENCE, Settings, SettingsError, daytime_hours, load_settings
from tests.infra.wrong import GOOD, NOW, WRONG, Wrong

yaml = YAML(typ="safe")


def laid_over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386)."""
    merged = dict(copy.deepcopy(base))
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key, {}), Mapping):
            merged[key] = laid_over(merged.get(key, {}), value)
        else:
            merged[key] = value
    return merged


def configuration(change: str = "{}") -> dict[str, Any]:
    """The good configuration, changed."""
    good: dict[str, Any] = yaml.load(GOOD)["config"]
    return laid_over(good, {f"ml-cluster:{key}": value for key, value in yaml.load(change).items()})


def as_handed_over(config: Mapping[str, Any]) -> dict[str, str]:
    """What the program gets of a configuration: text for text, JSON for the rest."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


def refused(config: Mapping[str, object], **kwargs: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, **{"now": NOW, "secret_keys": ["ml-cluster:privateKey"], **kwargs})
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with files that are no public keys."""
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / "private").write_bytes(private)
    (tmp_path / "text").write_text("hello\n")
    return tmp_path


def test_good_is_accepted() -> None:
    settings = load_settings(as_handed_over(configuration()), now=NOW)
    assert settings.nodes.total == 3
    assert settings == load_settings(configuration(), now=NOW)


@pytest.mark.parametrize("handed_over", [False, True], ids=["yaml", "json"])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_wrong_is_refused(wrong: Wrong, folder: Path, handed_over: bool) -> None:
    config = configuration(wrong.change)
    error = refused(as_handed_over(config) if handed_over else config, source=folder / "Pulumi.bad.yaml", stack="bad")
    told = [fault for fault in error.faults if fault.key == f"ml-cluster:{wrong.key}"]
    assert len(told) == 1, str(error)
    assert wrong.value in told[0].value
    assert wrong.remedy in told[0].remedy
    assert f"{told[0]}" in str(error)
    assert str(error).startswith("Pulumi.bad.yaml: ")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_nothing_else_is_blamed(wrong: Wrong, folder: Path) -> None:
    """One mistake is one fault, also where it makes other settings meaningless."""
    error = refused(configuration(wrong.change), source=folder / "Pulumi.bad.yaml", stack="bad")
    assert [fault.key for fault in error.faults if fault.key != f"ml-cluster:{wrong.key}"] == []


def test_every_fault_is_told_at_once() -> None:
    """Faults in different places, of values and across settings, are told together."""
    config = configuration(
        """
        netwrok: {}
        network: {cdir: 10.1.0.0/24, cidr: 10.42.0.7/24, podCidr: 172.24.0.0/16, serviceCidr: 10.0.0.0/30}
        nodes: {groups: {control: {count: 2}, worker: {count: "2", flavor: m1.smal}}}
        access: {webPorts: [22, 80, x, 80]}
        lease: {hours: null, end: "2026-11-22T00:00Z", timezone: Texas}
        storage: {volumes: {data: {sizeGb: 20000}}}
        """
    )
    assert {fault.key.removeprefix("ml-cluster:") for fault in refused(config).faults} == {
        "netwrok", "network.cdir", "network.cidr", "network.serviceCidr", "network.externalCidrs[0]",
        "nodes.groups.control.count", "nodes.groups.worker.count", "nodes.groups.worker.flavor",
        "access.webPorts[0]", "access.webPorts[2]", "access.webPorts[3]",
        "lease.end", "lease.timezone", "storage.volumes.data.sizeGb",
    }  # fmt: skip


def test_file_and_line_are_named(tmp_path: Path) -> None:
    source = tmp_path / "Pulumi.lines.yaml"
    source.write_text(GOOD.replace("count: 1", "count: 2").replace("172.24.4.0/24", "172.24.4.1/24"))
    faults = {fault.key: fault for fault in refused(yaml.load(source)["config"], source=source).faults}
    for key, text in (("nodes.groups.control.count", "count: 2, flavor"), ("network.externalCidrs[0]", "172.24.4.1")):
        line = faults[f"ml-cluster:{key}"].line
        assert line is not None
        assert text in source.read_text().splitlines()[line - 1]


def test_secrets_are_never_shown() -> None:
    config = configuration("{access: {publicKey: nonsense}, privateKey: hunter2-secret}")
    assert "hunter2-secret" not in str(refused(config))


def test_private_key_in_plain_text_is_refused() -> None:
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    config = {**configuration(f"{{access: {{publicKey: {public}}}}}"), "ml-cluster:privateKey": text}
    load_settings(config, now=NOW, secret_keys=["ml-cluster:privateKey"])
    assert [fault.problem for fault in refused(config, secret_keys=[]).faults] == [
        "stands in plain text in the stack's file"
    ]


def test_private_key_must_be_the_other_half_without_passphrase(tmp_path: Path) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    config = configuration(f"{{access: {{publicKey: {public}}}}}")
    stranger = other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    assert "not the private half" in str(refused({**config, "ml-cluster:privateKey": stranger}))
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", locked], check=True)
    config = configuration(f"{{access: {{publicKey: {locked.with_suffix('.pub').read_text().strip()}}}}}")
    assert "without a passphrase" in str(refused({**config, "ml-cluster:privateKey": locked.read_text()}))


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "x" * 33])
def test_stack_name_makes_host_names(name: str) -> None:
    (fault,) = refused(configuration(), stack=name).faults
    assert (fault.key, fault.value) == ("stack", json.dumps(name))
    load_settings(configuration(), stack="x" * 32, now=NOW)


@pytest.mark.parametrize("stack", ["dev", "chameleon-kvm", "chameleon-baremetal"])
def test_shipped_stacks_are_right(stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (tmp_path / ".ssh" / "id_ed25519.pub").write_bytes(public)
    source = ROOT / f"Pulumi.{stack}.yaml"
    load_settings(yaml.load(source)["config"], source, stack=stack)


def test_sharednet_with_port_security_routes_no_pods() -> None:
    """Neutron lets only a network's owner set address pairs."""
    assert load_settings(configuration(), now=NOW).network.routes_pods
    shared = load_settings(configuration("network: {existing: sharednet1}"), now=NOW)
    assert not shared.network.routes_pods


def test_lease_that_starts_later_leaves_the_nodes_to_a_later_run() -> None:
    settings = load_settings(configuration('lease: {start: "2026-11-23T14:00Z", waitMinutes: 30}'), now=NOW)
    assert settings.starts_later(NOW)
    assert not settings.starts_later(datetime(2026, 11, 23, 13, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "hours", "expected"),
    [
        (datetime(2026, 11, 23, 6, 0, tzinfo=UTC), 4, {"2026-11-23": 2.0}),
        (datetime(2026, 11, 23, 22, 0, tzinfo=UTC), 16, {"2026-11-23": 2.0, "2026-11-24": 6.0}),
        (datetime(2026, 11, 24, 0, 0, tzinfo=UTC), 8, {}),
    ],
)
def test_daytime_hours(start: datetime, hours: int, expected: dict[str, float]) -> None:
    assert daytime_hours(start, start + timedelta(hours=hours), timezone="UTC") == expected


def test_advice_on_what_is_allowed_but_seldom_meant() -> None:
    settings = load_settings(
        configuration("{access: {sshFrom: [0.0.0.0/0]}, lease: {hours: 48, daytimeHours: 8}}"), now=NOW
    )
    ssh, daytime = settings.advice(NOW)
    assert "access.sshFrom: 0.0.0.0/0" in ssh
    assert "8 of daytimeHours" in daytime
    assert load_settings(configuration(), now=NOW).advice(NOW) == []


def test_generated_files_are_current() -> None:
    """Run `python -m infra.reference` if this fails."""
    assert (ROOT / REFERENCE).read_text() == reference()
    assert (ROOT / "Pulumi.yaml").read_text() == project_file((ROOT / "Pulumi.yaml").read_text())


def test_every_setting_is_described() -> None:
    def undescribed(node: Any, at: str) -> list[str]:
        return [
            f"{at}.{name}"
            for name, field in node.get("properties", {}).items()
            if len(field.get("description", "")) < 4
        ]

    schema = Settings.model_json_schema()
    assert [
        *undescribed(schema, ""),
        *(key for name, d in schema["$defs"].items() for key in undescribed(d, name)),
    ] == []


def test_settings_do_without_pulumi() -> None:
    """`lab doctor` and the reference load in a moment, without an engine."""
    code = "import infra.settings, infra.naming, infra.reference, sys; assert 'pulumi' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


COMMAND = [
    ("types", "{network: {cidr: 10.42.0.0/33}, nodes: {groups: {worker: {count: '2'}}}}"),
    ("rules", "{network: {podCidr: 10.42.0.0/16}, nodes: {groups: {control: {count: 2}}}, lease: {hours: 9999}}"),
    ("missing", "{access: null, nodes: null, netwrok: {}}"),
]


@pytest.mark.parametrize(("name", "change"), COMMAND, ids=[name for name, _ in COMMAND])
@pytest.mark.parametrize("verb", [["preview"], ["up", "--yes"]], ids=["preview", "up"])
def test_command_refuses_before_the_cloud_is_asked(name: str, change: str, verb: list[str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for part in ("infra", "__main__.py", "Pulumi.yaml", ".venv"):
        (project / part).symlink_to(ROOT / part)
    config = configuration(change)
    with (project / f"Pulumi.{name}.yaml").open("w") as file:
        YAML().dump({"config": config}, file)
    with socket.create_server(("127.0.0.1", 0)) as cloud:
        clouds = tmp_path / "clouds.yaml"
        auth = {"auth_url": f"http://127.0.0.1:{cloud.getsockname()[1]}/v3", "username": "u", "password": "p"}
        YAML().dump({"clouds": {"devcloud": {"auth": {**auth, "project_name": "p"}}}}, clouds)
        (tmp_path / "state").mkdir()
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "OS_CLIENT_CONFIG_FILE": str(clouds),
            "PULUMI_BACKEND_URL": f"file://{tmp_path / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "correct horse",
        }
        lab = [str(ROOT / "lab"), "--cwd", str(project), "--engine", "embedded", "--stack", name]
        subprocess.run([*lab[:-2], "stack", "init", name], check=True, env=environment, capture_output=True)
        done = subprocess.run([*lab, *verb], check=False, env=environment, capture_output=True, text=True)
        cloud.setblocking(False)
        with pytest.raises(BlockingIOError):
            cloud.accept()
    told = done.stdout + done.stderr
    assert done.returncode not in {0, 32}
    assert "Traceback" not in told
    defaults: dict[str, Any] = {"ml-cluster:access": {}, "ml-cluster:nodes": {}}
    for fault in refused({**defaults, **config}, source=project / f"Pulumi.{name}.yaml", now=None).faults:
        assert fault.key in told
        assert fault.remedy in " ".join(told.split())


def test_no_stack_is_committed_with_the_salt_of_somebodys_secrets() -> None:
    """`lab up` writes it into the stack's file; whoever clones it would be asked for a passphrase that he never set."""
    found = subprocess.run(
        ["git", "grep", "--files-with-matches", "^encryptionsalt", "HEAD", "--", "Pulumi.*.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (1, "")
