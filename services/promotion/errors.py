"""What the service answers instead of a result. Each has the HTTP status that it is answered with."""

from __future__ import annotations


class PromotionError(Exception):
    """A text for people, and what to do about it."""

    status = 500

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class InvalidError(PromotionError):
    """A request or a gate that makes no sense."""

    status = 400


class UnknownError(PromotionError):
    """A path or a thing that there is not."""

    status = 404


class RefusedError(PromotionError):
    """What the gate, the registry or a stage's state does not allow."""

    status = 409


class UnavailableError(PromotionError):
    """PostgreSQL, MLflow or the Kubernetes API does not answer; nothing was decided."""

    status = 503
