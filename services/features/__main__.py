"""`python -m services.features COMMAND`; `README.md` says what each takes and exits with."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

import click

from services.features.errors import BAD_DATA, UNAVAILABLE, FeaturesError
from services.features.settings import Told

# What takes seconds to import is imported by the commands that need it.
# ruff: noqa: PLC0415


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """The features of deliveries."""


@cli.command()
@click.option("--now", "moment", help="As of when, with its time zone (default: now).")
def update(moment: str | None) -> None:
    """Bring offline store, online store and training rows up to date."""
    import psycopg
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    from sqlalchemy.exc import OperationalError  # type: ignore[import-not-found]

    from services.features.update import update as pass_once

    try:
        now = datetime.fromisoformat(moment) if moment else None
        if now and now.tzinfo is None:
            raise FeaturesError(f"{moment} has no time zone", BAD_DATA)
        print(json.dumps(pass_once(Told(), now and now.astimezone(UTC).replace(microsecond=0))))
    except FeaturesError as error:
        _fail(str(error), error.code)
    except ValueError as error:
        _fail(str(error), BAD_DATA)
    except (psycopg.Error, OperationalError) as error:
        _fail(f"PostgreSQL says: {' '.join(str(error).split())}", UNAVAILABLE)
    except (BotoCoreError, ClientError) as error:
        _fail(f"the object store says: {error}", UNAVAILABLE)


@cli.command()
def serve() -> None:
    """Answer requests for features of orders until told to stop."""
    import uvicorn

    from services.features.web import application

    told = Told()
    uvicorn.run(application(told), host="0.0.0.0", port=told.port, log_level="warning", timeout_graceful_shutdown=10)  # noqa: S104 - a container's


@cli.command()
def ask() -> None:
    """Ask the service in this container for the features of the orders in JSON on standard input."""
    address = f"http://127.0.0.1:{Told().port}/v1/delivery-times"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, sys.stdin.buffer.read(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - this container
            found: Any = json.load(answer)
    except urllib.error.HTTPError as error:
        _fail(json.load(error)["error"], BAD_DATA if error.code < 500 else UNAVAILABLE)
    except OSError as error:
        _fail(f"the service does not answer: {error}", UNAVAILABLE)
    print(json.dumps(found))


def _fail(text: str, code: int) -> None:
    click.echo(f"error: {text}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    cli()
