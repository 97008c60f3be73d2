"""Models as their tests run them: commands of the trainer's image on their code, and model servers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from cli.model_code import pack
from tests.cli.harness import ROOT
from tests.images.services import Stack, answers, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.images.containers import Container

numbers = count()


@dataclass
class Done:
    """A command of the example that ended."""

    status: int
    output: str
    result: dict[str, Any] = field(default_factory=dict)


def send(stack: Stack, folder: Path) -> str:
    """Put the code of a model on the object store, as `lab train` does; its SHA-256."""
    code = pack(folder)
    stack.objects.client().put_object(Bucket="code", Key=f"{code.digest}.tar", Body=code.content)
    return code.digest


def trainer(
    stack: Stack,
    folder: Path,
    *arguments: str,
    entrypoint: list[str] | None = None,
    environment: dict[str, str] | None = None,
    read_only: dict[Path, str] | None = None,
) -> Done:
    """Run the trainer's image on the model in a folder to its end."""
    container = stack.runtime.start(
        stack.images["trainer"], f"{folder.name}-{next(numbers)}", list(arguments), entrypoint=entrypoint,
        environment={
            **stack.environment, "IMAGE_DIGEST": "sha256:feed", "CODE_VERSION": "abc123", "CODE_COMMIT": "abc123",
            "MODEL_NAME": folder.name, "MODEL_CODE": send(stack, folder), "RESULT": "/tmp/result.json",  # noqa: S108
            **(environment or {}),
        },
        read_only=read_only,
    )  # fmt: skip
    status = container.wait()
    file = container.folder / "tmp/result.json"
    return Done(status, container.output, json.loads(file.read_text()) if file.exists() else {})


def digits(stack: Stack, *arguments: str, **more: Any) -> Done:
    """The same on the worked example."""
    return trainer(stack, ROOT / "models/digits", *arguments, **more)


def serve(stack: Stack, environment: dict[str, str], model: str = "digits") -> tuple[Container, str]:
    """A model server that is ready, and its address."""
    port = free_port()
    container = stack.runtime.start(
        stack.images["model-server"], f"server-{next(numbers)}",
        environment={**stack.environment, "MODEL_NAME": model, "PORT": str(port), "DRAIN_SECONDS": "3", **environment},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    container.until(lambda: answers(f"{url}/v2/health/ready"))
    return container, url


def infer(url: str, body: dict[str, Any], model: str = "digits") -> Any:
    """Ask by the V2 protocol."""
    request = urllib.request.Request(f"{url}/v2/models/{model}/infer", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def answer_to(url: str, body: bytes | None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer, whatever it is; without a body, of a GET."""
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
