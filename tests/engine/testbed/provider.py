"""`pulumi-resource-testbed`: a provider whose cloud is a folder.

Everything lives under ``$TESTBED_WORLD``; tests look at it, and change it behind the engine's back, as plain files:

``resources/<id>.json``
    one file a resource that exists, written atomically and synced, so that it survives ``kill -9`` of any process
``calls.jsonl``
    two lines a call (``begin`` and ``end``), with all that the engine sent
``control.json``
    orders, read again at every call; keys are logical resource names (or ``*``):
    ``fail`` (name -> list of operations that fail; ``create-partial`` and ``update-partial`` do the work, then report
    that initialization failed; ``create-unknown`` does it and says that nobody knows; ``create-death`` does it and ends
    the provider), ``hold`` (name -> list of operations that wait for ``release/<name>.<operation>``),
    ``log`` (name -> message logged at create)
``held/<name>.<operation>``
    appears when a call starts to wait

Every type ``testbed:index:*`` behaves alike. Inputs with a meaning; all others are updated in place:

``key``         a change replaces, create-first
``slot``        a change replaces, delete-before-create; two resources cannot hold one slot at once
``name``        autonamed ``<logical name>-<7 hex>`` from the engine's seed; a change replaces
``late``        a create writes it last, as if by a second request
``secret_out``  returned as the secret output ``token``
``vault``       marked as secret as a whole by Check, whatever is marked in it
``reject``      a reason for which Check refuses

With ``TESTBED_CRASH=<n>:before`` or ``<n>:after`` the n-th call that changes the world ends the engine by ``kill -9``,
just before or just after it takes effect, and with ``<n>:half`` between the two writes of a create with ``late``;
``mutations`` counts these calls. With ``TESTBED_RECOVERS`` the provider says
that it can find what an interrupted create has made, and a read without an ID does.

Computed outputs: ``computed`` (``<id>:<value>``) and ``serial`` (number of writes); both unknown in a preview that
changes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2_grpc, status_pb2
from pulumi.runtime.proto import provider_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json: TypeAlias = Any
World = Path(os.environ["TESTBED_WORLD"])
VERSION = os.environ.get("TESTBED_VERSION", "0.1.0")
HOLD_LIMIT_SECONDS = 300.0
MUTATIONS = {"create", "update", "delete"}


def plain(value: Json) -> Json:  # noqa: PLR0911
    """The wire form of a property made readable, as ``{"$secret": x}``, ``"$unknown"``, ``{"$ref": urn}``."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    if not isinstance(value, dict):
        return "$unknown" if value == rpc.UNKNOWN else value
    members = {k: plain(v) for k, v in value.items() if k != rpc._special_sig_key}
    match value.get(rpc._special_sig_key):
        case rpc._special_secret_sig:
            return {"$secret": members["value"]}
        case rpc._special_resource_sig:
            return {"$ref": members["urn"], "id": members.get("id")}
        case rpc._special_output_value_sig:
            return {"$output": members.get("value", "$unknown"), "dependencies": members.get("dependencies", [])}
        case rpc._special_asset_sig:
            return {"$asset": members}
        case rpc._special_archive_sig:
            return {"$archive": members}
    return members


def number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value


def to_dict(props: struct_pb2.Struct) -> dict[str, Json]:
    """With whole numbers as integers: the wire knows floats only."""
    return dict(json.loads(json_format.MessageToJson(props), parse_float=number))


def to_struct(props: Mapping[str, Json]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(props)
    return struct


def secret(value: Json) -> Json:
    return {rpc._special_sig_key: rpc._special_secret_sig, "value": value}


def is_secret(value: Json) -> bool:
    return isinstance(value, dict) and value.get(rpc._special_sig_key) == rpc._special_secret_sig


def reveal(value: Json) -> Json:
    """Without secret wrappers: a folder keeps no secrets."""
    if isinstance(value, dict):
        if is_secret(value):
            return reveal(value["value"])
        return {k: reveal(v) for k, v in value.items()}
    return [reveal(v) for v in value] if isinstance(value, list) else value


def is_unknown(value: Json) -> bool:
    return bool(value == rpc.UNKNOWN)


def differences(path: str, old: Json, new: Json) -> Iterator[tuple[str, str]]:
    """(property path, kind) of each leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new} - {"__defaults"}):
            member = f"{path}.{key}" if path else key
            if key not in old or key not in new:
                yield member, "ADD" if key in new else "DELETE"
            else:
                yield from differences(member, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(f"{path}[{index}]", one, other)
    elif old != new:
        yield path, "UPDATE"


def write_synced(path: Path, content: Json) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as file:
        json.dump(content, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def record_path(id_: str) -> Path:
    return World / "resources" / f"{id_}.json"


class Testbed(provider_pb2_grpc.ResourceProviderServicer):
    def __init__(self, engine_address: str) -> None:
        self.engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine_address))
        self.cancelled = threading.Event()
        self.config: dict[str, Json] = {}
        self.log_lock = threading.Lock()

    # The orders and the log.

    def ordered(self, kind: str, name: str, operation: str) -> bool:
        orders = self.orders(kind)
        return operation in orders.get(name, []) or operation in orders.get("*", [])

    def orders(self, kind: str) -> dict[str, Json]:
        try:
            return json.loads((World / "control.json").read_text()).get(kind, {})  # type: ignore[no-any-return]
        except FileNotFoundError:
            return {}

    @contextlib.contextmanager
    def call(self, operation: str, name: str, context: grpc.ServicerContext, **details: Json) -> Iterator[int]:
        entry = {"method": operation, "name": name, "pid": os.getpid(), "config": plain(self.config), **details}
        self.note({"event": "begin", **entry})
        try:
            if not details.get("preview"):
                self.hold(operation, name, context)
            if self.ordered("fail", name, operation):
                context.abort(grpc.StatusCode.UNKNOWN, f"the testbed was told to fail the {operation} of {name}")
            number = self.count_mutation() if operation in MUTATIONS and not details.get("preview") else 0
            self.crash(f"{number}:before")
            yield number
            self.crash(f"{number}:after")
        except BaseException:
            self.note({"event": "end", "ok": False, **entry})
            raise
        self.note({"event": "end", "ok": True, **entry})

    def count_mutation(self) -> int:
        with self.log_lock, (World / "mutations").open("a+") as tally:
            tally.write("x")
            return tally.tell()

    @staticmethod
    def crash(point: str) -> None:
        if os.environ.get("TESTBED_CRASH") == point:
            os.kill(os.getppid(), signal.SIGKILL)
            # The engine's death ends this process too: it must not answer in between.
            time.sleep(HOLD_LIMIT_SECONDS)

    def note(self, entry: Json) -> None:
        line = json.dumps({"time": time.time(), **entry}) + "\n"
        with self.log_lock, (World / "calls.jsonl").open("a") as log:
            log.write(line)
            log.flush()
            os.fsync(log.fileno())

    def hold(self, operation: str, name: str, context: grpc.ServicerContext) -> None:
        if not self.ordered("hold", name, operation):
            return
        (World / "held" / f"{name}.{operation}").touch()
        deadline = time.monotonic() + HOLD_LIMIT_SECONDS
        while not (World / "release" / f"{name}.{operation}").exists():
            if self.cancelled.is_set() and not os.environ.get("TESTBED_IGNORES_CANCEL"):
                context.abort(grpc.StatusCode.CANCELLED, f"the {operation} of {name} was cancelled")
            if time.monotonic() > deadline:
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"nobody released the {operation} of {name}")
            time.sleep(0.01)

    def partial(
        self, context: grpc.ServicerContext, id_: str, name: str, outputs: struct_pb2.Struct, inputs: struct_pb2.Struct
    ) -> NoReturn:
        reason = f"{name} exists but did not become ready"
        failure = pb.ErrorResourceInitFailed(id=id_, properties=outputs, reasons=[reason], inputs=inputs)
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=reason)
        status.details.add().Pack(failure)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNKNOWN, reason)
        raise AssertionError

    # What is computed.

    def outputs(self, id_: str, inputs: Mapping[str, Json], serial: int) -> dict[str, Json]:
        value = reveal(inputs.get("value"))
        computed: Json = rpc.UNKNOWN if not id_ or is_unknown(value) else f"{id_}:{json.dumps(value)}"
        if is_secret(inputs.get("value")):
            computed = secret(computed)
        outputs = {**inputs, "computed": computed, "serial": serial if id_ else rpc.UNKNOWN}
        if "secret_out" in inputs:
            outputs["token"] = secret(reveal(inputs["secret_out"]))
        return outputs

    def write(self, id_: str, name: str, type_: str, inputs: Mapping[str, Json], serial: int) -> struct_pb2.Struct:
        known = reveal(inputs)
        write_synced(record_path(id_), {"id": id_, "name": name, "type": type_, "serial": serial, "inputs": known})
        return to_struct(self.outputs(id_, inputs, serial))

    # pulumirpc.ResourceProvider.

    def Handshake(  # noqa: N802
        self, request: pb.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> pb.ProviderHandshakeResponse:
        if not os.environ.get("TESTBED_HANDSHAKE"):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no handshake")
        self.note(
            {"event": "begin", "method": "handshake", "name": "", "invoke_with_preview": request.invoke_with_preview}
        )
        return pb.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True, accept_outputs=True)

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:  # noqa: ARG002, N802
        if os.environ.get("TESTBED_RECOVERS"):
            context.set_trailing_metadata((("recovers-interrupted-creates", "yes"),))
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: pb.GetSchemaRequest, context: grpc.ServicerContext) -> pb.GetSchemaResponse:  # noqa: ARG002, N802
        return pb.GetSchemaResponse(schema=json.dumps({"name": "testbed", "version": VERSION}))

    def CheckConfig(self, request: pb.CheckRequest, context: grpc.ServicerContext) -> pb.CheckResponse:  # noqa: N802
        news = to_dict(request.news)
        with self.call("check-config", request.name, context, urn=request.urn, inputs=plain(news)):
            if "reject" in news:
                return pb.CheckResponse(failures=[pb.CheckFailure(property="reject", reason=news["reject"])])
            return pb.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: pb.DiffRequest, context: grpc.ServicerContext) -> pb.DiffResponse:  # noqa: N802
        olds, news = to_dict(request.old_inputs), to_dict(request.news)
        with self.call("diff-config", request.name, context, urn=request.urn, olds=plain(olds), inputs=plain(news)):
            changed = [k for k in {*olds, *news} - {"version"} if olds.get(k) != news.get(k)]
            return pb.DiffResponse(
                changes=pb.DiffResponse.DIFF_SOME if changed else pb.DiffResponse.DIFF_NONE,
                diffs=changed,
                replaces=[k for k in changed if k == "region"],
            )

    def Configure(self, request: pb.ConfigureRequest, context: grpc.ServicerContext) -> pb.ConfigureResponse:  # noqa: N802
        self.config = to_dict(request.args)
        with self.call("configure", "", context, accept_secrets=request.acceptSecrets):
            return pb.ConfigureResponse(
                acceptSecrets=True,
                supportsPreview=True,
                acceptResources=True,
                acceptOutputs=bool(os.environ.get("TESTBED_HANDSHAKE")),
            )

    def Check(self, request: pb.CheckRequest, context: grpc.ServicerContext) -> pb.CheckResponse:  # noqa: N802
        news, olds = to_dict(request.news), to_dict(request.olds)
        details = {"urn": request.urn, "inputs": plain(news), "olds": plain(olds), "seed": request.randomSeed.hex()}
        with self.call("check", request.name, context, **details):
            if "reject" in news:
                return pb.CheckResponse(
                    failures=[pb.CheckFailure(property="reject", reason=str(reveal(news["reject"])))]
                )
            if "name" not in news:
                old_name = olds.get("name") if "name" in olds.get("__defaults", []) else None
                news["name"] = old_name or f"{request.name}-{request.randomSeed.hex()[:7]}"
                news["__defaults"] = ["name"]
            if "vault" in news and not is_secret(news["vault"]):
                news["vault"] = secret(news["vault"])
            return pb.CheckResponse(inputs=to_struct(news))

    def Diff(self, request: pb.DiffRequest, context: grpc.ServicerContext) -> pb.DiffResponse:  # noqa: N802
        olds, news = to_dict(request.old_inputs), to_dict(request.news)
        ignored = list(request.ignoreChanges)
        details = {
            "urn": request.urn,
            "id": request.id,
            "olds": plain(olds),
            "inputs": plain(news),
            "ignore_changes": ignored,
        }
        with self.call("diff", request.name, context, **details):
            changes = dict(differences("", reveal(olds), reveal(news)))
            changed = sorted({path.partition(".")[0].partition("[")[0] for path in changes})
            replaces = [key for key in changed if key in {"key", "slot", "name"}]
            kinds = {path: kind + "_REPLACE" if path in replaces else kind for path, kind in changes.items()}
            return pb.DiffResponse(
                changes=pb.DiffResponse.DIFF_SOME if changed else pb.DiffResponse.DIFF_NONE,
                diffs=changed,
                replaces=replaces,
                deleteBeforeReplace="slot" in replaces,
                hasDetailedDiff=True,
                detailedDiff={
                    path: pb.PropertyDiff(kind=pb.PropertyDiff.Kind.Value(kind), inputDiff=True)
                    for path, kind in kinds.items()
                },
            )

    def Create(self, request: pb.CreateRequest, context: grpc.ServicerContext) -> pb.CreateResponse:  # noqa: N802
        inputs = to_dict(request.properties)
        details = {"urn": request.urn, "inputs": plain(inputs), "preview": request.preview, "timeout": request.timeout}
        if request.preview:
            with self.call("create", request.name, context, **details):
                return pb.CreateResponse(properties=to_struct(self.outputs("", inputs, 0)))
        with self.call("create", request.name, context, **details) as number:
            if message := self.orders("log").get(request.name):
                severity = engine_pb2.LogSeverity.WARNING
                self.engine.Log(engine_pb2.LogRequest(severity=severity, message=message, urn=request.urn))
            self.claim_slot(reveal(inputs.get("slot")), context)
            id_ = f"{request.name}-{uuid.uuid4().hex[:8]}"
            if "late" in inputs:
                self.write(id_, request.name, request.type, {k: v for k, v in inputs.items() if k != "late"}, 1)
                self.crash(f"{number}:half")
            outputs = self.write(id_, request.name, request.type, inputs, 1)
            if self.ordered("fail", request.name, "create-unknown"):
                context.set_trailing_metadata((("outcome-unknown", "true"),))
                context.abort(grpc.StatusCode.UNKNOWN, f"nobody knows whether {request.name} was made")
            if self.ordered("fail", request.name, "create-death"):
                os._exit(1)
            if self.ordered("fail", request.name, "create-partial"):
                self.partial(context, id_, request.name, outputs, request.properties)
            return pb.CreateResponse(id=id_, properties=outputs)

    @staticmethod
    def claim_slot(slot: Json, context: grpc.ServicerContext) -> None:
        if slot is None:
            return
        for path in (World / "resources").glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                if json.loads(path.read_text())["inputs"].get("slot") == slot:
                    context.abort(grpc.StatusCode.ALREADY_EXISTS, f"slot {slot} is in use by {path.stem}")

    def Read(self, request: pb.ReadRequest, context: grpc.ServicerContext) -> pb.ReadResponse:  # noqa: N802
        details = {
            "urn": request.urn,
            "id": request.id,
            "timeout": request.timeout,
            "inputs": plain(to_dict(request.inputs)),
        }
        with self.call("read", request.name, context, **details):
            old_inputs = to_dict(request.inputs)
            # The cloud takes an ID in any spelling, and answers with its own.
            id_ = request.id if record_path(request.id).exists() else request.id.lower()
            id_ = id_ or self.find_created(request.name, reveal(old_inputs))
            try:
                record = json.loads(record_path(id_).read_text())
            except FileNotFoundError:
                return pb.ReadResponse()
            inputs = record["inputs"]
            for key, value in old_inputs.items():
                # What the engine knows to be secret stays so; what has not drifted keeps its form.
                if reveal(value) == inputs.get(key):
                    inputs[key] = value
            outputs = to_struct(self.outputs(id_, inputs, record["serial"]))
            if self.ordered("fail", request.name, "read-partial"):
                self.partial(context, id_, request.name, outputs, to_struct(inputs))
            return pb.ReadResponse(id=id_, properties=outputs, inputs=to_struct(inputs))

    @staticmethod
    def find_created(name: str, inputs: Mapping[str, Json]) -> str:
        """The ID of what a create with these inputs has made: physical names are never used twice."""
        for path in (World / "resources").glob("*.json"):
            record = json.loads(path.read_text())
            if record["name"] == name and record["inputs"].get("name") == inputs.get("name"):
                return str(record["id"])
        return ""

    def Update(self, request: pb.UpdateRequest, context: grpc.ServicerContext) -> pb.UpdateResponse:  # noqa: N802
        news = to_dict(request.news)
        details = {
            "urn": request.urn,
            "id": request.id,
            "inputs": plain(news),
            "olds": plain(to_dict(request.old_inputs)),
            "preview": request.preview,
            "timeout": request.timeout,
            "ignore_changes": list(request.ignoreChanges),
        }
        with self.call("update", request.name, context, **details):
            if request.preview:
                outputs = self.outputs(request.id, news, 0) | {"serial": rpc.UNKNOWN}
                return pb.UpdateResponse(properties=to_struct(outputs))
            try:
                record = json.loads(record_path(request.id).read_text())
            except FileNotFoundError:
                context.abort(grpc.StatusCode.NOT_FOUND, f"{request.id} does not exist")
            written = self.write(request.id, request.name, record["type"], news, record["serial"] + 1)
            if self.ordered("fail", request.name, "update-partial"):
                self.partial(context, request.id, request.name, written, request.news)
            return pb.UpdateResponse(properties=written)

    def Delete(self, request: pb.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: N802
        details = {
            "urn": request.urn,
            "id": request.id,
            "timeout": request.timeout,
            "olds": plain(to_dict(request.old_inputs)),
        }
        with self.call("delete", request.name, context, **details):
            record_path(request.id).unlink(missing_ok=True)
            sync_folder(World / "resources")
            return empty_pb2.Empty()

    def Invoke(self, request: pb.InvokeRequest, context: grpc.ServicerContext) -> pb.InvokeResponse:  # noqa: N802
        args = to_dict(request.args)
        with self.call("invoke", request.tok, context, inputs=plain(args)):
            match request.tok:
                case "testbed:index:echo":
                    result = args
                case "testbed:index:lookup":
                    found = [json.loads(p.read_text()) for p in sorted((World / "resources").glob("*.json"))]
                    result = {"ids": [r["id"] for r in found if r["name"] == args["name"]]}
                case "testbed:index:secretive":
                    result = {"token": secret(args["value"])}
                case "testbed:index:refuse":
                    return pb.InvokeResponse(failures=[pb.CheckFailure(property="name", reason="the testbed refuses")])
                case unknown:
                    context.abort(grpc.StatusCode.NOT_FOUND, f"no function {unknown}")
            response = pb.InvokeResponse()
            getattr(response, "return").update(result)
            return response

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:  # noqa: ARG002, N802
        self.note({"event": "begin", "method": "cancel", "name": ""})
        self.cancelled.set()
        return empty_pb2.Empty()


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=256))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Testbed(sys.argv[-1]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
