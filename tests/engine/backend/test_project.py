"""Project and stack settings: values and edits as the Pulumi CLI has them, all problems at once."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.errors import ConfigError, EngineError, PassphraseError
from engine.project import Project, StackConfig, config_for_history
from engine.secrets import PassphraseSecretsManager
from tests.engine.backend.reference.make import PASSPHRASE

if TYPE_CHECKING:
    from engine.backend.base import Json

REFERENCE = Path(__file__).parent / "reference"
EDITS = json.loads((REFERENCE / "edits.json").read_text())


@pytest.fixture(scope="module")
def crypter() -> PassphraseSecretsManager:
    return PassphraseSecretsManager.create(PASSPHRASE)


def load(folder: Path, project: str = "name: sample\nruntime: python\n", stack: str = "") -> StackConfig:
    (folder / "Pulumi.yaml").write_text(project)
    (folder / "Pulumi.dev.yaml").write_text(stack)
    return StackConfig.load(Project.find(folder), "dev")


def problems_of(folder: Path, project: str = "name: sample\nruntime: python\n", stack: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, project, stack).decrypt_all(None)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


# --- what the program gets


@functools.cache
def reference() -> tuple[dict[str, str], list[str], Json]:
    config = StackConfig.load(Project.find(REFERENCE / "config"), "dev")
    manager = PassphraseSecretsManager.from_state({"salt": config.encryption_salt}, PASSPHRASE)
    values, secret_keys = config.decrypt_all(manager)
    given: Json = json.loads((REFERENCE / "config" / "given.json").read_text())
    return values, secret_keys, given


@pytest.mark.parametrize("key", sorted(reference()[2]["config"]))
def test_value_is_what_the_cli_hands_to_the_program(key: str) -> None:
    values, _, given = reference()
    assert values[key] == given["config"][key]


def test_keys_are_those_that_the_cli_hands_to_the_program() -> None:
    values, secret_keys, given = reference()
    assert sorted(values) == sorted(given["config"])
    assert sorted(secret_keys) == given["secret_keys"]


# --- edits


@pytest.fixture(scope="module")
def edited(
    tmp_path_factory: pytest.TempPathFactory, crypter: PassphraseSecretsManager
) -> list[tuple[str, dict[str, str]]]:
    """After each of the reference's edits: the error, and all values."""
    config = load(tmp_path_factory.mktemp("edits"))
    results = []
    for edit in EDITS:
        verb, *arguments = edit["command"]
        key, *value = (argument for argument in arguments if not argument.startswith("--"))
        refused = ""
        try:
            if verb == "set":
                path, secret = "--path" in arguments, "--secret" in arguments
                config.set(key, *value, path=path, secret=secret, crypter=crypter)
            else:
                config.remove(key, path="--path" in arguments)
        except EngineError as error:
            refused = str(error)
        config.save()
        config = StackConfig.load(Project.find(config.path.parent), "dev")
        results.append((refused, {key: config.reveal(value, crypter) for key, value in config.items()}))
    return results


@pytest.mark.parametrize(
    "step", range(len(EDITS)), ids=[" ".join(edit["command"]).encode("unicode_escape").decode() for edit in EDITS]
)
def test_edit_gives_what_the_cli_gives(edited: list[tuple[str, dict[str, str]]], step: int) -> None:
    refused, values = edited[step]
    expected = EDITS[step]
    assert values == expected["values"]
    assert bool(refused) == bool(expected["refused"]), expected["refused"]


def test_edits_keep_comments_order_and_style(tmp_path: Path) -> None:
    before = """\
# The lab of spring.
config:
  # How many.
  sample:count: 3 # three
  sample:flag: yes

  sample:nodes: &nodes
    - {name: "a", size: 012} # first
    # The second one.
    - name: 'b'
      size: 1.50
  sample:again: *nodes
  sample:text: |
    one
    two
"""
    config = load(tmp_path, stack=before)
    config.set("count", "4")
    config.set("nodes[1].size", "2", path=True)
    config.set("new", "x")
    config.save()
    expected = before.replace("count: 3 #", "count: '4' #").replace("size: 1.50", "size: 2") + "  sample:new: x\n"
    assert config.path.read_text() == expected


def test_what_becomes_empty_stays_valid_beside_its_comment(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        stack="""\
config:
  sample:volumes: # what outlives the servers
    data: {size: 1} # gigabytes

  sample:ranges: # who may come
    - 10.0.0.0/8 # the campus
  sample:last: x
""",
    )
    config.remove("volumes.data", path=True)
    config.remove("ranges[0]", path=True)
    config.save()
    again = "config:\n  sample:volumes: {} # what outlives the servers\n  sample:ranges: [] # who may come\n"
    assert config.path.read_text() == again + "  sample:last: x\n"
    config = StackConfig.load(Project.find(tmp_path), "dev")
    config.set("volumes.logs.size", "2", path=True)
    config.save()
    assert "# what outlives the servers\n    logs:\n      size: 2\n" in config.path.read_text()


def test_a_key_without_namespace_keeps_its_spelling(tmp_path: Path) -> None:
    config = load(tmp_path, stack="config:\n  size: small\n")
    config.set("sample:size", "large")
    config.save()
    assert config.path.read_text() == "config:\n  size: large\n"


def test_get_follows_a_path(tmp_path: Path) -> None:
    config = load(tmp_path, stack="config:\n  sample:a:\n    b: [{c: 7}]\n")
    found = config.get("a.b[0].c", path=True)
    assert found is not None
    assert found.value == "7"
    assert config.get("a.b[1].c", path=True) is None
    assert config.get("absent") is None


def test_saving_an_absent_file_makes_it(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: sample\nruntime: python\nstackConfigDir: stacks\n")
    config = StackConfig.load(Project.find(tmp_path), "dev")
    config.encryption_salt = "v1:x"
    config.set("a", "1")
    config.save()
    assert (tmp_path / "stacks" / "Pulumi.dev.yaml").read_text() == "encryptionsalt: v1:x\nconfig:\n  sample:a: '1'\n"


def test_a_secret_is_never_in_the_file_nor_in_an_error(tmp_path: Path, crypter: PassphraseSecretsManager) -> None:
    config = load(tmp_path, "name: sample\nruntime: python\nconfig: {pin: {type: integer, secret: true}}\n")
    config.set("pin", "planted-secret", secret=True, crypter=crypter)
    config.save()
    assert "planted-secret" not in config.path.read_text()
    with pytest.raises(ConfigError, match="pin = \\[secret\\]: this should be of type integer") as caught:
        config.decrypt_all(crypter)
    assert "planted-secret" not in str(caught.value)
    config.set("pin", "planted-secret")
    with pytest.raises(ConfigError, match="should be encrypted") as caught:
        config.decrypt_all(crypter)
    assert "planted-secret" not in str(caught.value)


def test_secrets_without_a_passphrase_say_so(tmp_path: Path) -> None:
    config = load(tmp_path, stack="config:\n  sample:a: {secure: v1:x:y}\n")
    assert config.has_secrets
    with pytest.raises(PassphraseError):
        config.decrypt_all(None)


def test_history_keeps_secrets_encrypted(crypter: PassphraseSecretsManager) -> None:
    kept = config_for_history({"sample:a": "1", "sample:b": "hidden"}, ["sample:b"], crypter)
    assert kept["sample:a"] == "1"
    assert "hidden" not in json.dumps(kept)
    secure = kept["sample:b"]
    assert isinstance(secure, dict)
    assert crypter.decrypt(secure["secure"]) == "hidden"


# --- the project


def test_project_is_found_upwards(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: sample\nruntime: python\nmain: program\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    project = Project.find(tmp_path / "a" / "b")
    assert project.root == tmp_path
    assert project.main == tmp_path / "program"


def test_no_project_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"No Pulumi\.yaml") as caught:
        Project.find(tmp_path)
    assert caught.value.remedy


def test_everything_of_a_project_file(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text(
        """\
name: sample
description: A lab
runtime: {name: python, options: {virtualenv: env}}
backend: {url: "s3://state"}
options: {refresh: always}
plugins: {providers: [{name: openstack, path: ./bin}]}
packages: {random: random@1}
author: someone
"""
    )
    project = Project.find(tmp_path)
    assert project.name == "sample"
    assert project.description == "A lab"
    assert project.runtime_name == "python"
    assert project.virtualenv == tmp_path / "env"
    assert project.backend_url == "s3://state"
    assert project.refresh_always
    assert project.provider_paths == {"openstack": tmp_path / "bin"}
    assert project.stack_config_path("dev") == tmp_path / "Pulumi.dev.yaml"


@pytest.mark.parametrize(
    ("options", "lock_above", "expected"),
    [
        ("{virtualenv: env}", True, "project/env"),
        ("{toolchain: uv, virtualenv: env}", True, "project/env"),
        ("{toolchain: uv}", True, ".venv"),
        ("{toolchain: uv}", False, "project/.venv"),
        ("{}", True, ".venv"),
        ("{}", False, None),
        ("{toolchain: pip}", True, None),
    ],
)
def test_virtualenv_is_the_clis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, lock_above: bool, expected: str | None
) -> None:
    monkeypatch.delenv("UV_PROJECT_ENVIRONMENT", raising=False)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "Pulumi.yaml").write_text(f"name: sample\nruntime: {{name: python, options: {options}}}\n")
    if lock_above:
        (tmp_path / "uv.lock").touch()
    elif options != "{toolchain: uv}" and any((parent / "uv.lock").exists() for parent in tmp_path.parents):
        expected = str(next(parent for parent in tmp_path.parents if (parent / "uv.lock").exists()) / ".venv")
    found = Project.find(tmp_path / "project").virtualenv
    assert found == (tmp_path / expected if expected else None)


def test_old_form_of_the_settings_folder(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: sample\nruntime: python\nconfig: settings\n")
    assert Project.find(tmp_path).stack_config_path("dev") == tmp_path / "settings" / "Pulumi.dev.yaml"


# --- problems, all at once, each with its place


def test_all_problems_of_a_project_file(tmp_path: Path) -> None:
    project = """\
name: "bad name"
runtime: {nam: python}
main: [a]
backend: {uri: x}
options: {refresh: sometimes}
config:
  a: {type: text}
  b: {type: integer, defualt: 3}
  c: {secret: maybe}
"""
    found = problems_of(tmp_path, project)
    expected = {
        1: "name = bad name",
        2: "runtime.name is missing",
        3: 'main = ["a"]',
        4: "backend.uri is not a key",
        5: "options.refresh = sometimes",
        7: "config.a.type = text",
        8: "config.b.defualt is not a key that belongs here; remove it or correct its name (did you mean 'default'?)",
        9: "config.c.secret = maybe",
    }
    for line, text in expected.items():
        assert any(problem.startswith(f"Pulumi.yaml:{line}: ") and text in problem for problem in found), (line, found)


def test_all_problems_of_a_config_schema(tmp_path: Path) -> None:
    project = """\
name: sample
runtime: python
config:
  both: {default: 1, value: 2}
  list: {type: array}
  number: {type: integer, default: many}
  names: {type: array, items: {type: string}, default: [a, 1]}
  aws:typed: {type: string, value: x}
  aws:default: {default: x}
  aws:nothing: {description: x}
"""
    assert problems_of(tmp_path, project) == [
        "Pulumi.yaml:4: config both: give either a default or a value, not both.",
        "Pulumi.yaml:5: config list: an array needs the type of its items; add items.",
        "Pulumi.yaml:6: config number: the default many should be of type integer.",
        'Pulumi.yaml:7: config names: the default ["a",1] should be of type array<string>.',
        (
            "Pulumi.yaml:8: config aws:typed: a key of another namespace should have no type; "
            "only the project's own keys are typed."
        ),
        "Pulumi.yaml:9: config aws:default: a key of another namespace should have a value, not a default.",
        "Pulumi.yaml:10: config aws:nothing: a key of another namespace needs a value.",
    ]


def test_all_problems_of_stack_settings(tmp_path: Path) -> None:
    project = """\
name: sample
runtime: python
config:
  count: {type: integer}
  flag: {type: boolean}
  names: {type: array, items: {type: string}}
  matrix: {type: array, items: {type: array, items: {type: integer}}}
  shape: {type: object}
  title: {type: string}
  password: {type: string, secret: true}
  needed: {type: string}
  neededSecret: {type: string, secret: true}
  db.port: {type: integer, default: 5432}
"""
    stack = """\
config:
  sample:count: 1.5
  sample:flag: on
  sample:names: [a, 1]
  sample:matrix: [[1], [x]]
  sample:shape: round
  sample:title: {a: b}
  sample:password: plain
  sample:db:
    port: high
"""
    assert sorted(problems_of(tmp_path, project, stack)) == sorted(
        [
            "Pulumi.dev.yaml:2: count = 1.5: this should be of type integer.",
            "Pulumi.dev.yaml:3: flag = on: this should be of type boolean.",
            'Pulumi.dev.yaml:4: names = ["a",1]: this should be of type array<string>.',
            'Pulumi.dev.yaml:5: matrix = [[1],["x"]]: this should be of type array<array<integer>>.',
            "Pulumi.dev.yaml:6: shape = round: this should be of type object.",
            'Pulumi.dev.yaml:7: title = {"a":"b"}: this should be of type string.',
            (
                "Pulumi.dev.yaml:8: password = [secret]: this is a secret and should be encrypted; "
                "run `config set --secret password`."
            ),
            "Pulumi.dev.yaml:10: db.port = high: this should be of type integer.",
            "Pulumi.dev.yaml: needed is not set, and the project needs it; run `config set needed <value>`.",
            (
                "Pulumi.dev.yaml: neededSecret is not set, and the project needs it; "
                "run `config set --secret neededSecret <value>`."
            ),
        ]
    )


@pytest.mark.parametrize(
    ("stack", "problems"),
    [
        ("config: [a]", ['Pulumi.dev.yaml:1: config = ["a"]: this should be a map of keys to values.']),
        ("- a", ["Pulumi.dev.yaml:1: the file should be a mapping of keys to values, not a sequence."]),
        ("config:\n  a: 1\n  a: 2", ["Pulumi.dev.yaml:3: the key config.a is there twice; remove one."]),
        ("config:\n  a:\n    5: x", ["Pulumi.dev.yaml:3: the key config.a.5 should be a string; put it in quotes."]),
        (
            "config:\n  a: .inf",
            ["Pulumi.dev.yaml:2: config.a = .inf should be a finite number; put it in quotes if it is text."],
        ),
        ("encryptionsalt: 5", ["Pulumi.dev.yaml:1: encryptionsalt = 5: this should be text."]),
        (
            "config:\n  a:b:c: 1\n  ':x': 1",
            [
                "Pulumi.dev.yaml:2: 'a:b:c' is not a configuration key; write it as <namespace>:<name>.",
                "Pulumi.dev.yaml:3: ':x' is not a configuration key; write it as <namespace>:<name>.",
            ],
        ),
    ],
)
def test_malformed_stack_settings(tmp_path: Path, stack: str, problems: list[str]) -> None:
    assert problems_of(tmp_path, stack=stack) == problems


def test_yaml_that_does_not_parse_names_the_line(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, stack="config:\n  a: [1\n  b: 2\n")
    assert problem.startswith("Pulumi.dev.yaml:3: this is not valid YAML: ")


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_bytes(b"name: sample\ndescription: sch\xf6n\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Project.find(tmp_path)


def test_esc_environments_are_refused_by_name(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, stack="environment: [base]\n")
    assert "ESC environments" in problem
    assert "put their values under config" in problem


def test_a_settings_file_that_cannot_be_written_stays(tmp_path: Path) -> None:
    config = load(tmp_path, stack="config: {}\n")
    shutil.rmtree(tmp_path)
    tmp_path.write_text("in the way")
    with pytest.raises(EngineError, match="cannot be written"):
        config.save()
