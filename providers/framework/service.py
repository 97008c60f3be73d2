"""The ``pulumirpc.ResourceProvider`` service over a :class:`Package`."""
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
from collections import defaultdict
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import grpc
from google.protobuf import empty_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc

from protocol.paths import Path, covers, parse_path
from protocol.recovery import (
    BEGAN_KEY,
    GRACE_SECONDS,
    OTHERS_KEY,
    RECOVERY_KEY,
    UNKNOWN_OUTCOME_KEY,
    may_still_appear,
)
from providers import schema
from providers.framework.operation import UNRECOVERABLE, Operation, ProviderError, Severity, Timeouts
from providers.schema import DEFAULTS, Autoname, CheckFailure, Difference
from providers.values import Properties, Secret, Unknown, contains, marshal, plain, unmarshal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from providers.framework.resources import Package, ResourceType

C = TypeVar("C")

MESSAGE_LIMIT = 400 * 1024 * 1024  # bytes; the engine's own limit on a gRPC message
WORKERS = 128  # concurrent calls; --parallel is seldom more
ENGINE_CHECK_SECONDS = 1.0
CREATE_ATTEMPTS = 3
"""Attempts at a create whose response is lost and that has made nothing."""

log = logging.getLogger(__name__)


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
            log.debug("the engine did not accept a log message")

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
        operation.enter()
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
        if remedy := self.package.unsupported.get(token):
            raise ProviderError(f"{token} needs the official {self.package.name} plugin", remedy=remedy)

    @contextmanager
    def _guard(self, context: grpc.ServicerContext, urn: str = "") -> Iterator[None]:
        """Turn exceptions into gRPC errors; the traceback of an unexpected one goes to the debug log."""
        try:
            yield
        except _RefusedError as refusal:
            context.abort_with_status(refusal.status)
        except ProviderError as error:
            metadata = ((UNKNOWN_OUTCOME_KEY, "true"),) if error.uncertain_for is not None else ()
            context.abort_with_status(_Status(grpc.StatusCode.UNKNOWN, str(error), metadata))
        except Exception as error:
            self.report("debug", traceback.format_exc(), urn)
            context.abort(grpc.StatusCode.INTERNAL, _internal(error))
        finally:
            Operation.leave()

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

    def _checked_config(self, given: Properties) -> tuple[Properties, list[CheckFailure]]:
        failures: list[CheckFailure] = []
        decoded = {}
        for key, value in given.items():
            if key in {"version", "pluginDownloadURL", "__internal"}:
                continue
            kind = next((field.kind for field in self.package.config if field.name == key), None)
            decoded[key] = _from_json(value) if kind not in {None, schema.STRING} else value
        checked = schema.check(self.package.config, {}, decoded, failures=failures)
        checked.pop(DEFAULTS)
        return checked, failures

    def CheckConfig(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            news = unmarshal(request.news)
            _, failures = self._checked_config(news)
            kept = schema.mark_field_secrets(self.package.config, news)
            return provider_pb2.CheckResponse(inputs=marshal(kept), failures=_failures(failures))

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            olds, _ = self._checked_config(unmarshal(request.old_inputs if request.old_inputs.fields else request.olds))
            news, _ = self._checked_config(unmarshal(request.news))
            if self.package.config_differences:
                found = self.package.config_differences(olds, news)
            else:
                found = schema.diff(self.package.config, olds, news)
            return _diff_response(_without_ignored(found, _paths(request.ignoreChanges)), inputs=True)

    def Configure(self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context):
            config, failures = self._checked_config(unmarshal(request.args))
            if failures:
                raise _RefusedError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "the provider's configuration is not valid:\n"
                    + "\n".join(f"  {self.package.name}:{fault.path} {fault.reason}" for fault in failures),
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
            failures: list[CheckFailure] = []
            self._operation(request.urn, request.name, kind.timeouts.create)
            inputs = kind.check_inputs(self._client, unmarshal(request.olds), unmarshal(request.news), naming, failures)
            return provider_pb2.CheckResponse(inputs=marshal(inputs), failures=_failures(failures))

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> Any:
        with self._guard(context, request.urn):
            kind = self._type(request.urn, request.type)
            self._known[kind.token].add(request.id)
            olds, news = unmarshal(request.olds), unmarshal(request.news)
            operation = self._operation(request.urn, request.name, kind.timeouts.update)
            operation.ignored = _paths(request.ignoreChanges)
            old_inputs = unmarshal(request.old_inputs)
            compared = kind.diff(self._client, old_inputs, olds, news, operation)
            found = _without_ignored(compared, operation.ignored)
            if lost := plain(olds.get(UNRECOVERABLE)):
                found.append(Difference(lost, "UPDATE", replace=True))
            return _diff_response(
                found,
                delete_before_replace=kind.deletes_before_replace(olds, news),
                stables=[field.name for field in kind.fields if field.force_new],
            )

    def _partial(
        self, kind: ResourceType[C], inputs: Properties, operation: Operation, error: ProviderError
    ) -> provider_pb2.ErrorResourceInitFailed:
        """What exists after a failed create or update."""
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
                shown = kind.preview(self._client, None, inputs, operation)
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
        """Create it. If the response is lost, complete what was made, or create it again where nothing was."""
        attempt, uncertain = 0, False
        while True:
            attempt += 1
            operation.began = operation.began or datetime.now(UTC)
            try:
                id_ = kind.create(self.client(), inputs, operation)
            except Exception as error:
                failure = self._expected(error, operation)
                # After a lost response, a refusal may be caused by what the first attempt has made.
                uncertain = uncertain or failure.uncertain_for is not None
                if operation.id is not None or not uncertain:
                    raise failure from None
                if self._find_made(kind, inputs, operation, failure):
                    return str(operation.id)
                if failure.uncertain_for is None or attempt == CREATE_ATTEMPTS:
                    failure.uncertain_for = None
                    raise failure from None
            else:
                operation.created(id_)
                return id_

    def _find_made(self, kind: ResourceType[C], inputs: Properties, operation: Operation, lost: ProviderError) -> bool:
        """Whether a create whose response was lost has made something, which is then completed.

        Raises ``lost``, the create's own error, where ``find`` cannot decide.
        """
        operation.status(f"looking for what was made: {lost.args[0]}")
        deadline = time.monotonic() + (lost.uncertain_for or 0)
        try:
            while (id_ := kind.find(self.client(), inputs, operation)) is None or id_ in operation.others:
                if time.monotonic() > deadline:
                    return False
                operation.pause(1, "what may have been made")
        except Exception as error:
            if operation.id is not None:
                raise
            lost.uncertain_for = lost.uncertain_for or 0.0
            raise lost from error
        operation.created(id_)
        operation.status(f"found what was made: {id_}")
        found = kind.read(self.client(), id_, {**inputs, **operation.known}, operation) or {}
        missing = list(kind.differences({**inputs, **found}, inputs))
        if UNRECOVERABLE in operation.known or any(difference.replace for difference in missing):
            kind.delete(self.client(), id_, {**inputs, **found}, operation)
            operation.forget()
            return False
        if missing:
            kind.update(self.client(), id_, {**inputs, **found}, inputs, operation)
        return True

    def _expected(self, error: Exception, operation: Operation) -> ProviderError:
        """The error to show. The outcome of an unexpected one is unknown."""
        if isinstance(error, ProviderError):
            return error
        self.report("debug", "".join(traceback.format_exception(error)), operation.urn)
        return ProviderError(_internal(error), uncertain_for=GRACE_SECONDS)

    def _recover(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> Any:
        """Find what an interrupted create has made."""
        kind, inputs = self._type(request.urn, request.type), unmarshal(request.inputs)
        timeout = request.timeout or kind.timeouts_of(inputs).create
        metadata = dict(context.invocation_metadata())
        others = frozenset(json.loads(str(metadata.get(OTHERS_KEY, "[]"))))
        operation = self._operation(request.urn, request.name, timeout, inputs, others)
        began = metadata.get(BEGAN_KEY)
        operation.began = datetime.fromisoformat(str(began)) if began else None
        try:
            asked = time.monotonic()
            while (id_ := kind.find(self.client(), plain(inputs), operation)) is None:
                if not may_still_appear(operation.began, time.monotonic() - asked):
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
            partial.inputs.CopyFrom(
                marshal(kind.refreshed_inputs(self.client(), inputs, unmarshal(partial.properties)))
            )
            raise _PartialError(str(error), partial) from error
        outputs = kind.outputs({**inputs, **operation.known}, found, inputs)
        return provider_pb2.ReadResponse(
            id=found.get("id", id_),
            properties=marshal(outputs),
            inputs=marshal(kind.refreshed_inputs(self.client(), inputs, outputs)),
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
            inputs = kind.refreshed_inputs(self.client(), given, outputs) if state else kind.import_inputs(outputs)
            answer = provider_pb2.ReadResponse(
                id=found.get("id", request.id), properties=marshal(outputs), inputs=marshal(inputs)
            )
            if state and (unhealthy_reason := kind.unhealthy_reason(self.client(), found, state)):
                partial = provider_pb2.ErrorResourceInitFailed(
                    id=answer.id, properties=answer.properties, inputs=answer.inputs, reasons=[unhealthy_reason]
                )
                raise _PartialError(unhealthy_reason, partial)
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
                operation.ignored = _paths(request.ignoreChanges)
                shown = kind.preview(self._client, olds, news, operation)
                return provider_pb2.UpdateResponse(properties=marshal(kind.outputs(known, shown, known)))
            timeout = request.timeout or kind.timeouts_of(news).update
            operation = self._operation(request.urn, request.name, timeout, news)
            operation.ignored = _paths(request.ignoreChanges)
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
            failures: list[CheckFailure] = []
            given = schema.check(function.arguments, {}, unmarshal(request.args), failures=failures)
            if failures:
                return provider_pb2.InvokeResponse(failures=_failures(failures))
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
    """Run the provider: print the port on stdout, serve until the engine ends or SIGTERM comes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    address = next((argument for argument in reversed(arguments) if not argument.startswith("-")), None)
    # Ctrl-C goes to the whole process group; the engine decides what to cancel.
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
    """Exit when the engine is gone."""
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


def _paths(texts: Iterable[str]) -> tuple[Path, ...]:
    """The paths of ``ignoreChanges``. Raises ProviderError."""
    try:
        return tuple(parse_path(text) for text in texts)
    except ValueError as error:
        raise ProviderError(f"ignoreChanges: {error}") from None


def _without_ignored(found: Iterable[Difference], ignored: Iterable[Path]) -> list[Difference]:
    return [item for item in found if not any(covers(pattern, parse_path(item.path)) for pattern in ignored)]


def _failures(failures: Iterable[CheckFailure]) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(property=fault.path, reason=fault.reason) for fault in failures]


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
    """The object exists, but the create or update failed."""

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
