"""A resource provider from declarations: the ``pulumirpc.ResourceProvider`` service over a :class:`Package`.

How to write a provider
-----------------------
A *client* is what the resources call the cloud with (``C`` below); ``Package.connect`` makes it from the provider's
configuration, once. Each resource type is a subclass of :class:`ResourceType`; each function a
:class:`Function`. Modules publish them in lists that the package joins::

    class Network(ResourceType[Cloud]):
        token = "openstack:networking/network:Network"
        fields = (
            Field("name", computed=True, autoname=True),
            Field("adminStateUp", BOOLEAN, computed=True),
            Field("allTags", List(STRING), output=True),
        )

        def create(self, client, inputs, operation): ...   # returns the id
        def read(self, client, id_, state, operation): ... # returns the attributes found, None when it is gone
        def update(self, client, id_, olds, news, operation): ...
        def delete(self, client, id_, state, operation): ...

    TYPES: list[ResourceType[Cloud]] = [Network(), ...]
    FUNCTIONS: list[Function[Cloud]] = [Function("openstack:...:getNetwork", args, results, call), ...]

The framework calls ``read`` after ``create`` and ``update``. Outputs are the inputs, overlaid with what ``read``
returned, so ``read`` can leave out what the cloud does not return (a password, user data). Inputs and states given
to these methods are plain values: secrets are unwrapped, and marked again in the outputs. A ``create`` that waits
calls ``operation.created(id)`` as soon as it has the object's id: if it fails later, the engine still records
the object (as *initialization failed*), so nothing is lost. Failures that a user can act on are :class:`ProviderError`.

When the engine is killed during a create, its next run looks for what that create has made: ``Read`` without an id,
which calls ``find``. ``find`` changes nothing: the next update repairs what is incomplete.

When the response to a create is lost, the framework calls ``find`` itself, and completes what was made, or creates
again
where nothing was made. Where ``find`` cannot decide, the engine records that the outcome is unknown, and its next run
looks again.
"""

from __future__ import annotations

from providers.framework.operation import (
    PROGRESS_SECONDS,
    UNRECOVERABLE,
    CancelledError,
    DeadlineError,
    NotYetError,
    Operation,
    ProviderError,
    Timeouts,
)
from providers.framework.resources import Function, Package, ResourceType

__all__ = [
    "PROGRESS_SECONDS",
    "UNRECOVERABLE",
    "CancelledError",
    "DeadlineError",
    "Function",
    "NotYetError",
    "Operation",
    "Package",
    "ProviderError",
    "ResourceType",
    "Timeouts",
]
