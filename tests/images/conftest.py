"""Fixtures of the platform's images."""

from tests.images.services import images, runtime, stack, store

__all__ = ["images", "runtime", "stack", "store"]
