"""What plays the kubelet for tests on an API server that has no nodes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tests.providers.kubernetes.control_plane import ControlPlane

LOOK_SECONDS = 0.3


class Kubelet(ABC):
    """While it is entered, looks at the pods of a namespace again and again."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane, self._namespace = plane, namespace
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            for pod in self._plane.pods(self._namespace):
                self._see(pod)

    @abstractmethod
    def _see(self, pod: dict[str, Any]) -> None:
        """Do with a pod what is to become of it."""
