"""Secrets under a passphrase, in the format of the Pulumi CLI's ``passphrase`` secrets provider.

The state of the provider is ``v1:<base64 salt>:<check>``, where ``<check>`` is the encrypted word ``pulumi``, which
verifies a passphrase. The key is PBKDF2-HMAC-SHA256 of the passphrase (1 000 000 iterations, 32 bytes);
a value is ``v1:<base64 nonce>:<base64 ciphertext and tag>`` of AES-256-GCM with a random 12-byte nonce.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.errors import EngineError, PassphraseError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ITERATIONS = 1_000_000
_KEY_BYTES = 32
_SALT_BYTES = 8
_NONCE_BYTES = 12
_CHECK = "pulumi"


class SecretsManager(Protocol):
    """Encrypts and decrypts the secrets of one stack; ``type`` and ``state()`` go into its checkpoint."""

    type: str

    def state(self) -> dict[str, str]:
        """The ``secrets_providers.state`` object of the checkpoint."""
        ...

    def encrypt(self, plaintext: str) -> str:
        """Encrypt one value; each call returns another ciphertext."""
        ...

    def decrypt(self, ciphertext: str) -> str:
        """Decrypt one value. Raises EngineError when it is not a ciphertext of this manager."""
        ...


class PassphraseSecretsManager:
    """The ``passphrase`` secrets provider. Safe to use from several threads."""

    type = "passphrase"

    def __init__(self, salt: str, key: bytes) -> None:
        self._salt = salt
        self._cipher = AESGCM(key)

    @classmethod
    def create(cls, passphrase: str) -> Self:
        """Make a manager with a new random salt."""
        salt = os.urandom(_SALT_BYTES)
        key = _derive_key(passphrase, salt)
        encoded = base64.b64encode(salt).decode()
        return cls(f"v1:{encoded}:{cls('', key).encrypt(_CHECK)}", key)

    @classmethod
    def from_state(cls, state: Mapping[str, object], passphrase: str) -> Self:
        """Open the manager that ``state`` (``{"salt": "v1:..."}``) describes.

        Raises PassphraseError when the passphrase is wrong or the state is damaged.
        """
        salt = state.get("salt")
        version, _, rest = salt.partition(":") if isinstance(salt, str) else ("", "", "")
        encoded, _, check = rest.partition(":")
        if not isinstance(salt, str) or version != "v1" or not check:
            raise PassphraseError(
                "The encryption salt of the stack is damaged: it should look like 'v1:<salt>:v1:<nonce>:<check>'.",
                remedy="Restore 'encryptionsalt' in Pulumi.<stack>.yaml from version control or from a backup.",
            )
        try:
            raw = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise PassphraseError(
                "The encryption salt of the stack is damaged: its first part is not base64.",
                remedy="Restore 'encryptionsalt' in Pulumi.<stack>.yaml from version control or from a backup.",
            ) from None
        manager = cls(salt, _derive_key(passphrase, raw))
        try:
            right = manager.decrypt(check) == _CHECK
        except EngineError:
            right = False
        if not right:
            raise PassphraseError(
                "The passphrase is wrong for this stack.",
                remedy="Set PULUMI_CONFIG_PASSPHRASE, or PULUMI_CONFIG_PASSPHRASE_FILE, to the passphrase that the "
                "stack was created with.",
            )
        return manager

    def state(self) -> dict[str, str]:
        """See :class:`SecretsManager`; ``salt`` is also the stack's ``encryptionsalt``."""
        return {"salt": self._salt}

    def encrypt(self, plaintext: str) -> str:
        """See :class:`SecretsManager`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, plaintext.encode(), None)
        return f"v1:{base64.b64encode(nonce).decode()}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, ciphertext: str) -> str:
        """See :class:`SecretsManager`."""
        try:
            version, nonce, sealed = ciphertext.split(":")
            if version != "v1":
                raise ValueError(version)
            return self._cipher.decrypt(base64.b64decode(nonce), base64.b64decode(sealed), None).decode()
        except (ValueError, InvalidTag):
            raise EngineError(
                "A secret cannot be decrypted: its ciphertext is damaged or was made with another passphrase.",
                remedy="Set the secret again with `config set --secret`.",
            ) from None


def open_secrets_manager(provider: Mapping[str, object], passphrase: str | None) -> PassphraseSecretsManager:
    """Open the manager of a checkpoint's ``secrets_providers`` (``{"type": ..., "state": ...}``).

    Raises PassphraseError when the provider is another one, or when the passphrase is missing or wrong.
    """
    require_passphrase_provider(str(provider.get("type", "")))
    state = provider.get("state")
    return PassphraseSecretsManager.from_state(state if isinstance(state, dict) else {}, require_passphrase(passphrase))


def require_passphrase_provider(provider: str) -> None:
    """Raise PassphraseError unless ``provider``, a type or a ``secretsprovider`` URL, is the passphrase provider."""
    kind = provider.partition(":")[0]
    if kind not in {"", "default", PassphraseSecretsManager.type}:
        raise PassphraseError(
            f"The stack's secrets are kept by the secrets provider '{kind}', which only the Pulumi CLI can open.",
            remedy="Use the Pulumi CLI for this stack, or run `pulumi stack change-secrets-provider passphrase` first.",
        )


def require_passphrase(passphrase: str | None) -> str:
    """Return the passphrase, or raise PassphraseError with how to set it. An empty one is valid, as in the CLI."""
    if passphrase is None:
        raise missing_passphrase()
    return passphrase


def missing_passphrase() -> PassphraseError:
    """The error for a passphrase that is needed and not set."""
    return PassphraseError(
        "A passphrase is needed to open the stack's secrets, and none is set.",
        remedy="Set PULUMI_CONFIG_PASSPHRASE to it, or PULUMI_CONFIG_PASSPHRASE_FILE to a file that holds it.",
    )


def find_passphrase() -> str | None:
    """Read the passphrase from PULUMI_CONFIG_PASSPHRASE, else from the file PULUMI_CONFIG_PASSPHRASE_FILE names.

    None when neither is set. Raises PassphraseError when the file cannot be read.
    """
    passphrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE")
    if passphrase is not None:
        return passphrase
    file = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")
    if not file:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise PassphraseError(
            f"The passphrase file '{file}' cannot be read: {reason}.",
            remedy="Correct PULUMI_CONFIG_PASSPHRASE_FILE, or set PULUMI_CONFIG_PASSPHRASE.",
        ) from None


# A command derives the same key for its settings and for its state; each time takes a third of a second.
@functools.lru_cache(maxsize=8)
def _derive_key(passphrase: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, _ITERATIONS, _KEY_BYTES)
