"""What ends a step: a text for people, and whether trying again can help."""

from __future__ import annotations


class PipelineError(Exception):
    """Something does not answer, or was lost: trying again may help."""


class DecidedError(PipelineError):
    """Refused, or faulty: trying again changes nothing."""
