"""`lab config`: the configuration of a stack, in Pulumi.<stack>.yaml."""

from __future__ import annotations

import json as json_module
import math
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.text import as_json, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cli.session import Session
    from engine.project import ConfigValue, StackConfig

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Manage the configuration of a stack.")

SECRET_KEY = re.compile("passwd|pass|password|pwd|secret|token", re.IGNORECASE)

Key = Annotated[str, typer.Argument(help="`name`, or `namespace:name`; the namespace defaults to the project.")]
Path = Annotated[
    bool, typer.Option("--path", help="The key is a path into a map or list: `nodes.workers`, `cidrs[0]`.")
]
Json = Annotated[bool, typer.Option("--json", "-j", help="Write JSON.")]
ShowSecrets = Annotated[bool, typer.Option("--show-secrets", help="Show secrets in plain text.")]


@app.command("set")
def set_value(
    context: typer.Context,
    key: Key,
    value: Annotated[
        str | None, typer.Argument(help="Default: from standard input, or a prompt.", metavar="[VALUE]")
    ] = None,
    secret: Annotated[bool, typer.Option("--secret", help="Encrypt the value.")] = False,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Do not encrypt a value that looks like a secret.")
    ] = False,
    path: Path = False,
) -> None:
    """Set a configuration value."""
    if secret and plaintext:
        raise LabError("--secret and --plaintext cannot be used together", code=ExitCode.CONFIGURATION)
    session: Session = context.obj
    stack = session.stack(offer_new=True)
    if value is None:
        if not sys.stdin.isatty():
            value = sys.stdin.read().removesuffix("\n")
        elif session.interactive:
            value = str(typer.prompt("value", hide_input=secret))
        else:
            raise LabError("config value must be specified in non-interactive mode", code=ExitCode.CONFIGURATION)
    if not (secret or plaintext) and looks_like_secret(key, value):
        raise LabError(
            f"config value for '{key}' looks like a secret",
            remedy="rerun with --secret to encrypt it, or --plaintext if you meant to store in plaintext",
        )
    config = session.config(stack)
    config.set(key, value, secret=secret, path=path, crypter=session.secrets(stack, config) if secret else None)
    config.save()


def looks_like_secret(key: str, value: str) -> bool:
    """Whether the key suggests a secret, and the value is random enough.

    The CLI's thresholds (40 bits in the first 16 characters, 3 bits a character), on Shannon's entropy.
    """
    start = value[:16]
    entropy = -sum(n * math.log2(n / len(start)) for n in Counter(start).values())
    return bool(SECRET_KEY.search(key)) and entropy >= 40 and entropy / len(start) >= 3


@app.command("get")
def get_value(context: typer.Context, key: Key, path: Path = False, json: Json = False) -> None:
    """Show a configuration value, decrypted if it is a secret."""
    session: Session = context.obj
    stack = session.stack(offer_new=True)
    config = session.config(stack)
    current = config.get(key, path=path)
    if current is None:
        raise LabError(f"configuration key '{key}' not found for stack '{stack}'")
    shown = _reveal(session, stack, config, current)
    print(as_json(_as_json_value(current, shown)) if json else shown)


@app.command()
def rm(context: typer.Context, key: Key, path: Path = False) -> None:
    """Remove a configuration value."""
    session: Session = context.obj
    config = session.config(session.stack(offer_new=True))
    config.remove(key, path=path)
    config.save()


@app.command("ls")
def list_values(context: typer.Context, show_secrets: ShowSecrets = False, json: Json = False) -> None:
    """List the configuration."""
    session: Session = context.obj
    stack = session.stack(offer_new=True)
    config = session.config(stack)
    values = {
        key: (value, _reveal(session, stack, config, value) if show_secrets or not value.secure else None)
        for key, value in sorted(config.items())
    }
    if json:
        print(as_json({key: _as_json_value(value, shown) for key, (value, shown) in values.items()}))
        return
    own = f"{session.project.name}:"
    rows = [(key.removeprefix(own), "[secret]" if shown is None else shown) for key, (_, shown) in values.items()]
    print(table(("KEY", "VALUE"), rows))


def _reveal(session: Session, stack: str, config: StackConfig, value: ConfigValue) -> str:
    return config.reveal(value, session.secrets(stack, config) if value.secure else None)


def _as_json_value(value: ConfigValue, shown: str | None) -> dict[str, Any]:
    if shown is None:
        return {"secret": True}
    parsed = {"objectValue": json_module.loads(shown)} if value.is_object else {}
    return {"value": shown, **parsed, "secret": value.secure}


def save_arguments(session: Session, stack: str, arguments: Iterable[str], *, path: bool) -> None:
    """Save the KEY=VALUE of `--config`.

    Raises:
        LabError: an argument without a `=`.
    """
    config = session.config(stack)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise LabError(f"--config {argument}: expected KEY=VALUE", code=ExitCode.CONFIGURATION)
        config.set(key, value, path=path)
    config.save()
