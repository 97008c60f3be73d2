"""Valid settings are accepted; all errors of invalid ones are reported at once."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from ruamel.yaml import YAML

from infra.naming import node_part
from infra.reference import ROOT, project_file, reference
from infra.settings import REFERENCE, Settings, SettingsError, daytime_hours, load_settings, public_key
from tests.infra.wrong import GOOD, NOW, PLATFORM, PUBLIC_KEY, WRONG, Wrong, configuration, write_key_files
from tests.warm import launchers

yaml = YAML(typ="safe")
NOBODY = 65534


def as_handed_over(config: Mapping[str, Any]) -> dict[str, str]:
    """What the program gets of a configuration: text for text, JSON for the rest."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


def refused(config: Mapping[str, object], **kwargs: Any) -> SettingsError:
    secrets = {f"ml-cluster:{name}" for name in ("privateKey", "backupSecretKey", "gitopsPassword")}
    secret_keys = [key for key in config if key in secrets]
    with pytest.raises(SettingsError) as caught:
        load_settings(config, **{"now": NOW, "secret_keys": secret_keys, **kwargs})
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with files that are no public keys."""
    write_key_files(tmp_path)
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
    reported = [setting for setting in error.invalid if setting.key == f"ml-cluster:{wrong.key}"]
    assert len(reported) == 1, str(error)
    assert wrong.value in reported[0].value
    assert wrong.remedy in reported[0].remedy
    assert f"{reported[0]}" in str(error)
    assert str(error).startswith("Pulumi.bad.yaml: ")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_one_mistake_causes_one_error(wrong: Wrong, folder: Path) -> None:
    """Also if it makes other settings meaningless."""
    error = refused(configuration(wrong.change), source=folder / "Pulumi.bad.yaml", stack="bad")
    assert [setting.key for setting in error.invalid if setting.key != f"ml-cluster:{wrong.key}"] == []


def test_all_errors_are_reported_at_once() -> None:
    """Errors in different places, in values and across settings, are reported together."""
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
    assert {setting.key.removeprefix("ml-cluster:") for setting in refused(config).invalid} == {
        "netwrok", "network.cdir", "network.cidr", "network.serviceCidr", "network.externalCidrs[0]",
        "nodes.groups.control.count", "nodes.groups.worker.count", "nodes.groups.worker.flavor",
        "access.webPorts[0]", "access.webPorts[2]", "access.webPorts[3]",
        "lease.end", "lease.timezone", "storage.volumes.data.sizeGb",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        "access: {sshFrom: [10.0.0.0/8, 10.1.0.0/16, 0.0.0.0/0, '::/0', '2001:db8::/32']}",
        "access: {sshFrom: [10.0.0.0/8], apiFrom: [10.0.0.0/8], webFrom: [10.0.0.0/8]}",
        "network: {dnsServers: [9.9.9.9, 1.1.1.1, 8.8.8.8, 8.8.4.4, 149.112.112.112]}",
        "access: {webPorts: [30443, 30080, 10250]}",
        "network: {podCidr: 11.0.0.0/8}",
        "network: {existing: null, mtu: null}",
        "{lease: none, cluster: none, platform: none}",
        "lease: {hours: null, end: '2026-12-01T18:00-06:00', start: '2026-11-01T00:00Z'}",
        "{lease: {type: 'physical:host'}, storage: null, nodes: {groups: {worker: {flavor: baremetal, hosts: 3}}}}",
        "cluster: {bundle: ~/not/yet, variables: {cluster_registry_port: 5001}, kubernetesVersion: v1.37.2}",
        f"{{{PLATFORM}: {{domain: lab.internal}}}}",
        f"{{{PLATFORM}: {{domain: 192-0-2-7.sslip.io}}}}",
        f"{{{PLATFORM}: {{domain: xn--mnchen-3ya.2026.example.org}}}}",
    ],
)  # fmt: skip
def test_right_is_accepted(change: str) -> None:
    settings = load_settings(as_handed_over(configuration(change)), now=NOW)
    assert settings == load_settings(configuration(change), now=NOW)


@pytest.mark.parametrize("section", ["lease", "cluster", "platform", "network", "nodes"])
def test_section_without_a_value_is_refused(section: str) -> None:
    """As a YAML reader hands it over that does not make a text of it."""
    (setting,) = refused({**configuration(), f"ml-cluster:{section}": None}).invalid
    assert (setting.key, setting.problem) == (f"ml-cluster:{section}", "is blank")


def test_misspelt_namespace_is_refused() -> None:
    config = configuration()
    config["ml_cluster:lease"] = config.pop("ml-cluster:lease")
    (setting,) = refused(config).invalid
    assert (setting.key, setting.remedy) == ("ml_cluster:lease", "Did you mean `lease`?")
    load_settings({**configuration(), "openstack:region": "RegionOne"}, now=NOW)


@pytest.mark.parametrize("text", ["{key}", "\ufeff{key}\r\n", "{key}\n\n", "\n  {key}"])
def test_key_file_as_editors_leave_it(text: str, folder: Path) -> None:
    (folder / "lab.pub").write_text(text.format(key=PUBLIC_KEY), encoding="utf-8", newline="")
    settings = load_settings(configuration("access: {publicKeyFile: lab.pub}"), folder / "Pulumi.good.yaml", now=NOW)
    assert public_key(settings, folder) == PUBLIC_KEY


def test_key_file_of_somebody_else_is_refused(folder: Path) -> None:
    (folder / "theirs.pub").write_text(PUBLIC_KEY)
    (folder / "theirs.pub").chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            folder.chmod(0o755)
            os.seteuid(NOBODY)
        config = configuration("access: {publicKeyFile: theirs.pub}")
        (setting,) = refused(config, source=folder / "Pulumi.bad.yaml").invalid
    finally:
        if root:
            os.seteuid(0)
    assert setting.key == "ml-cluster:access.publicKeyFile"
    assert "permission denied" in setting.problem
    assert "permissions" in setting.remedy


def test_no_two_nodes_have_one_name() -> None:
    """Whatever the groups are called, and however many nodes they have."""
    groups = ["a", "a-1", "a-10", "a-1-0", "1", "1-1"]
    names = [node_part(group, index) for group in groups for index in range(250)]
    assert len(set(names)) == len(names)


def test_file_and_line_are_named(tmp_path: Path) -> None:
    source = tmp_path / "Pulumi.lines.yaml"
    source.write_text(GOOD.replace("count: 1", "count: 2").replace("172.24.4.0/24", "172.24.4.1/24"))
    invalid = {setting.key: setting for setting in refused(yaml.load(source)["config"], source=source).invalid}
    for key, text in (("nodes.groups.control.count", "count: 2, flavor"), ("network.externalCidrs[0]", "172.24.4.1")):
        line = invalid[f"ml-cluster:{key}"].line
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
    del config["ml-cluster:privateKey"]  # by who has no passphrase, as `lab doctor`
    load_settings(config, now=NOW, secret_keys=["ml-cluster:privateKey"])
    config["ml-cluster:privateKey"] = text
    assert [setting.problem for setting in refused(config, secret_keys=[]).invalid] == [
        "is in plain text in the stack's file"
    ]


def test_private_key_must_be_the_other_half_without_passphrase(tmp_path: Path) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    config = configuration(f"{{access: {{publicKey: {public}}}}}")
    stranger = other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    assert "not the private key" in str(refused({**config, "ml-cluster:privateKey": stranger}))
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", locked], check=True)
    config = configuration(f"{{access: {{publicKey: {locked.with_suffix('.pub').read_text().strip()}}}}}")
    assert "without a passphrase" in str(refused({**config, "ml-cluster:privateKey": locked.read_text()}))


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "x" * 33])
def test_stack_name_makes_host_names(name: str) -> None:
    (setting,) = refused(configuration(), stack=name).invalid
    assert (setting.key, setting.value) == ("stack", json.dumps(name))
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
    ssh, daytime = settings.warnings(NOW)
    assert "access.sshFrom: 0.0.0.0/0" in ssh
    assert "8 of daytimeHours" in daytime
    assert load_settings(configuration(), now=NOW).warnings(NOW) == []


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
    for part in ("infra", "kubeyaml", "__main__.py", "Pulumi.yaml"):
        (project / part).symlink_to(ROOT / part)
    (project / ".venv").symlink_to(launchers().virtualenv)
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
        command = [str(launchers().lab), str(ROOT / "cli/__main__.py")]
        lab = [*command, "--cwd", str(project), "--engine", "embedded", "--stack", name]
        subprocess.run([*lab[:-2], "stack", "init", name], check=True, env=environment, capture_output=True)
        done = subprocess.run([*lab, *verb], check=False, env=environment, capture_output=True, text=True)
        cloud.setblocking(False)
        with pytest.raises(BlockingIOError):
            cloud.accept()
    result = done.stdout + done.stderr
    assert done.returncode not in {0, 32}
    assert "Traceback" not in result
    defaults: dict[str, Any] = {"ml-cluster:access": {}, "ml-cluster:nodes": {}}
    for setting in refused({**defaults, **config}, source=project / f"Pulumi.{name}.yaml", now=None).invalid:
        assert setting.key in result
        assert setting.remedy in " ".join(result.split())


def test_no_stack_is_committed_with_the_salt_of_somebodys_secrets() -> None:
    """`lab up` writes it into the stack's file; whoever clones it would be asked for a passphrase that he never set."""
    found = subprocess.run(
        ["git", "grep", "--files-with-matches", "^encryptionsalt", "HEAD", "--", "Pulumi.*.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (1, "")
