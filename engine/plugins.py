"""Resource providers: finding their executables, starting them, and speaking ``pulumirpc.ResourceProvider`` to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import errors_pb2, provider_pb2, provider_pb2_grpc

from protocol.recovery import BEGAN_KEY, OTHERS_KEY, RECOVERY_KEY, UNKNOWN_OUTCOME_KEY
from protocol.values import Properties, to_wire

from .configfile import YamlFile, tree
from .diff import Diff, PropertyDiff
from .errors import EngineError, UnknownOutcomeError
from .processes import spawn, stop
from .project import find_virtualenv, runtime_of
from .urn import name_of, type_of
from .values import (
    convert_properties,
    from_wire,
    lower_outputs,
    propagate_secrets,
    reveal_properties,
    without_references,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from google.protobuf import struct_pb2

MAX_MESSAGE_BYTES = 400 * 2**20
"""The limit Pulumi sets for its own channels."""
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
START_TIMEOUT_SECONDS = 60.0
CANCEL_TIMEOUT_SECONDS = 5.0
DYNAMIC_PACKAGE = "pulumi-python"
SOURCE_FILE = "PulumiPlugin.yaml"
"""In the folder of a provider that is a program, not an executable."""
MAX_OTHERS = 100
"""IDs under ``OTHERS_KEY``, the latest: metadata has a limit, and the time of creation rules out older ones."""


class ProviderError(EngineError):
    """A provider refused or failed an operation."""


class PartialFailureError(ProviderError):
    """The resource exists, but its create or update did not succeed; the state keeps what the provider returned."""

    def __init__(self, reasons: Sequence[str], id_: str, outputs: Properties, inputs: Properties | None) -> None:
        super().__init__("\n".join(reasons) or "the resource was created but did not become ready")
        self.reasons = list(reasons)
        self.id = id_
        self.outputs = outputs
        self.inputs = inputs


class DiffUnavailableError(ProviderError):
    """The provider cannot diff, for instance because its own configuration is not known yet."""


@dataclass
class ReadResult:
    """A resource as its provider read it; an empty ID means that it does not exist."""

    id: str
    inputs: Properties | None
    outputs: Properties
    init_errors: list[str] = field(default_factory=list)


_KINDS = {
    provider_pb2.PropertyDiff.ADD: "add",
    provider_pb2.PropertyDiff.ADD_REPLACE: "add-replace",
    provider_pb2.PropertyDiff.DELETE: "delete",
    provider_pb2.PropertyDiff.DELETE_REPLACE: "delete-replace",
    provider_pb2.PropertyDiff.UPDATE: "update",
    provider_pb2.PropertyDiff.UPDATE_REPLACE: "update-replace",
}


class Provider:
    """A running provider, configured and ready for resource operations."""

    def __init__(self, package: str, process: asyncio.subprocess.Process, channel: grpc.aio.Channel) -> None:
        self.package = package
        self.version = ""
        self.recovers = False
        self._process = process
        self._channel = channel
        self._stub = provider_pb2_grpc.ResourceProviderStub(channel)
        self._accepts_secrets = False
        self._accepts_references = False
        self._accepts_outputs = False
        self._supports_preview = False
        self.configured = False

    async def greet(self, engine_address: str, root: Path, program: Path) -> None:
        """Exchange supported features, and get the plugin's version."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._stub.Handshake(
                provider_pb2.ProviderHandshakeRequest(
                    engine_address=engine_address,
                    root_directory=str(root),
                    program_directory=str(program),
                    configure_with_urn=True,
                    invoke_with_preview=True,
                )
            )
        call: Any = self._stub.GetPluginInfo(empty_pb2.Empty())
        with contextlib.suppress(grpc.aio.AioRpcError):
            self.version = (await call).version
            self.recovers = any(key == RECOVERY_KEY for key, _ in await call.trailing_metadata())

    async def check_config(
        self, urn: str, olds: Properties, news: Properties
    ) -> tuple[Properties, list[tuple[str, str]]]:
        """Validate the provider's own configuration."""
        request = provider_pb2.CheckRequest(
            urn=urn, name=name_of(urn), type=type_of(urn), olds=to_wire(olds), news=to_wire(news)
        )
        try:
            response = await self._call(self._stub.CheckConfig, request)
        except _UnimplementedError:
            return news, []
        failures = [(failure.property, failure.reason) for failure in response.failures]
        return from_wire(response.inputs), failures

    async def diff_config(self, urn: str, old_inputs: Properties, old_outputs: Properties, news: Properties) -> Diff:
        """Compare configurations; an unimplemented answer means that no change replaces the provider."""
        request = provider_pb2.DiffRequest(
            urn=urn,
            name=name_of(urn),
            type=type_of(urn),
            olds=to_wire(old_outputs),
            news=to_wire(news),
            old_inputs=to_wire(old_inputs),
        )
        try:
            return _diff_from(await self._call(self._stub.DiffConfig, request))
        except _UnimplementedError:
            return Diff(changed=False, known=False)

    async def configure(self, urn: str, id_: str, inputs: Properties) -> None:
        """Configure the provider, which is then ready for resource operations."""
        variables = {
            f"{self.package}:config:{key}": value if isinstance(value, str) else json.dumps(value)
            for key, value in reveal_properties(inputs).items()
        }
        response = await self._call(
            self._stub.Configure,
            provider_pb2.ConfigureRequest(
                variables=variables,
                args=to_wire(inputs),
                acceptSecrets=True,
                acceptResources=True,
                sends_old_inputs=True,
                sends_old_inputs_to_delete=True,
                id=id_,
                urn=urn,
                name=name_of(urn),
                type=type_of(urn),
            ),
        )
        self._accepts_secrets = response.acceptSecrets
        self._accepts_references = response.acceptResources
        self._accepts_outputs = response.acceptOutputs
        # The SDK's dynamic provider supports no previews of creates and updates.
        self._supports_preview = response.supportsPreview
        self.configured = True

    async def check(
        self, urn: str, olds: Properties | None, news: Properties, seed: bytes
    ) -> tuple[Properties, list[tuple[str, str]]]:
        """Validate inputs and fill in defaults; returns the inputs and (property, reason) of each failure."""
        request = provider_pb2.CheckRequest(
            urn=urn,
            name=name_of(urn),
            type=type_of(urn),
            olds=None if olds is None else self._encode(olds),
            news=self._encode(news),
            randomSeed=seed,
        )
        try:
            response = await self._call(self._stub.Check, request)
        except _UnimplementedError:
            return news, []
        failures = [(failure.property, failure.reason) for failure in response.failures]
        # A provider may return failures without inputs.
        inputs = self._decode(response.inputs, news) if response.HasField("inputs") else {}
        return inputs, failures

    async def diff(
        self,
        urn: str,
        id_: str,
        *,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
        ignore_changes: Sequence[str],
    ) -> Diff:
        """Diff a resource."""
        request = provider_pb2.DiffRequest(
            id=id_,
            urn=urn,
            name=name_of(urn),
            type=type_of(urn),
            olds=self._encode(old_outputs),
            news=self._encode(news),
            old_inputs=self._encode(old_inputs),
            ignoreChanges=ignore_changes,
        )
        try:
            return _diff_from(await self._call(self._stub.Diff, request))
        except _UnimplementedError:
            return Diff(changed=False, known=False)

    async def create(self, urn: str, inputs: Properties, timeout: float, *, preview: bool) -> tuple[str, Properties]:
        """Create a resource; in a preview, return the outputs that are known beforehand."""
        if preview and not self._supports_preview:
            return "", {}
        request = provider_pb2.CreateRequest(
            urn=urn,
            name=name_of(urn),
            type=type_of(urn),
            properties=self._encode(inputs),
            timeout=timeout,
            preview=preview,
        )
        response = await self._call(self._stub.Create, request, inputs)
        if not response.id and not preview:
            raise ProviderError(f"the {self.package} provider did not return an ID from Create")
        return response.id, self._decode(response.properties, inputs)

    async def update(
        self,
        urn: str,
        id_: str,
        *,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
        timeout: float,
        ignore_changes: Sequence[str],
        preview: bool,
    ) -> Properties:
        """Change a resource in place; returns its outputs."""
        if preview and not self._supports_preview:
            return {}
        request = provider_pb2.UpdateRequest(
            id=id_,
            urn=urn,
            name=name_of(urn),
            type=type_of(urn),
            olds=self._encode(old_outputs),
            news=self._encode(news),
            old_inputs=self._encode(old_inputs),
            timeout=timeout,
            ignoreChanges=ignore_changes,
            preview=preview,
        )
        response = await self._call(self._stub.Update, request, news)
        return self._decode(response.properties, news)

    async def delete(self, urn: str, id_: str, inputs: Properties, outputs: Properties, timeout: float) -> None:
        """Delete a resource."""
        await self._call(
            self._stub.Delete,
            provider_pb2.DeleteRequest(
                id=id_,
                urn=urn,
                name=name_of(urn),
                type=type_of(urn),
                properties=self._encode(outputs),
                old_inputs=self._encode(inputs),
                timeout=timeout,
            ),
        )

    async def read(
        self,
        urn: str,
        id_: str,
        inputs: Properties | None,
        outputs: Properties | None,
        timeout: float = 0,
        *,
        began: str = "",
        others: Sequence[str] = (),
    ) -> ReadResult:
        """Read a resource by its ID; without one, find what an interrupted create that ``began`` then has made.

        ``others`` are the known IDs of the type, in the order of their creation.
        """
        request = provider_pb2.ReadRequest(
            id=id_,
            urn=urn,
            name=name_of(urn),
            type=type_of(urn),
            properties=None if outputs is None else self._encode(outputs),
            inputs=None if inputs is None else self._encode(inputs),
            timeout=timeout,
        )
        known = {**(outputs or {}), **(inputs or {})}
        interrupted = {BEGAN_KEY: began, OTHERS_KEY: json.dumps(others[-MAX_OTHERS:])} if began else {}
        try:
            response = await self._call(self._stub.Read, request, known, interrupted)
        except _UnimplementedError as error:
            raise ProviderError(f"the {self.package} provider cannot read resources of this type") from error
        except PartialFailureError as failure:
            return ReadResult(failure.id, failure.inputs, failure.outputs, failure.reasons)
        return ReadResult(
            response.id,
            self._decode(response.inputs, known) if response.HasField("inputs") else None,
            self._decode(response.properties, known),
        )

    async def invoke(self, token: str, args: Properties, *, preview: bool) -> tuple[Properties, list[tuple[str, str]]]:
        """Call a function of the provider."""
        request = provider_pb2.InvokeRequest(tok=token, args=self._encode(args), preview=preview)
        try:
            response = await self._call(self._stub.Invoke, request)
        except _UnimplementedError as error:
            raise ProviderError(f"the {self.package} provider has no function {token}") from error
        failures = [(failure.property, failure.reason) for failure in response.failures]
        return from_wire(getattr(response, "return")), failures

    async def construct(
        self, request: provider_pb2.ConstructRequest, inputs: Properties
    ) -> provider_pb2.ConstructResponse:
        """Construct a component; ``inputs`` may contain output values."""
        request.inputs.CopyFrom(self._encode_outputs(inputs))
        try:
            response: provider_pb2.ConstructResponse = await self._call(self._stub.Construct, request)
        except _UnimplementedError as error:
            raise ProviderError(f"the {self.package} provider has no component {request.type}") from error
        return response

    async def call(self, request: provider_pb2.CallRequest, args: Properties) -> provider_pb2.CallResponse:
        """Call a method of a component; ``args`` may contain output values."""
        request.args.CopyFrom(self._encode_outputs(args))
        try:
            response: provider_pb2.CallResponse = await self._call(self._stub.Call, request)
        except _UnimplementedError as error:
            raise ProviderError(f"the {self.package} provider has no method {request.tok}") from error
        return response

    async def cancel(self) -> None:
        """Ask the provider to cancel its operations."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            call: Any = self._stub.Cancel(empty_pb2.Empty(), timeout=CANCEL_TIMEOUT_SECONDS)
            await call

    async def close(self) -> None:
        """End the provider's process."""
        await self._channel.close(None)
        await stop(self._process)

    def _encode(self, properties: Mapping[str, Any]) -> struct_pb2.Struct:
        plain: Mapping[str, Any] = properties
        if not self._accepts_secrets:
            plain = reveal_properties(plain)
        if not self._accepts_references:
            plain = convert_properties(plain, without_references)
        return to_wire(plain)

    def _encode_outputs(self, properties: Properties) -> struct_pb2.Struct:
        return self._encode(properties if self._accepts_outputs else convert_properties(properties, lower_outputs))

    def _decode(self, struct: struct_pb2.Struct, inputs: Properties) -> Properties:
        properties = from_wire(struct)
        return properties if self._accepts_secrets else propagate_secrets(properties, inputs)

    async def _call(
        self, method: Any, request: Any, inputs: Properties | None = None, metadata: Mapping[str, str] | None = None
    ) -> Any:
        try:
            return await method(request, metadata=tuple((metadata or {}).items()))
        except grpc.aio.AioRpcError as error:
            raise self._translate(error, inputs or {}) from None

    def _translate(self, error: grpc.aio.AioRpcError, inputs: Properties) -> Exception:
        code, message = error.code(), error.details() or str(error.code())
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return _UnimplementedError(message)
        for detail in _details(error):
            if (translated := self._from_detail(detail, message, inputs)) is not None:
                return translated
            cause = errors_pb2.ErrorCause()
            if detail.Unpack(cause) and cause.message and cause.message not in message:
                message = f"{message}: {cause.message}"
        if code == grpc.StatusCode.UNAVAILABLE:
            ended = self._process.returncode is not None
            reason = f"its process ended with status {self._process.returncode}" if ended else message
            return UnknownOutcomeError(
                f"the {self.package} provider could not be reached: {reason}",
                remedy="run the command again: it goes on from the recorded state",
            )
        if any(key == UNKNOWN_OUTCOME_KEY for key, _ in _trailer(error)):
            return UnknownOutcomeError(
                message.strip(), remedy="run the command again: it looks for what the create may have made"
            )
        return ProviderError(message.strip())

    def _from_detail(self, detail: Any, message: str, inputs: Properties) -> ProviderError | None:
        failed = provider_pb2.ErrorResourceInitFailed()
        if detail.Unpack(failed):
            return PartialFailureError(
                list(failed.reasons) or [message],
                failed.id,
                self._decode(failed.properties, inputs),
                self._decode(failed.inputs, inputs) if failed.HasField("inputs") else None,
            )
        invalid = errors_pb2.InputPropertiesError()
        if detail.Unpack(invalid):
            lines = [f"{one.property_path}: {one.reason}" for one in invalid.errors]
            return ProviderError("\n  ".join(filter(None, [message, *lines])))
        missing = provider_pb2.ConfigureErrorMissingKeys()
        if detail.Unpack(missing):
            keys = "\n".join(
                f"  {self.package}:{key.name.split(':')[-1]}: {key.description}" for key in missing.missingKeys
            )
            return ProviderError(f"the {self.package} provider is missing required configuration:\n{keys}")
        return None


class _UnimplementedError(EngineError):
    pass


def _trailer(error: grpc.aio.AioRpcError) -> Iterable[tuple[str, str | bytes]]:
    metadata: Any = error.trailing_metadata()
    return metadata or ()


def _details(error: grpc.aio.AioRpcError) -> Sequence[Any]:
    for key, value in _trailer(error):
        if key == "grpc-status-details-bin":
            raw = value if isinstance(value, bytes) else value.encode()
            return list(status_pb2.Status.FromString(raw).details)
    return []


def _diff_from(response: provider_pb2.DiffResponse) -> Diff:
    detailed = None
    if response.hasDetailedDiff or response.detailedDiff:
        detailed = {
            path: PropertyDiff(_KINDS[entry.kind], entry.inputDiff) for path, entry in response.detailedDiff.items()
        }
    return Diff(
        # Replace keys imply changes.
        changed=response.changes == provider_pb2.DiffResponse.DIFF_SOME,
        known=response.changes != provider_pb2.DiffResponse.DIFF_UNKNOWN,
        replace_keys=list(response.replaces),
        changed_keys=list(response.diffs),
        detailed=detailed,
        delete_before_replace=response.deleteBeforeReplace,
    )


class PluginHost:
    """Finds and starts provider plugins, and stops them when the update ends."""

    def __init__(
        self,
        *,
        root: Path,
        program: Path,
        python: str,
        plugin_paths: Mapping[str, Path],
        plugin_dirs: Sequence[Path],
        environment: Mapping[str, str],
        log: Callable[[str, str], None],
    ) -> None:
        self._root = root
        self._program = program
        self._python = python
        self._plugin_paths = plugin_paths
        self._plugin_dirs = plugin_dirs
        self._environment = dict(environment)
        self._log = log
        self._running: list[Provider] = []
        self._spare: dict[tuple[str, str], asyncio.Task[Provider]] = {}
        self._readers: set[asyncio.Task[None]] = set()
        self.engine_address = ""

    def prestart(self, package: str, version: str) -> None:
        """Start a provider that the program will probably use, while the program starts."""
        if (package, version) not in self._spare:
            self._spare[package, version] = asyncio.create_task(self._start(package, version))

    async def start(self, package: str, version: str) -> Provider:
        """A new provider process; raises :class:`EngineError` where the plugin is not found or does not start."""
        spare = self._spare.pop((package, version), None)
        return await (self._start(package, version) if spare is None else spare)

    async def _start(self, package: str, version: str) -> Provider:
        if package == DYNAMIC_PACKAGE:
            command = [self._python, "-u", "-m", "pulumi.dynamic"]
        else:
            found = self.find(package, version)
            command = [source_python(found), "-u", str(found)] if found.is_dir() else [str(found)]
        process = await spawn(
            [*command, self.engine_address],
            cwd=self._program,
            env=self._environment,
        )
        port = await self._read_port(package, process)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)
        provider = Provider(package, process, channel)
        self._running.append(provider)
        await provider.greet(self.engine_address, self._root, self._program)
        provider.version = provider.version or version
        return provider

    def find(self, package: str, version: str) -> Path:
        """The executable of a provider: from Pulumi.yaml, Pulumi's plugin folder, ``PATH``, or the own folders.

        A folder that Pulumi.yaml names may instead have a program with ``PulumiPlugin.yaml``.
        """
        name = f"pulumi-resource-{package}"
        if chosen := self._plugin_paths.get(package):
            return chosen / name if chosen.is_dir() and not (chosen / SOURCE_FILE).is_file() else chosen
        home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
        for folder in _installed(home, package, version):
            if (folder / name).is_file():
                return folder / name
        if found := shutil.which(name, path=self._environment.get("PATH")):
            return Path(found)
        for folder in self._plugin_dirs:
            if (folder / name).is_file():
                return folder / name
        wanted = f"{package} {version}".strip()
        raise EngineError(
            f"no provider plugin for package {wanted!r}: {name} is neither in {home} nor on PATH",
            remedy=f"install it, for instance with `pulumi plugin install resource {wanted}`",
        )

    async def _read_port(self, package: str, process: asyncio.subprocess.Process) -> int:
        if process.stdout is None or process.stderr is None:
            raise AssertionError
        errors: list[str] = []
        self._follow(process.stderr, package, errors)
        try:
            line = (await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_SECONDS)).decode().strip()
        except TimeoutError:
            line = ""
        if not re.fullmatch(r"\d+", line):
            await stop(process)
            said = "\n".join(filter(None, [line, *errors])) or "it said nothing"
            raise EngineError(f"the {package} provider did not start: {said}")
        self._follow(process.stdout, package, [])
        return int(line)

    def _follow(self, stream: asyncio.StreamReader, package: str, kept: list[str]) -> None:
        async def follow() -> None:
            async for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                kept.append(line)
                del kept[:-50]
                if line:
                    self._log(package, line)

        task = asyncio.create_task(follow())
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)

    async def cancel(self) -> None:
        """Ask every provider to cancel its operations."""
        await asyncio.gather(*(provider.cancel() for provider in self._running))

    async def close(self) -> None:
        """Stop every provider."""
        await asyncio.gather(*self._spare.values(), return_exceptions=True)
        await asyncio.gather(*(provider.close() for provider in self._running))
        self._running.clear()

    def records(self) -> list[dict[str, Any]]:
        """The plugins in use, as a checkpoint's manifest lists them."""
        found = {
            (provider.package, provider.version)
            for provider in self._running
            if provider.package != DYNAMIC_PACKAGE and provider.version
        }
        return [
            {"name": package, "path": "", "type": "resource", "version": version} for package, version in sorted(found)
        ]


def _installed(home: Path, package: str, version: str) -> list[Path]:
    """Folders of Pulumi's plugin cache that may hold the provider: the version asked for, or else the newest."""
    if version:
        return [home / f"resource-{package}-v{version}"]

    def order(folder: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", folder.name.rpartition("-v")[2])]

    return sorted(home.glob(f"resource-{package}-v*"), key=order, reverse=True)


def source_python(folder: Path) -> str:
    """The interpreter of a provider whose source is in ``folder``; raises :class:`EngineError` for other languages."""
    path = folder / SOURCE_FILE
    runtime, options = runtime_of(tree(YamlFile(path).root))
    if runtime != "python":
        raise EngineError(
            f"{path} says runtime {runtime!r}; this engine runs providers in Python", remedy="use the Pulumi CLI"
        )
    python = default_python(find_virtualenv(folder, folder, options))
    if not Path(python).exists():
        raise EngineError(f"{path}: its virtual environment has no interpreter: {python} does not exist")
    return python


def default_python(virtualenv: Path | None) -> str:
    """The interpreter that runs the program and its dynamic providers."""
    if virtualenv is not None:
        return str(virtualenv / "bin" / "python")
    return sys.executable
