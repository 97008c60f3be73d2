"""What tests of a rolling replacement share: another image, a client that writes objects, and the servers."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import urllib3
from kubernetes import client, config

from tests.e2e.harness import Cloud, copy_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITE_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.5


class Writer:
    """While it is entered, writes objects one after the other, and asks the next address where an API is away."""

    def __init__(self, kubeconfig: Path, addresses: list[str]) -> None:
        loaded = config.new_client_from_config(str(kubeconfig))
        self._apis = []
        for address in addresses:
            chosen: Any = client.Configuration()
            chosen.__dict__.update(loaded.configuration.__dict__)
            chosen.host, chosen.retries = f"https://{address}:6443", False
            self._apis.append(client.CoreV1Api(client.ApiClient(chosen)))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.acknowledged: list[str] = []
        self.refused = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        for number in itertools.count():
            name = f"written-{number}"
            while not self._ended.is_set() and not any(self._written(api, name) for api in self._apis):
                self.refused += 1
            if self._ended.wait(PAUSE_SECONDS):
                return

    def _written(self, api: client.CoreV1Api, name: str) -> bool:
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name))
        try:
            api.create_namespaced_config_map("default", body, _request_timeout=WRITE_SECONDS)
        except client.ApiException as error:
            # It was written, and the answer was lost.
            if error.status != 409:
                return False
        except urllib3.exceptions.HTTPError:
            return False
        self.acknowledged.append(name)
        return True


@contextmanager
def another_image(cloud: Cloud, name: str, path: Path) -> Iterator[None]:
    """While it is entered, nodes can have the default image under another name; `path` is for its download."""

    def remove() -> None:
        for image in cloud.student.image.images(name=name):
            cloud.student.image.delete_image(str(image.id))

    remove()  # what a run that was killed has left
    copy_image(cloud.devcloud, name, path)
    try:
        yield
    finally:
        remove()


def servers(cloud: Cloud, stack: str) -> list[tuple[str, str]]:
    """Name and id of each server of a stack."""
    return [
        (str(server.name), str(server.id))
        for server in cloud.student.compute.servers()
        if str(server.name).startswith(f"{stack}-")
    ]
