"""The engine's side of a provider plugin: starts the executable and calls it as the engine does."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from concurrent import futures
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf import empty_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc

from providers.values import Properties, marshal, plain, unmarshal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What plugins of this process did with each type and function.
PERFORMED: defaultdict[str, set[str]] = defaultdict(set)
ROOT = Path(__file__).resolve().parents[2]
EXECUTABLE = ROOT / "providers/bin/pulumi-resource-openstack"


class _Engine(engine_pb2_grpc.EngineServicer):
    def __init__(self) -> None:
        self.logs: list[engine_pb2.LogRequest] = []

    def Log(self, request: engine_pb2.LogRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: ARG002, N802
        self.logs.append(request)
        return empty_pb2.Empty()


class CallError(Exception):
    """A gRPC failure: its message and code, the half-made resource if there is one, and whether nobody knows of any."""

    def __init__(self, error: grpc.RpcError) -> None:
        super().__init__(error.details())
        self.code: grpc.StatusCode = error.code()
        self.partial: provider_pb2.ErrorResourceInitFailed | None = None
        trailer: Any = error.trailing_metadata() or ()
        self.outcome_unknown = any(key == "outcome-unknown" for key, _ in trailer)
        for key, value in trailer:
            partial = provider_pb2.ErrorResourceInitFailed()
            if key == "grpc-status-details-bin" and status_pb2.Status.FromString(value).details[0].Unpack(partial):
                self.partial = partial


@dataclass(frozen=True)
class Resource:
    """What the engine's state holds of a resource."""

    token: str
    name: str
    id: str
    inputs: Properties
    outputs: Properties

    @property
    def urn(self) -> str:
        return f"urn:pulumi:test::providers::{self.token}::{self.name}"


@dataclass
class Plugin:
    """A running provider. Use as a context manager."""

    environment: Mapping[str, str]
    executable: Path = EXECUTABLE
    cwd: Path | None = None
    engine: _Engine = field(default_factory=_Engine)

    def __enter__(self) -> Self:
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        engine_pb2_grpc.add_EngineServicer_to_server(self.engine, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.process = subprocess.Popen(
            [self.executable, f"127.0.0.1:{port}"],
            stdout=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", **self.environment},
            cwd=self.cwd,
            text=True,
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self._channel)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self.process.terminate()
        self.process.wait(timeout=10)
        if self.process.stdout:
            self.process.stdout.close()
        self.server.stop(0)

    def call(self, method: str, request: Any, *metadata: tuple[str, str]) -> Any:
        """One call; CallError when it fails."""
        try:
            return getattr(self.stub, method)(request, metadata=metadata)
        except grpc.RpcError as error:
            raise CallError(error) from None

    def configure(self, **config: Any) -> None:
        """CheckConfig and Configure."""
        checked = self.call("CheckConfig", provider_pb2.CheckRequest(news=marshal(config)))
        assert not checked.failures, checked.failures
        self.call("Configure", provider_pb2.ConfigureRequest(args=checked.inputs, acceptSecrets=True))

    def check_failures(
        self, token: str, inputs: Properties, *, name: str = "thing", olds: Properties | None = None, **options: Any
    ) -> tuple[Properties, dict[str, str]]:
        """The checked inputs, and the failures by property."""
        request = provider_pb2.CheckRequest(
            urn=Resource(token, name, "", {}, {}).urn,
            name=name,
            type=token,
            olds=marshal(olds or {}),
            news=marshal(inputs),
            **{"randomSeed": b"7" * 32, **options},
        )
        answer = self.call("Check", request)
        return unmarshal(answer.inputs), {failure.property: failure.reason for failure in answer.failures}

    def check(self, token: str, inputs: Properties, **options: Any) -> Properties:
        """The checked inputs; fails where a check fails."""
        checked, failures = self.check_failures(token, inputs, **options)
        assert not failures, failures
        return checked

    def diff(self, resource: Resource, inputs: Properties, ignore: tuple[str, ...] = ()) -> provider_pb2.DiffResponse:
        """Diff of a resource with new inputs, which are checked first."""
        news = self.check(resource.token, inputs, name=resource.name, olds=resource.inputs)
        request = provider_pb2.DiffRequest(
            id=resource.id,
            urn=resource.urn,
            olds=marshal(resource.outputs),
            old_inputs=marshal(resource.inputs),
            news=marshal(news),
            ignoreChanges=ignore,
        )
        answer: provider_pb2.DiffResponse = self.call("Diff", request)
        assert answer.hasDetailedDiff
        assert (answer.changes == provider_pb2.DiffResponse.DIFF_SOME) == bool(answer.detailedDiff)
        return answer

    def preview(self, token: str, inputs: Properties, *, name: str = "thing") -> Properties:
        """The outputs that a preview of a create shows."""
        checked = self.check(token, inputs, name=name)
        urn = Resource(token, name, "", {}, {}).urn
        request = provider_pb2.CreateRequest(urn=urn, properties=marshal(checked), preview=True)
        return unmarshal(self.call("Create", request).properties)

    def create(self, token: str, inputs: Properties, *, name: str = "thing", timeout: float = 0) -> Resource:
        """Check and Create."""
        checked = self.check(token, inputs, name=name)
        resource = Resource(token, name, "", checked, {})
        request = provider_pb2.CreateRequest(
            urn=resource.urn, name=name, type=token, properties=marshal(checked), timeout=timeout
        )
        answer = self.call("Create", request)
        PERFORMED[token].add("create")
        return replace(resource, id=answer.id, outputs=unmarshal(answer.properties))

    def read(self, resource: Resource) -> Resource | None:
        """A refresh; None when the resource is gone."""
        request = provider_pb2.ReadRequest(
            id=resource.id,
            urn=resource.urn,
            properties=marshal(resource.outputs),
            inputs=marshal(resource.inputs),
        )
        answer = self.call("Read", request)
        if not answer.id:
            return None
        PERFORMED[resource.token].add("read")
        return replace(resource, id=answer.id, inputs=unmarshal(answer.inputs), outputs=unmarshal(answer.properties))

    def recover(self, lost: Resource, began: str | None, others: Sequence[str] = ()) -> Resource | None:
        """What the next run finds when the engine was killed in a create that began then; None if nothing."""
        request = provider_pb2.ReadRequest(
            urn=lost.urn, name=lost.name, type=lost.token, inputs=marshal(lost.inputs), timeout=60
        )
        metadata = [("interrupted-create-others", json.dumps(others))]
        metadata += [("interrupted-create-began", began)] if began else []
        answer = self.call("Read", request, *metadata)
        if not answer.id:
            return None
        return replace(lost, id=answer.id, inputs=unmarshal(answer.inputs), outputs=unmarshal(answer.properties))

    def import_(self, token: str, id_: str, *, name: str = "thing") -> Resource | None:
        """What ``pulumi import`` reads."""
        found = self.read(Resource(token, name, id_, {}, {}))
        if found:
            PERFORMED[token].add("import")
        return found

    def update(
        self,
        resource: Resource,
        inputs: Properties,
        *,
        preview: bool = False,
        timeout: float = 0,
        ignore: tuple[str, ...] = (),
    ) -> Resource:
        """Check and Update."""
        news = self.check(resource.token, inputs, name=resource.name, olds=resource.inputs)
        request = provider_pb2.UpdateRequest(
            id=resource.id,
            urn=resource.urn,
            olds=marshal(resource.outputs),
            old_inputs=marshal(resource.inputs),
            news=marshal(news),
            preview=preview,
            timeout=timeout,
            ignoreChanges=ignore,
        )
        answer = self.call("Update", request)
        if not preview:
            PERFORMED[resource.token].add("update")
        return replace(resource, inputs=news, outputs=unmarshal(answer.properties))

    def delete(self, resource: Resource, *, timeout: float = 0) -> None:
        """Delete."""
        request = provider_pb2.DeleteRequest(
            id=resource.id, urn=resource.urn, properties=marshal(resource.outputs), timeout=timeout
        )
        self.call("Delete", request)
        PERFORMED[resource.token].add("delete")

    def invoke(self, token: str, arguments: Properties) -> Properties:
        """Invoke; there must be no failures."""
        answer = self.call("Invoke", provider_pb2.InvokeRequest(tok=token, args=marshal(arguments)))
        assert not answer.failures, answer.failures
        PERFORMED[token].add("invoke")
        return unmarshal(getattr(answer, "return"))


def changed(answer: provider_pb2.DiffResponse) -> set[str]:
    """The paths that a diff reports."""
    return set(answer.detailedDiff)


def shown(properties: Properties) -> Properties:
    """Properties without secret marks and bookkeeping."""
    return {key: value for key, value in plain(properties).items() if key != "__defaults"}
