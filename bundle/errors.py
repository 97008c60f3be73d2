"""Errors that a user of the bundle can act on."""

from __future__ import annotations

from engine.errors import EngineError


class BundleError(EngineError):
    """An artifact is not available, or is not valid."""
