"""Fixtures of the platform's images."""

from tests.images.platform import images, runtime, stack, store

__all__ = ["images", "runtime", "stack", "store"]
