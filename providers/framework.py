"""A resource provider from declarations: the ``pulumirpc.ResourceProvider`` service over a :class:`Package`.

How to write a provider
-----------------------
A *client* is whatever the resources need to talk to the cloud (``C`` below); ``Package.connect`` makes it of the
provider's configuration, once. Each resource type is a subclass of :class:`ResourceType`; each function a
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
returned, so that ``read`` need not know what the cloud never tells (a password, user data). Inputs and states given
to these methods are plain values: secrets are unwrapped, and marked again in the outputs. A ``create`` that waits
calls ``operation.created(id)`` as soon as the cloud has named the object: if it fails later, the engine still records
the object (as *initialization failed*), so nothing is lost. Failures that a user can act on are :class:`ProviderError`.

When the engine itself is killed during a create, its next run asks for what that create has made: ``Read`` without an
id, which is ``find``. Nothing is changed there: what is not as it should be is a difference to the next update.

When the answer to a create is lost, the framework itself looks with ``find`` for what it has made, completes that, or
creates again where nothing was made. Where nobody can tell, the engine hears that the outcome is unknown, and its next
run asks again.
"""
# ruff: noqa: N802, ARG002 - the service's method names and parameters are the protocol's

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import defaultdict
from concurrent import futures
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, TypeVar

import grpc
from google.protobuf import empty_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from providers import schema
from providers.schema import DEFAULTS, Autoname, Difference, Fault, Field
from providers.values import (
    UNKNOWN,
    Properties,
    Secret,
    Unknown,
    contains,
    mark_secrets,
    marshal,
    plain,
    unmarshal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

C = TypeVar("C")
T = TypeVar("T")
Severity = Literal["debug", "info", "warning", "error"]

MESSAGE_LIMIT = 400 * 1024 * 1024  # bytes; the engine's own limit on a gRPC message
WORKERS = 128  # calls served at once; an update's --parallel is seldom more
PROGRESS_SECONDS = 10.0
ENGINE_CHECK_SECONDS = 1.0
UNKNOWN_OUTCOME_KEY = "outcome-unknown"
"""Trailing metadata of a failed ``Create``: it may have made something, or may do so yet."""
CREATE_ATTEMPTS = 3
"""How often a create is tried whose answer was lost and that has made nothing."""
RECOVERY_KEY = "recovers-interrupted-creates"
"""Trailing metadata of GetPluginInfo: ``Read`` without an id finds what an interrupted create has made."""
BEGAN_KEY = "interrupted-create-began"
OTHERS_KEY = "interrupted-create-others"
"""Metadata of such a ``Read``: when the create began (RFC 3339)."""
SETTLING_SECONDS = 15.0
"""How long after its begin a create that nothing was found of may still come to be: the cloud goes on with a request
whose caller has died."""
SLOWNESS = 5
"""It is given this many times longer than the search for it takes: a busy cloud is slow in both."""
CLOCK_SKEW = timedelta(minutes=1)
"""Between this machine and the cloud, at most."""
LOST = "__lost"
"""Output of a recovered resource that is of no use: the property that cannot be had any more. Diff replaces it."""

log = logging.getLogger(__name__)


class ProviderError(Exception):
    """A failure to show as it is. ``remedy`` says what the user can do.

    ``doubt``: seconds for which what was asked for may still come to be done; 0 where it is over, and may have been
    done all the same; None where it surely was not.
    """

    def __init__(self, message: str, *, remedy: str | None = None, doubt: float | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.doubt = doubt

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.remedy}" if self.remedy else message


class CancelledError(ProviderError):
    """The engine asked the provider to stop waiting."""


class DeadlineError(ProviderError):
    """The deadline of a create, update or delete passed."""


class NotYetError(Exception):
    """What a poll raises when the cloud refuses for now, and a later attempt may succeed."""

    def __init__(self, reason: ProviderError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that each operation may take unless ``custom_timeouts`` says otherwise."""

    create: float = 600
    update: float = 600
    delete: float = 600


@dataclass
class Operation:
    """One call of the engine: which resource it is about, its deadline, and the way to tell the user something."""

    urn: str
    name: str
    timeout: float
    cancelled: threading.Event
    report: Callable[[Severity, str, str, bool], None]
    defaults: frozenset[str] = frozenset()
    began: datetime | None = None
    others: AbstractSet[str] = frozenset()
    """Ids of the resources of its type that the engine knows: none of them is what a create has made."""
    ignored: tuple[str, ...] = ()
    """``ignoreChanges``: properties of an update that are to stay as they are, not as last recorded."""
    id: str | None = None
    known: Properties = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @staticmethod
    def under_way() -> Operation | None:
        """The operation that this thread carries out."""
        return _under_way.get()

    def created(self, id_: str, **known: Any) -> None:
        """Record that the object exists from now on, whatever happens later.

        ``known`` are properties that no later read can tell, such as a generated private key.
        """
        self.id = id_
        self.known |= known

    def forget(self) -> None:
        """The object that ``created`` recorded is gone: the failed create left nothing behind."""
        self.id = None
        self.known.clear()

    def may_have_made(self, created: str | None) -> bool:
        """Whether the interrupted create can have made what the cloud says was created then.

        Yes where either time is not known.
        """
        if not created or self.began is None:
            return True
        made = datetime.fromisoformat(created)
        made = made if made.tzinfo else made.replace(tzinfo=UTC)
        return self.began - CLOCK_SKEW <= made <= self.began + timedelta(seconds=self.timeout) + CLOCK_SKEW

    def log(self, severity: Severity, message: str) -> None:
        """A line for the user, under this resource."""
        self.report(severity, message, self.urn, False)

    def status(self, message: str) -> None:
        """What the operation is doing; shown beside the resource until the next one."""
        self.report("info", message, self.urn, True)

    def remaining(self) -> float:
        """Seconds to the deadline, never negative."""
        return max(0.0, self.started + self.timeout - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether it was cancelled, or its deadline has passed."""
        return self.cancelled.is_set() or not self.remaining()

    def check(self, what: str) -> None:
        """Raise when cancelled or past the deadline, naming what was waited for."""
        if self.cancelled.is_set():
            raise CancelledError(f"cancelled while waiting for {what}")
        if not self.remaining():
            raise DeadlineError(
                f"gave up after {self.timeout:.0f} s waiting for {what}",
                remedy="Raise it with custom_timeouts if the cloud is only slow.",
            )

    def pause(self, seconds: float, what: str) -> None:
        """Sleep, unless cancelled or past the deadline."""
        self.check(what)
        self.cancelled.wait(min(seconds, self.remaining()))
        self.check(what)

    def wait(self, what: str, poll: Callable[[], T | None], *, first: float = 0.3, most: float = 5.0) -> T:
        """Call ``poll`` with growing pauses (``first`` to ``most`` seconds) until it returns something.

        Raises DeadlineError, CancelledError, and whatever ``poll`` raises, except NotYetError: that goes on waiting,
        and at the deadline its reason is raised.
        """
        delay, told = first, time.monotonic()
        reason: ProviderError | None = None
        while True:
            news = False
            try:
                if (result := poll()) is not None:
                    return result
            except NotYetError as hold:
                news, reason = reason is None, hold.reason
            if news or time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                because = f": {reason.args[0]}" if reason else ""
                self.status(f"waiting for {what} ({told - self.started:.0f} s){because}")
            try:
                self.pause(delay, what)
            except DeadlineError:
                if reason:
                    raise reason from None
                raise
            delay = min(delay * 1.5, most)


_under_way: ContextVar[Operation | None] = ContextVar("operation under way", default=None)


class ResourceType(ABC, Generic[C]):
    """One type of resource. Its instances hold no state: a single one serves all resources of the type.

    import_id: the form of the id that an import takes.
    """

    token: str
    fields: ClassVar[tuple[Field, ...]]
    description: ClassVar[str] = ""
    timeouts: ClassVar[Timeouts] = Timeouts()
    delete_before_replace: ClassVar[bool] = False
    import_id: ClassVar[str] = "<id>"

    @abstractmethod
    def create(self, client: C, inputs: Properties, operation: Operation) -> str:
        """Make it; returns the id."""

    @abstractmethod
    def read(self, client: C, id_: str, state: Properties, operation: Operation) -> Properties | None:
        """The attributes found; ``state`` is what is known so far (empty at an import). None when it is gone.

        An ``"id"`` among the attributes replaces the id (an import by another id than the resource's own).
        """

    def update(self, client: C, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        """Change it in place; ``olds`` are outputs, ``news`` inputs. Not needed where every field is ``force_new``."""
        raise NotImplementedError(self.token)

    @abstractmethod
    def delete(self, client: C, id_: str, state: Properties, operation: Operation) -> None:
        """Delete it and wait until it is gone. It is no error if it is gone already."""

    def find(self, client: C, inputs: Properties, operation: Operation) -> str | None:
        """The id of what an interrupted create with these inputs has made; None if it has made nothing.

        As a create it calls ``operation.created`` before it waits for what it found, and may say there that a property
        is ``LOST``. Raises ProviderError where nobody can tell: another's resource must not be taken.
        """
        raise ProviderError(f"the cloud cannot be asked for a {self.token.rpartition(':')[2]} by anything but its id")

    def check(self, inputs: Properties) -> Iterable[Fault]:
        """Faults that need more than one field to see. ``inputs`` are plain, and may hold unknowns."""
        return ()

    # A type whose inputs no fields can describe overrides what follows. ``client`` is None until it is known.

    def checked(
        self, client: C | None, olds: Properties, news: Properties, naming: Autoname, faults: list[Fault]
    ) -> Properties:
        """The inputs to go on with; every fault found is appended to ``faults``."""
        inputs = schema.check(self.fields, olds, news, faults=faults, autoname=naming)
        if not faults:
            faults += self.check(plain(inputs))
        return inputs

    def compared(
        self, client: C | None, old_inputs: Properties, olds: Properties, news: Properties, operation: Operation
    ) -> Iterable[Difference]:
        """``differences``, where it takes the inputs of last time or the cloud to tell."""
        return self.differences(olds, news)

    def deletes_first(self, olds: Properties, news: Properties) -> bool:
        """Whether a replacement needs the name of what it replaces."""
        defaults = plain(news.get(DEFAULTS)) or ()
        named = any(field.autoname and field.name in news and field.name not in defaults for field in self.fields)
        return self.delete_before_replace or named

    def previewed(
        self, client: C | None, olds: Properties | None, news: Properties, operation: Operation
    ) -> Properties:
        """A preview's outputs beyond the inputs; ``olds`` is None at a create. Inputs may hold unknowns."""
        return self.pending(news) if olds is None else {}

    def outputs(self, known: Properties, found: Properties, inputs: Properties) -> Properties:
        """What the engine records: what is known, overlaid with what was found, secrets marked."""
        outputs = {key: value for key, value in {**plain(known), **found}.items() if key not in schema.RESERVED}
        outputs.pop("id", None)
        return schema.mark_field_secrets(self.fields, mark_secrets(outputs, inputs))

    def adopted(self, client: C, given: Properties, outputs: Properties) -> Properties:
        """The inputs after a refresh: what the user wrote, at the values that the cloud now has."""
        return schema.adopt_inputs(self.fields, given, outputs)

    def imported(self, outputs: Properties) -> Properties:
        """The inputs that would make what an import has found."""
        return schema.import_inputs(self.fields, outputs)

    def ailment(self, client: C, found: Properties, state: Properties) -> str | None:
        """What keeps an object that a refresh has found from being of use."""
        return None

    def timeouts_of(self, properties: Properties) -> Timeouts:
        """The timeouts where ``custom_timeouts`` says nothing."""
        return self.timeouts

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        """Where ``news`` (inputs) ask for something else than ``olds`` (outputs)."""
        return schema.diff(self.fields, olds, news)

    def pending(self, inputs: Properties) -> Properties:
        """A preview's outputs beyond the inputs: unknown, if only the cloud can tell."""
        return {
            field.name: UNKNOWN
            for field in self.fields
            if (field.output or field.computed) and inputs.get(field.name) is None
        }


@dataclass(frozen=True)
class Function(Generic[C]):
    """A function: ``call(client, arguments, operation)`` returns the results.

    offline: it can do without the client, which is None while the configuration is not known.
    """

    token: str
    arguments: tuple[Field, ...]
    results: tuple[Field, ...]
    call: Callable[[Any, Properties, Operation], Properties]
    description: str = ""
    offline: bool = False


@dataclass(frozen=True)
class Package(Generic[C]):
    """A provider. ``connect(config)`` makes the client and refuses bad configuration; it calls no one yet."""

    name: str
    version: str
    description: str
    config: tuple[Field, ...]
    types: Sequence[ResourceType[C]]
    functions: Sequence[Function[C]]
    connect: Callable[[Properties], C]
    any_type: Callable[[str], ResourceType[C]] | None = None
    """Makes the type of a token that is not among ``types``."""
    config_differences: Callable[[Properties, Properties], Iterable[Difference]] | None = None
    """What a change of the configuration does, where its fields alone do not tell."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Tokens that only the official plugin serves: what to do instead."""

    def schema(self) -> dict[str, Any]:
        """The Pulumi package schema."""
        types: dict[str, Any] = {}
        config = schema.properties_schema(self.config, f"{self.name}:index/Config:Config", types)
        resources = {}
        for kind in self.types:
            owner = _type_owner(kind.token)
            inputs = [field for field in kind.fields if not field.output]
            resources[kind.token] = {
                "description": kind.description,
                "inputProperties": schema.properties_schema(inputs, owner, types),
                "requiredInputs": [field.name for field in inputs if field.required and field.default is None],
                "properties": schema.properties_schema(kind.fields, owner, types),
                "required": [field.name for field in kind.fields if field.required or field.computed or field.output],
            }
        functions = {
            function.token: {
                "description": function.description,
                "inputs": {
                    "type": "object",
                    "properties": schema.properties_schema(function.arguments, _type_owner(function.token), types),
                    "required": [field.name for field in function.arguments if field.required],
                },
                "outputs": {
                    "type": "object",
                    "properties": schema.properties_schema(
                        function.results, f"{_type_owner(function.token)}Result", types
                    ),
                    "required": [field.name for field in function.results],
                },
            }
            for function in self.functions
        }
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "config": {"variables": config},
            "provider": {"inputProperties": config},
            "types": types,
            "resources": resources,
            "functions": functions,
        }


class Servicer(provider_pb2_grpc.ResourceProviderServicer, Generic[C]):
    """The gRPC service."""

    def __init__(self, package: Package[C], engine_address: str | None) -> None:
        self.package = package
        self.types = {kind.token: kind for kind in package.types}
        self.functions = {function.token: function for function in package.functions}
        self.cancelled = threading.Event()
        self._client: C | None = None
        self._known: defaultdict[str, set[str]] = defaultdict(set)
        self._engine: engine_pb2_grpc.EngineStub | None = None
        if engine_address:
            self._attach(engine_address)

    def _attach(self, address: str) -> None:
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address))

    def report(self, severity: Severity, message: str, urn: str = "", ephemeral: bool = False) -> None:
        """Send a line to the engine; to stderr where there is none."""
        if self._engine is None:
            if severity != "debug":
                print(f"{severity}: {message}", file=sys.stderr)
            return
        request = engine_pb2.LogRequest(
            severity=engine_pb2.LogSeverity.Value(severity.upper()), message=message, urn=urn, ephemeral=ephemeral
        )
        try:
            self._engine.Log(request, timeout=5)
        except grpc.RpcError:
            log.debug("the engine did not take a log line")

    def client(self) -> C:
        """The client that Configure made."""
        if self._client is None:
            raise ProviderError(
                "the provider is not configured", remedy="Its configuration depends on what is not known yet."
            )
        return self._client

    def _operation(
        self,
        urn: str,
        name: str,
        timeout: float,
        inputs: Properties | None = None,
        others: AbstractSet[str] = frozenset(),
    ) -> Operation:
        defaults = frozenset(plain((inputs or {}).get(DEFAULTS)) or ())
        name = name or urn.rpartition("::")[2]
        operation = Operation(urn, name, timeout, self.cancelled, self.report, defaults, others=others)
        _under_way.set(operation)
        return operation

    def _type(self, urn: str, token: str) -> ResourceType[C]:
        token = token or urn.split("::")[2].rpartition("$")[2]
        self._refuse(token)
        found = self.types.get(token)
        if found is None and self.package.any_type:
            return self.package.any_type(token)
        if found is None:
            raise _RefusedError(
                grpc.StatusCode.NOT_FOUND,
                f"this provider has no resource type {token!r}{schema.did_you_mean(token, self.types)}",
            )
        return found

    def _refuse(self, token: str) -> None:
        if remedy := self.package.refused.get(token):
            raise ProviderError(f"{token} needs the official {self.package.name} plugin", remedy=remedy)

    @contextmanager
    def _guard(self, context: grpc.ServicerContext, urn: str = "") -> Iterator[None]:
        """Turn failures into gRPC errors: a user's as they are, the program's own with a traceback in the debug log."""
        try:
            yield
        except _RefusedError as refusal:
            context.abort_with_status(refusal.status)
        except ProviderError as error:
            metadata = ((UNKNOWN_OUTCOME_KEY, "true"),) if error.doubt is not None else ()
            context.abort_with_status(_Status(grpc.StatusCode.UNKNOWN, str(error), metadata))
        except Exception as error:
            self.report("debug", traceback.format_exc(), urn)
            context.abort(grpc.StatusCode.INTERNAL, _internal(error))
        finally:
            _under_way.set(None)

    # Plugin.

    def Handshake(self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext) -> Any:
        if request.engine_address:
            self._attach(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, supports_autonaming_configuration=True)

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> Any:
        self._attach(request.address)
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata(((RECOVERY_KEY, "yes"),))
        return plugin_pb2.PluginInfo(version=self.package.version)

    def GetSchema(self, request: provider_pb2.GetSchemaRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context):
            if request.version != 0:
                raise _RefusedError(grpc.StatusCode.INVALID_ARGUMENT, f"no schema of version {request.version}, only 0")
            return provider_pb2.GetSchemaResponse(schema=json.dumps(self.package.schema()))

    def GetMapping(self, request: provider_pb2.GetMappingRequest, context: grpc.ServicerContext) -> Any:
        return provider_pb2.GetMappingResponse()

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> Any:
        self.cancelled.set()
        return empty_pb2.Empty()

    # Configuration.

    def _checked_config(self, given: Properties) -> tuple[Properties, list[Fault]]:
        faults: list[Fault] = []
        decoded = {}
        for key, value in given.items():
            if key in {"version", "pluginDownloadURL", "__internal"}:
                continue
            kind = next((field.kind for field in self.package.config if field.name == key), None)
            decoded[key] = _from_json(value) if kind not in {None, schema.STRING} else value
        checked = schema.check(self.package.config, {}, decoded, faults=faults)
        checked.pop(DEFAULTS)
        return checked, faults

    def CheckConfig(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            news = unmarshal(request.news)
            _, faults = self._checked_config(news)
            kept = schema.mark_field_secrets(self.package.config, news)
            return provider_pb2.CheckResponse(inputs=marshal(kept), failures=_failures(faults))

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            olds, _ = self._checked_config(unmarshal(request.old_inputs if request.old_inputs.fields else request.olds))
            news, _ = self._checked_config(unmarshal(request.news))
            if self.package.config_differences:
                found = list(self.package.config_differences(olds, news))
            else:
                found = list(schema.diff(self.package.config, olds, news))
            return _diff_response(found, inputs=True)

    def Configure(self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context):
            config, faults = self._checked_config(unmarshal(request.args))
            if faults:
                raise _RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "the provider's configuration has faults:\n"
                    + "\n".join(f"  {self.package.name}:{fault.path} {fault.reason}" for fault in faults),
                )
            if not contains(config, Unknown):
                self._client = self.package.connect(plain(config))
            return provider_pb2.ConfigureResponse(
                acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
            )

    # Resources.

    def Check(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            kind = self._type(request.urn, request.type)
            naming = Autoname(request.name or request.urn.rpartition("::")[2], request.randomSeed or os.urandom(32))
            if request.HasField("autonaming"):
                mode = provider_pb2.CheckRequest.AutonamingOptions.Mode.Name(request.autonaming.mode)
                naming = Autoname(naming.logical_name, naming.seed, request.autonaming.proposed_name, mode)
            faults: list[Fault] = []
            self._operation(request.urn, request.name, kind.timeouts.create)
            inputs = kind.checked(self._client, unmarshal(request.olds), unmarshal(request.news), naming, faults)
            return provider_pb2.CheckResponse(inputs=marshal(inputs), failures=_failures(faults))

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            kind = self._type(request.urn, request.type)
            self._known[kind.token].add(request.id)
            olds, news = unmarshal(request.olds), unmarshal(request.news)
            ignored = set(request.ignoreChanges)
            operation = self._operation(request.urn, request.name, kind.timeouts.update)
            old_inputs = unmarshal(request.old_inputs)
            found = [
                item
                for item in kind.compared(self._client, old_inputs, olds, news, operation)
                if not any(schema.within(item.path, path) for path in ignored)
            ]
            if lost := plain(olds.get(LOST)):
                found.append(Difference(lost, "UPDATE", replace=True))
            return _diff_response(
                found,
                delete_before_replace=kind.deletes_first(olds, news),
                stables=[field.name for field in kind.fields if field.force_new],
            )

    def _partial(
        self, kind: ResourceType[C], inputs: Properties, operation: Operation, error: ProviderError
    ) -> provider_pb2.ErrorResourceInitFailed:
        """What exists after a create or an update that failed half-way."""
        id_, known = operation.id or "", {**inputs, **operation.known}
        probe = self._operation(operation.urn, operation.name, 60)
        try:
            found = kind.read(self.client(), id_, plain(known), probe) or {}
        except Exception as failure:
            self.report("debug", f"could not read the half-made resource: {failure}", operation.urn)
            found = {}
        return provider_pb2.ErrorResourceInitFailed(
            id=found.get("id", id_),
            properties=marshal(kind.outputs(known, found, inputs)),
            reasons=[str(error)],
        )

    def Create(self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            kind = self._type(request.urn, request.type)
            inputs = unmarshal(request.properties)
            if request.preview:
                operation = self._operation(
                    request.urn, request.name, kind.timeouts.create, inputs, self._known[kind.token]
                )
                shown = kind.previewed(self._client, None, inputs, operation)
                return provider_pb2.CreateResponse(properties=marshal(kind.outputs(inputs, shown, inputs)))
            timeout, others = request.timeout or kind.timeouts_of(inputs).create, self._known[kind.token]
            operation = self._operation(request.urn, request.name, timeout, inputs, others)
            try:
                id_ = self._create(kind, plain(inputs), operation)
                found = kind.read(self.client(), id_, {**plain(inputs), **operation.known}, operation)
                if found is None:
                    raise ProviderError(f"{operation.name}: was created as {id_}, and is gone already")
            except Exception as error:
                if operation.id is None:
                    raise
                failure = self._expected(error, operation)
                raise _PartialError(str(failure), self._partial(kind, inputs, operation, failure)) from error
            outputs = kind.outputs({**inputs, **operation.known}, found, inputs)
            others.add(id_)
            return provider_pb2.CreateResponse(id=found.get("id", id_), properties=marshal(outputs))

    def _create(self, kind: ResourceType[C], inputs: Properties, operation: Operation) -> str:
        """Create it. If the answer is lost, take what was made, or, where nothing was, create it again."""
        attempt, doubted = 0, False
        while True:
            attempt += 1
            operation.began = operation.began or datetime.now(UTC)
            try:
                id_ = kind.create(self.client(), inputs, operation)
            except Exception as error:
                failure = self._expected(error, operation)
                # After a doubt a refusal may be due to what the first attempt has made in the end.
                doubted = doubted or failure.doubt is not None
                if operation.id is not None or not doubted:
                    raise failure from None
                if self._find_made(kind, inputs, operation, failure):
                    return str(operation.id)
                if failure.doubt is None or attempt == CREATE_ATTEMPTS:
                    failure.doubt = None
                    raise failure from None
            else:
                operation.created(id_)
                return id_

    def _find_made(self, kind: ResourceType[C], inputs: Properties, operation: Operation, lost: ProviderError) -> bool:
        """Whether a create whose answer was lost has made something; it is completed then.

        Raises ``lost``, the failure of the create, where that can't be found out.
        """
        operation.status(f"looking for what was made: {lost.args[0]}")
        settled = time.monotonic() + (lost.doubt or 0)
        try:
            while (id_ := kind.find(self.client(), inputs, operation)) is None or id_ in operation.others:
                if time.monotonic() > settled:
                    return False
                operation.pause(1, "what may have been made")
        except Exception as error:
            if operation.id is not None:
                raise
            lost.doubt = lost.doubt or 0.0
            raise lost from error
        operation.created(id_)
        operation.status(f"found what was made: {id_}")
        found = kind.read(self.client(), id_, {**inputs, **operation.known}, operation) or {}
        missing = list(kind.differences({**inputs, **found}, inputs))
        if LOST in operation.known or any(difference.replace for difference in missing):
            kind.delete(self.client(), id_, {**inputs, **found}, operation)
            operation.forget()
            return False
        if missing:
            kind.update(self.client(), id_, {**inputs, **found}, inputs, operation)
        return True

    def _expected(self, error: Exception, operation: Operation) -> ProviderError:
        """The failure as one to show. Of one that nobody foresaw, nobody knows the outcome."""
        if isinstance(error, ProviderError):
            return error
        self.report("debug", "".join(traceback.format_exception(error)), operation.urn)
        return ProviderError(_internal(error), doubt=SETTLING_SECONDS)

    def _recover(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> Any:
        """Find what an interrupted create has made."""
        kind, inputs = self._type(request.urn, request.type), unmarshal(request.inputs)
        timeout = request.timeout or kind.timeouts_of(inputs).create
        told = dict(context.invocation_metadata())
        others = frozenset(json.loads(str(told.get(OTHERS_KEY, "[]"))))
        operation = self._operation(request.urn, request.name, timeout, inputs, others)
        began = told.get(BEGAN_KEY)
        operation.began = datetime.fromisoformat(str(began)) if began else None
        try:
            asked = time.monotonic()
            while (id_ := kind.find(self.client(), plain(inputs), operation)) is None:
                settling = max(SETTLING_SECONDS, SLOWNESS * (time.monotonic() - asked))
                if operation.began is None or datetime.now(UTC) > operation.began + timedelta(seconds=settling):
                    return provider_pb2.ReadResponse()
                operation.pause(1, "what an interrupted create may have made")
                asked = time.monotonic()
            operation.created(id_)
            found = kind.read(self.client(), id_, plain(inputs), operation)
            if found is None:
                return provider_pb2.ReadResponse()
        except ProviderError as error:
            if operation.id is None:
                raise
            partial = self._partial(kind, inputs, operation, error)
            partial.inputs.CopyFrom(marshal(kind.adopted(self.client(), inputs, unmarshal(partial.properties))))
            raise _PartialError(str(error), partial) from error
        outputs = kind.outputs({**inputs, **operation.known}, found, inputs)
        return provider_pb2.ReadResponse(
            id=found.get("id", id_),
            properties=marshal(outputs),
            inputs=marshal(kind.adopted(self.client(), inputs, outputs)),
        )

    def Read(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            if not request.id:
                return self._recover(request, context)
            kind = self._type(request.urn, request.type)
            self._known[kind.token].add(request.id)
            state, given = unmarshal(request.properties), unmarshal(request.inputs)
            operation = self._operation(request.urn, request.name, request.timeout or kind.timeouts.create)
            found = kind.read(self.client(), request.id, plain(state), operation)
            if found is None:
                return provider_pb2.ReadResponse()
            outputs = kind.outputs(state, found, {**state, **given})
            inputs = kind.adopted(self.client(), given, outputs) if state else kind.imported(outputs)
            answer = provider_pb2.ReadResponse(
                id=found.get("id", request.id), properties=marshal(outputs), inputs=marshal(inputs)
            )
            if state and (ailment := kind.ailment(self.client(), found, state)):
                partial = provider_pb2.ErrorResourceInitFailed(
                    id=answer.id, properties=answer.properties, inputs=answer.inputs, reasons=[ailment]
                )
                raise _PartialError(ailment, partial)
            return answer

    def Update(self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            kind = self._type(request.urn, request.type)
            olds, news = unmarshal(request.olds), unmarshal(request.news)
            kept = {
                key: value
                for key, value in olds.items()
                if key in news or any(field.name == key and (field.output or field.computed) for field in kind.fields)
            }
            known = {**kept, **news}
            if request.preview:
                operation = self._operation(request.urn, request.name, kind.timeouts.update, news)
                operation.ignored = tuple(request.ignoreChanges)
                shown = kind.previewed(self._client, olds, news, operation)
                return provider_pb2.UpdateResponse(properties=marshal(kind.outputs(known, shown, known)))
            timeout = request.timeout or kind.timeouts_of(news).update
            operation = self._operation(request.urn, request.name, timeout, news)
            operation.ignored = tuple(request.ignoreChanges)
            try:
                kind.update(self.client(), request.id, plain(olds), plain(news), operation)
                known |= operation.known
                found = kind.read(self.client(), request.id, plain(known), operation)
                if found is None:
                    raise ProviderError(
                        f"{operation.name} ({request.id}) no longer exists",
                        remedy="Refresh the stack, then update again.",
                    )
            except Exception as error:
                if operation.id is None:
                    raise
                failure = self._expected(error, operation)
                raise _PartialError(str(failure), self._partial(kind, known, operation, failure)) from error
            return provider_pb2.UpdateResponse(properties=marshal(kind.outputs(known, found, known)))

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            kind = self._type(request.urn, request.type)
            state = plain(unmarshal(request.properties))
            timeout = request.timeout or kind.timeouts_of(state).delete
            kind.delete(self.client(), request.id, state, self._operation(request.urn, request.name, timeout))
            return empty_pb2.Empty()

    def Construct(self, request: provider_pb2.ConstructRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context):
            self._refuse(request.type)
            raise _RefusedError(grpc.StatusCode.NOT_FOUND, f"this provider has no component {request.type!r}")

    def Invoke(self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context):
            self._refuse(request.tok)
            function = self.functions.get(request.tok)
            if function is None:
                raise _RefusedError(
                    grpc.StatusCode.NOT_FOUND,
                    f"this provider has no function {request.tok!r}{schema.did_you_mean(request.tok, self.functions)}",
                )
            faults: list[Fault] = []
            given = schema.check(function.arguments, {}, unmarshal(request.args), faults=faults)
            if faults:
                return provider_pb2.InvokeResponse(failures=_failures(faults))
            arguments = plain(given)
            operation = self._operation("", function.token, Timeouts().create)
            results = {
                **{key: value for key, value in arguments.items() if key != DEFAULTS},
                **function.call(self._client if function.offline else self.client(), arguments, operation),
            }
            answer = marshal(schema.mark_field_secrets(function.results, results))
            response = provider_pb2.InvokeResponse()
            getattr(response, "return").CopyFrom(answer)
            return response


def serve(package: Package[Any], arguments: Sequence[str] | None = None) -> None:
    """Run the provider: print the port on stdout, serve until the engine is gone or SIGTERM comes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    address = next((argument for argument in reversed(arguments) if not argument.startswith("-")), None)
    # Ctrl-C goes to the whole process group; the engine decides what to do with what is under way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = [("grpc.max_receive_message_length", MESSAGE_LIMIT), ("grpc.max_send_message_length", MESSAGE_LIMIT)]
    server = grpc.server(futures.ThreadPoolExecutor(WORKERS), options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Servicer(package, address), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(port, flush=True)
    if address:
        threading.Thread(target=_exit_with_engine, args=(address,), daemon=True).start()
    server.wait_for_termination()


def _exit_with_engine(address: str) -> NoReturn:
    """A provider whose engine was killed has no one to answer to."""
    host, _, port = address.rpartition(":")
    failures = 0
    while failures < 2:
        time.sleep(ENGINE_CHECK_SECONDS)
        try:
            socket.create_connection((host, int(port)), timeout=ENGINE_CHECK_SECONDS).close()
            failures = 0
        except ConnectionRefusedError:
            break
        except OSError:
            failures += 1
    os._exit(1)


def _failures(faults: Iterable[Fault]) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(property=fault.path, reason=fault.reason) for fault in faults]


def _diff_response(
    found: list[Difference],
    *,
    inputs: bool = False,
    delete_before_replace: bool = False,
    stables: Iterable[str] = (),
) -> provider_pb2.DiffResponse:
    replaces = sorted({schema.top_level(item.path) for item in found if item.replace})
    detailed = {
        item.path: provider_pb2.PropertyDiff(
            kind=provider_pb2.PropertyDiff.Kind.Value(f"{item.kind}_REPLACE" if item.replace else item.kind),
            inputDiff=inputs,
        )
        for item in found
    }
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
        replaces=replaces,
        stables=sorted(set(stables) - set(replaces)),
        deleteBeforeReplace=bool(replaces) and delete_before_replace,
        diffs=sorted({schema.top_level(item.path) for item in found}),
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )


@dataclass(frozen=True)
class _Status(grpc.Status):
    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()


class _RefusedError(Exception):
    """A call that ends with a gRPC status of its own."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = _Status(code, message)


class _PartialError(_RefusedError):
    """The object exists, but is not what was asked for."""

    def __init__(self, message: str, partial: provider_pb2.ErrorResourceInitFailed) -> None:
        super().__init__(grpc.StatusCode.UNKNOWN, message)
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message)
        status.details.add().Pack(partial)
        self.status = _Status(
            grpc.StatusCode.UNKNOWN, message, (("grpc-status-details-bin", status.SerializeToString()),)
        )


def _internal(error: Exception) -> str:
    return f"the provider failed unexpectedly: {type(error).__name__}: {error}"


def _from_json(value: Any) -> Any:
    """Provider configuration arrives as text: booleans and objects are JSON in it."""
    if isinstance(value, Secret):
        return Secret(_from_json(value.value))
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _type_owner(token: str) -> str:
    package, module, name = token.split(":")
    return f"{package}:{module.partition('/')[0]}:{name[:1].upper()}{name[1:]}"
