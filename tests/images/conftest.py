"""Fixtures of the platform's images."""

from tests.images.decided import decided, stack
from tests.images.services import images, runtime, store

__all__ = ["decided", "images", "runtime", "stack", "store"]
