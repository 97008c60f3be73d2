"""Passphrase secrets against what the Pulumi CLI wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.errors import EngineError, PassphraseError
from engine.secrets import (
    PassphraseSecretsManager,
    find_passphrase,
    open_secrets_manager,
    require_passphrase,
    require_passphrase_provider,
)
from tests.engine.backend.reference.make import PASSPHRASE

if TYPE_CHECKING:
    from engine.backend.base import Json

EXPORT = Path(__file__).parent / "reference" / "state" / "export.json"


@pytest.fixture(scope="module")
def deployment() -> Json:
    exported: Json = json.loads(EXPORT.read_text())["deployment"]
    return exported


@pytest.fixture(scope="module")
def manager() -> PassphraseSecretsManager:
    return PassphraseSecretsManager.create("correct horse ✓")


def test_secret_of_the_cli_is_decrypted(deployment: Json) -> None:
    manager = open_secrets_manager(deployment["secrets_providers"], PASSPHRASE)
    assert json.loads(manager.decrypt(deployment["resources"][0]["outputs"]["hidden"]["ciphertext"])) == "s3cret"


def test_state_of_the_cli_is_kept_as_it_is(deployment: Json) -> None:
    provider = deployment["secrets_providers"]
    manager = open_secrets_manager(provider, PASSPHRASE)
    assert {"type": manager.type, "state": manager.state()} == provider


def test_wrong_passphrase_is_refused(deployment: Json) -> None:
    with pytest.raises(PassphraseError, match="passphrase is wrong") as caught:
        open_secrets_manager(deployment["secrets_providers"], PASSPHRASE + " ")
    assert "PULUMI_CONFIG_PASSPHRASE" in str(caught.value.remedy)


def test_missing_passphrase_says_how_to_give_one(deployment: Json) -> None:
    with pytest.raises(PassphraseError) as caught:
        open_secrets_manager(deployment["secrets_providers"], None)
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["", "plain", "schön ✓", "line\nline", "x" * 100_000])
def test_a_value_survives_a_new_manager_of_the_same_state(manager: PassphraseSecretsManager, text: str) -> None:
    ciphertext = manager.encrypt(text)
    assert PassphraseSecretsManager.from_state(manager.state(), "correct horse ✓").decrypt(ciphertext) == text


def test_the_same_text_is_never_encrypted_to_the_same(manager: PassphraseSecretsManager) -> None:
    assert manager.encrypt("x") != manager.encrypt("x")


@pytest.mark.parametrize("salt", [None, 5, "", "v1", "v2:AAAA:v1:AAAA:AAAA", "v1:AAAA", "v1:?:v1:AAAA:AAAA"])
def test_damaged_salt_is_named(salt: object) -> None:
    with pytest.raises(PassphraseError, match="salt of the stack is damaged") as caught:
        PassphraseSecretsManager.from_state({"salt": salt}, "x")
    assert "encryptionsalt" in str(caught.value.remedy)


@pytest.mark.parametrize(
    "change", [lambda text: text[:-8] + "AAAA" + text[-4:], lambda text: "v2" + text[2:], lambda _: "x"]
)
def test_damaged_ciphertext_is_an_error_without_its_text(manager: PassphraseSecretsManager, change: object) -> None:
    damaged = change(manager.encrypt("the text"))  # type: ignore[operator]
    with pytest.raises(EngineError, match="cannot be decrypted") as caught:
        manager.decrypt(damaged)
    assert "the text" not in str(caught.value)


@pytest.mark.parametrize(
    "provider", ["service", "cloud", "awskms://alias/key?region=us-east-1", "hashivault://key", "b64"]
)
def test_another_secrets_provider_is_refused_by_name(provider: str) -> None:
    with pytest.raises(PassphraseError, match=provider.partition(":")[0]) as caught:
        require_passphrase_provider(provider)
    assert "change-secrets-provider passphrase" in str(caught.value.remedy)


def test_passphrase_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("  from file\n")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(file))
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE", raising=False)
    assert find_passphrase() == "from file"
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    assert require_passphrase(find_passphrase()) == "", "an empty passphrase is one, as in the CLI"
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", " direct ")
    assert find_passphrase() == " direct "


def test_no_passphrase_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE", raising=False)
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE_FILE", raising=False)
    assert find_passphrase() is None


def test_unreadable_passphrase_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE", raising=False)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(tmp_path / "absent"))
    with pytest.raises(PassphraseError, match="absent"):
        find_passphrase()
