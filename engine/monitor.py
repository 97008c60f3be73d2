"""The services the program speaks to, ``pulumirpc.ResourceMonitor`` and ``pulumirpc.Engine``, and its callbacks."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import (
    alias_pb2,
    callback_pb2,
    callback_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
    provider_pb2,
    resource_pb2,
    resource_pb2_grpc,
)

from protocol.signatures import UNKNOWN
from protocol.values import Properties, secret, to_wire

from .deployment import CancelledUpdateError
from .errors import EngineError
from .goal import Alias, Goal, Registered
from .hooks import bindings
from .plugins import CHANNEL_OPTIONS
from .remote import SHUT_DOWN, RemoteComponents, outputs_for
from .urn import ROOT_STACK_TYPE, is_provider_type, is_valid, package_of, split_reference
from .values import (
    convert_properties,
    from_wire,
    hash_assets,
    lower_outputs,
    raise_outputs,
    without_references,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .deployment import Deployment
    from .events import Emitter
    from .remote import Settings

FEATURES = {
    "secrets": resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    "resourceReferences": resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
    "outputValues": resource_pb2.RESOURCE_MONITOR_FEATURE_OUTPUT_VALUES,
    "aliasSpecs": resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
    "replacementTrigger": resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACEMENT_TRIGGER,
    "deletedWith": resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
    "replaceWith": resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
    "transforms": resource_pb2.RESOURCE_MONITOR_FEATURE_TRANSFORMS,
    "invokeTransforms": resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_TRANSFORMS,
    "invokeDependsOn": resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_DEPENDS_ON,
    "invokeParent": resource_pb2.RESOURCE_MONITOR_FEATURE_INVOKE_PARENT,
    "resourceHooks": resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
    "errorHooks": resource_pb2.RESOURCE_MONITOR_FEATURE_ERROR_HOOKS,
}
"""The SDK features that this engine supports; the SDK refuses the others by name."""

_Context = grpc.aio.ServicerContext[Any, Any]
_Options = resource_pb2.TransformResourceOptions
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SEVERITIES = {
    engine_pb2.DEBUG: "debug",
    engine_pb2.INFO: "info",
    engine_pb2.WARNING: "warning",
    engine_pb2.ERROR: "error",
}


@dataclass
class _Parent:
    """What children inherit and where the chain of transforms goes on."""

    parent: str = ""
    protect: bool = False
    retain_on_delete: bool = False
    providers: dict[str, str] = field(default_factory=dict)
    transforms: list[callback_pb2.Callback] = field(default_factory=list)


class EngineService(engine_pb2_grpc.EngineServicer):
    """Logs and the root resource; the program and the providers call it."""

    def __init__(self, emitter: Emitter) -> None:
        self._emit = emitter
        self.root_urn = ""
        self.reported_error = False

    async def Log(self, request: engine_pb2.LogRequest, context: _Context) -> empty_pb2.Empty:  # noqa: N802
        """Show a message of the program or of a provider."""
        del context
        severity = _SEVERITIES[request.severity]
        if severity == "error":
            self.reported_error = True
        urn = request.urn or self.root_urn
        self._emit.diagnostic(
            severity, request.message.rstrip("\n"), urn, stream=request.streamId, ephemeral=request.ephemeral
        )
        return empty_pb2.Empty()

    async def GetRootResource(  # noqa: N802
        self, request: engine_pb2.GetRootResourceRequest, context: _Context
    ) -> engine_pb2.GetRootResourceResponse:
        """The URN of the stack."""
        del request, context
        return engine_pb2.GetRootResourceResponse(urn=self.root_urn)

    async def SetRootResource(  # noqa: N802
        self, request: engine_pb2.SetRootResourceRequest, context: _Context
    ) -> engine_pb2.SetRootResourceResponse:
        """Remember the URN of the stack."""
        del context
        self.root_urn = request.urn
        return engine_pb2.SetRootResourceResponse()

    async def RequirePulumiVersion(  # noqa: N802
        self, request: engine_pb2.RequirePulumiVersionRequest, context: _Context
    ) -> engine_pb2.RequirePulumiVersionResponse:
        """This engine follows the SDK it is installed with, so every requirement the SDK can state is met."""
        del request, context
        return engine_pb2.RequirePulumiVersionResponse()


class ResourceMonitor(resource_pb2_grpc.ResourceMonitorServicer):
    """Turns registrations into goals, and their results into outputs."""

    def __init__(self, deployment: Deployment, service: EngineService, program_dir: Path, remote: Settings) -> None:
        self._deployment = deployment
        self._service = service
        self._program_dir = program_dir
        self._remote = RemoteComponents(deployment, remote)
        # Transforms of remote components that are being constructed, by parent, type and name: their providers
        # register them without.
        self._remote_transforms: dict[tuple[str, str, str], list[callback_pb2.Callback]] = {}
        self._parents: dict[str, _Parent] = {}
        self._stack_transforms: list[callback_pb2.Callback] = []
        self._invoke_transforms: list[callback_pb2.Callback] = []
        self._callbacks: dict[str, callback_pb2_grpc.CallbacksStub] = {}
        self._channels: list[grpc.aio.Channel] = []
        self.stack_outputs: tuple[str, Properties] | None = None
        self.registered_all = asyncio.Event()
        """Set when the program has registered everything, though it still runs for its hooks."""
        self._may_end = asyncio.Event()

    def let_program_end(self) -> None:
        """No more callbacks will come: the program may end."""
        self._may_end.set()

    async def close(self) -> None:
        """Close the connections to the program's callbacks."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels))

    async def GetDeploymentInfo(  # noqa: N802
        self, request: empty_pb2.Empty, context: _Context
    ) -> resource_pb2.DeploymentInfo:
        """The operation and the engine's features."""
        del request, context
        return resource_pb2.DeploymentInfo(
            project=self._deployment.project,
            stack=self._deployment.stack,
            organization="organization",
            dryRun=self._deployment.dry_run,
            parallel=self._deployment.options.parallel,
            supportedFeatures=FEATURES.values(),
        )

    async def SupportsFeature(  # noqa: N802
        self, request: resource_pb2.SupportsFeatureRequest, context: _Context
    ) -> resource_pb2.SupportsFeatureResponse:
        """Whether the engine has a feature."""
        del context
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in FEATURES)

    async def SignalAndWaitForShutdown(  # noqa: N802
        self, request: empty_pb2.Empty, context: _Context
    ) -> empty_pb2.Empty:
        """The program has registered everything; it goes on running if it has hooks."""
        del request, context
        if self._deployment.executor.hooks:
            self.registered_all.set()
            await self._may_end.wait()
        return empty_pb2.Empty()

    # --- resources -----------------------------------------------------------------------------------------------

    async def RegisterResource(  # noqa: N802
        self, request: resource_pb2.RegisterResourceRequest, context: _Context
    ) -> resource_pb2.RegisterResourceResponse:
        """Register a resource."""
        try:
            return await self._register(request)
        except CancelledUpdateError:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, SHUT_DOWN)
        except EngineError as error:
            self._deployment.report(error, self._service.root_urn)
            await _abort(context, grpc.StatusCode.UNAVAILABLE, SHUT_DOWN)

    async def _register(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:
        _refuse_unsupported(request)
        options = self._options(request)
        try:
            properties = hash_assets(from_wire(request.object), self._program_dir)
        except EngineError as error:
            raise EngineError(f"resource '{request.name}': {error}") from None
        by_property = {key: set(value.urns) for key, value in request.propertyDependencies.items()}
        if not by_property:
            by_property = {key: set(request.dependencies) for key in properties}
        own = self._own_transforms(request)
        transforms = [*own, *self._inherited_transforms(request.parent), *self._stack_transforms]
        if transforms:
            properties = {key: raise_outputs(value, by_property.get(key, ())) for key, value in properties.items()}
            by_property = {}
            for callback in transforms:
                properties, options = await self._transform(callback, request, properties, options)
        if request.remote:
            return await self._remote.construct(request, options, properties, by_property)
        dependencies = set(options.depends_on)
        plain: Properties = {}
        for key, value in properties.items():
            found: set[str] = set()
            plain[key] = lower_outputs(value, found)
            by_property.setdefault(key, set()).update(found)
            if transforms:
                dependencies |= found

        provider = ""
        if is_provider_type(request.type):
            if options.version:
                plain["version"] = options.version
        elif request.custom:
            provider = await self._deployment.provider_reference(
                options.provider, request.type, options.version, options.plugin_download_url
            )
        goal = Goal(
            type=request.type,
            name=request.name,
            custom=request.custom,
            properties=plain,
            parent=request.parent,
            protect=options.protect,
            dependencies=sorted(dependencies),
            provider=provider,
            property_dependencies={key: sorted(urns) for key, urns in by_property.items()},
            delete_before_replace=options.delete_before_replace if options.HasField("delete_before_replace") else None,
            ignore_changes=list(options.ignore_changes),
            additional_secret_outputs=list(options.additional_secret_outputs),
            aliases=[_alias(alias) for alias in options.aliases],
            import_id=getattr(options, "import"),
            custom_timeouts=_timeouts(options),
            replace_on_changes=list(options.replace_on_changes),
            retain_on_delete=options.retain_on_delete,
            deleted_with=options.deleted_with,
            replace_with=list(options.replace_with),
            replacement_trigger=(
                from_wire(struct_pb2.Struct(fields={"": options.replacement_trigger}))[""]
                if options.HasField("replacement_trigger")
                else None
            ),
            source_position=_position(request.sourcePosition, self._program_dir),
            resource_hooks=bindings(options.hooks),
        )
        registered = await self._deployment.register(goal)
        self._parents[registered.state.urn] = _Parent(
            request.parent,
            options.protect,
            options.retain_on_delete,
            self._component_providers(request, options),
            own if not request.custom else [],
        )
        if request.type == ROOT_STACK_TYPE:
            self._service.root_urn = registered.state.urn
        return self._answer(request, registered)

    def _options(self, request: resource_pb2.RegisterResourceRequest) -> _Options:
        """The options of a registration, with what it inherits from its parent."""
        parent = self._parents.get(request.parent, _Parent())
        options = _Options(
            depends_on=request.dependencies,
            protect=request.protect if request.HasField("protect") else parent.protect,
            ignore_changes=request.ignoreChanges,
            replace_on_changes=request.replaceOnChanges,
            version=request.version,
            aliases=[*(alias_pb2.Alias(urn=urn) for urn in request.aliasURNs), *request.aliases],
            provider=self._resolve_provider(request),
            plugin_download_url=request.pluginDownloadURL,
            retain_on_delete=request.retainOnDelete if request.HasField("retainOnDelete") else parent.retain_on_delete,
            deleted_with=request.deletedWith,
            additional_secret_outputs=request.additionalSecretOutputs,
            providers=dict(request.providers),
            replace_with=request.replace_with,
        )
        setattr(options, "import", request.importId)
        if request.HasField("hooks"):
            options.hooks.CopyFrom(request.hooks)
        if request.HasField("customTimeouts"):
            options.custom_timeouts.CopyFrom(request.customTimeouts)
        if request.deleteBeforeReplace or request.deleteBeforeReplaceDefined:
            options.delete_before_replace = request.deleteBeforeReplace
        if request.HasField("replacement_trigger"):
            options.replacement_trigger.CopyFrom(request.replacement_trigger)
        return options

    def _component_providers(self, request: resource_pb2.RegisterResourceRequest, options: _Options) -> dict[str, str]:
        """The providers that a component's children inherit: its own over those of its parent."""
        if request.custom:
            return {}
        return {**self._parents.get(request.parent, _Parent()).providers, **options.providers}

    def _answer(
        self, request: resource_pb2.RegisterResourceRequest, registered: Registered
    ) -> resource_pb2.RegisterResourceResponse:
        state = registered.state
        result = resource_pb2.SUCCESS if registered.succeeded else resource_pb2.FAIL
        if not registered.succeeded and not request.supportsResultReporting:
            raise CancelledUpdateError
        return resource_pb2.RegisterResourceResponse(
            urn=state.urn,
            id=state.id,
            # A component's old outputs may refer to resources that are not registered yet.
            object=outputs_for(request, state.outputs) if request.custom else to_wire({}),
            result=result,
            unknown=registered.unknown,
        )

    def _own_transforms(self, request: resource_pb2.RegisterResourceRequest) -> list[callback_pb2.Callback]:
        key = (request.parent, request.type, request.name)
        if request.remote:
            self._remote_transforms[key] = list(request.transforms)
            return self._remote_transforms[key]
        return self._remote_transforms.pop(key, None) or list(request.transforms)

    def _inherited_transforms(self, urn: str) -> list[callback_pb2.Callback]:
        found: list[callback_pb2.Callback] = []
        while urn in self._parents:
            found += self._parents[urn].transforms
            urn = self._parents[urn].parent
        return found

    def _resolve_provider(self, request: resource_pb2.RegisterResourceRequest) -> str:
        if not (request.custom or request.remote) or is_provider_type(request.type):
            return request.provider
        return self._provider_for(request.provider, request.providers, request.parent, package_of(request.type))

    def _provider_for(self, named: str, providers: Mapping[str, str], parent: str, package: str) -> str:
        """The resource's own provider, one from the map, or the parent component's; empty for the default one."""
        if named or package in providers:
            return named or providers[package]
        return self._parents.get(parent, _Parent()).providers.get(package, "")

    async def RegisterResourceOutputs(  # noqa: N802
        self, request: resource_pb2.RegisterResourceOutputsRequest, context: _Context
    ) -> empty_pb2.Empty:
        """Attach outputs to a component. Those of the stack are recorded at the end: failures may still change them."""
        try:
            outputs = {key: lower_outputs(value) for key, value in from_wire(request.outputs).items()}
            if request.urn == self._service.root_urn:
                self.stack_outputs = (request.urn, outputs)
            else:
                await self._deployment.register_outputs(request.urn, outputs)
        except EngineError as error:
            self._deployment.report(error, request.urn)
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return empty_pb2.Empty()

    async def ReadResource(  # noqa: N802
        self, request: resource_pb2.ReadResourceRequest, context: _Context
    ) -> resource_pb2.ReadResourceResponse:
        """Look up a resource that the stack does not manage."""
        try:
            provider = await self._deployment.provider_reference(
                request.provider, request.type, request.version, request.pluginDownloadURL
            )
            goal = Goal(
                type=request.type,
                name=request.name,
                custom=True,
                properties=convert_properties(from_wire(request.properties), lower_outputs),
                parent=request.parent,
                dependencies=list(request.dependencies),
                provider=provider,
                additional_secret_outputs=list(request.additionalSecretOutputs),
                source_position=_position(request.sourcePosition, self._program_dir),
            )
            read = await self._deployment.read(goal, request.id)
        except CancelledUpdateError:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, SHUT_DOWN)
        except EngineError as error:
            self._deployment.report(error, self._service.root_urn)
            await _abort(context, grpc.StatusCode.UNAVAILABLE, SHUT_DOWN)
        return resource_pb2.ReadResourceResponse(
            urn=read.state.urn,
            properties=outputs_for(request, read.state.outputs),
            id="" if read.state.id == UNKNOWN else read.state.id,
            result=resource_pb2.SUCCESS if read.succeeded else resource_pb2.FAIL,
        )

    async def ExistsResource(self, request: Any, context: _Context) -> Any:  # noqa: N802
        """Not supported."""
        await self._refuse(context, f"asking whether a {request.type} exists")

    # --- functions -----------------------------------------------------------------------------------------------

    async def Invoke(  # noqa: N802
        self, request: resource_pb2.ResourceInvokeRequest, context: _Context
    ) -> resource_pb2.ResourceInvokeResponse:
        """Call a provider's function."""
        try:
            return await self._invoke(request)
        except EngineError as error:
            await _abort(context, grpc.StatusCode.UNKNOWN, f"invocation of {request.tok} returned an error: {error}")

    async def _invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:
        if request.packageRef:
            raise EngineError("parameterized packages are not supported by this engine", remedy="use the Pulumi CLI")
        args = from_wire(request.args)
        options = resource_pb2.TransformInvokeOptions(
            provider=self._provider_for(request.provider, {}, request.parent, package_of(request.tok)),
            version=request.version,
            plugin_download_url=request.pluginDownloadURL,
        )
        for callback in self._invoke_transforms:
            transformed = await self._call_back(
                callback,
                resource_pb2.TransformInvokeRequest(token=request.tok, args=to_wire(args), options=options),
                resource_pb2.TransformInvokeResponse,
            )
            if transformed.HasField("args"):
                args = from_wire(transformed.args)
            if transformed.HasField("options"):
                options = transformed.options
        reference = await self._deployment.provider_reference(
            options.provider, request.tok, options.version, options.plugin_download_url
        )
        needed = [split_reference(reference)[0], *request.dependsOn]
        if any(self._deployment.has_failed(urn) or self._is_unresolved(urn) for urn in needed):
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        provider = self._deployment.registry.get(reference)
        if not provider.configured:
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        result, failures = await provider.invoke(request.tok, args, preview=self._deployment.dry_run)
        if not request.acceptResources:
            result = convert_properties(result, without_references)
        response = resource_pb2.ResourceInvokeResponse(
            failures=[provider_pb2.CheckFailure(property=name, reason=reason) for name, reason in failures]
        )
        getattr(response, "return").CopyFrom(to_wire(result))
        return response

    def _is_unresolved(self, urn: str) -> bool:
        state = self._deployment.executor.news.get(urn)
        return state is not None and state.custom and not state.id

    async def Call(  # noqa: N802
        self, request: resource_pb2.ResourceCallRequest, context: _Context
    ) -> provider_pb2.CallResponse:
        """Call a method of a remote component."""
        try:
            return await self._remote.call(request)
        except CancelledUpdateError:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, SHUT_DOWN)
        except EngineError as error:
            await _abort(context, grpc.StatusCode.UNKNOWN, f"call of {request.tok} returned an error: {error}")

    # --- callbacks -----------------------------------------------------------------------------------------------

    async def RegisterStackTransform(  # noqa: N802
        self, request: callback_pb2.Callback, context: _Context
    ) -> empty_pb2.Empty:
        """Apply a transform to every resource from here on."""
        del context
        self._stack_transforms.append(request)
        return empty_pb2.Empty()

    async def RegisterStackInvokeTransform(  # noqa: N802
        self, request: callback_pb2.Callback, context: _Context
    ) -> empty_pb2.Empty:
        """Apply a transform to every invoke from here on."""
        del context
        self._invoke_transforms.append(request)
        return empty_pb2.Empty()

    async def RegisterResourceHook(  # noqa: N802
        self, request: resource_pb2.RegisterResourceHookRequest, context: _Context
    ) -> empty_pb2.Empty:
        """Register a function of the program that runs before or after steps of resources."""

        async def invoke(arguments: resource_pb2.ResourceHookRequest) -> resource_pb2.ResourceHookResponse:
            response: resource_pb2.ResourceHookResponse = await self._call_back(
                request.callback, arguments, resource_pb2.ResourceHookResponse
            )
            return response

        try:
            self._deployment.executor.hooks.register(request, invoke)
        except EngineError as error:
            await _abort(context, grpc.StatusCode.ALREADY_EXISTS, str(error))
        return empty_pb2.Empty()

    async def RegisterErrorHook(  # noqa: N802
        self, request: resource_pb2.RegisterErrorHookRequest, context: _Context
    ) -> empty_pb2.Empty:
        """Register a function of the program that decides whether a failed step is tried again."""

        async def invoke(arguments: resource_pb2.ErrorHookRequest) -> resource_pb2.ErrorHookResponse:
            response: resource_pb2.ErrorHookResponse = await self._call_back(
                request.callback, arguments, resource_pb2.ErrorHookResponse
            )
            return response

        try:
            self._deployment.executor.hooks.register_error_hook(request.name, invoke)
        except EngineError as error:
            await _abort(context, grpc.StatusCode.ALREADY_EXISTS, str(error))
        return empty_pb2.Empty()

    async def RegisterPackage(  # noqa: N802
        self, request: resource_pb2.RegisterPackageRequest, context: _Context
    ) -> resource_pb2.RegisterPackageResponse:
        """Not supported."""
        await self._refuse(context, f"the parameterized package {request.name!r}")

    async def _refuse(self, context: _Context, what: str) -> NoReturn:
        error = EngineError(f"{what} is not supported by this engine", remedy="use the Pulumi CLI for it")
        self._deployment.report(error, self._service.root_urn)
        await _abort(context, grpc.StatusCode.UNIMPLEMENTED, str(error))

    async def _transform(
        self,
        callback: callback_pb2.Callback,
        request: resource_pb2.RegisterResourceRequest,
        properties: Properties,
        options: _Options,
    ) -> tuple[Properties, _Options]:
        response = await self._call_back(
            callback,
            resource_pb2.TransformRequest(
                type=request.type,
                name=request.name,
                custom=request.custom,
                parent=request.parent,
                properties=to_wire(properties),
                options=options,
            ),
            resource_pb2.TransformResponse,
        )
        if response.HasField("properties"):
            properties = hash_assets(from_wire(response.properties), self._program_dir)
        return properties, response.options if response.HasField("options") else options

    async def _call_back(self, callback: callback_pb2.Callback, request: Any, response_type: Any) -> Any:
        stub = self._callbacks.get(callback.target)
        if stub is None:
            channel = grpc.aio.insecure_channel(callback.target, options=CHANNEL_OPTIONS)
            self._channels.append(channel)
            stub = self._callbacks[callback.target] = callback_pb2_grpc.CallbacksStub(channel)
        try:
            response = await stub.Invoke(
                callback_pb2.CallbackInvokeRequest(token=callback.token, request=request.SerializeToString())
            )
        except grpc.aio.AioRpcError as error:
            raise EngineError(f"a function of the program failed: {error.details()}") from None
        return response_type.FromString(response.response)


async def _abort(context: _Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError


def _refuse_unsupported(request: resource_pb2.RegisterResourceRequest) -> None:
    """Refuse, by name, what this engine does not support."""
    what = ""
    if request.packageRef:
        what = f"the parameterized package of {request.type}"
    elif request.state_migrations:
        what = "state migrations"
    if what:
        raise EngineError(
            f"resource '{request.name}': {what} is not supported by this engine", remedy="use the Pulumi CLI for it"
        )
    if request.parent and not is_valid(request.parent):
        raise EngineError(f"resource '{request.name}': invalid parent URN: {request.parent}")


def _alias(alias: alias_pb2.Alias) -> Alias:
    if alias.WhichOneof("alias") == "urn":
        return Alias(urn=alias.urn)
    spec = alias.spec
    return Alias(
        name=spec.name,
        type=spec.type,
        stack=spec.stack,
        project=spec.project,
        parent=spec.parentUrn if spec.WhichOneof("parent") == "parentUrn" else "",
        no_parent=spec.WhichOneof("parent") == "noParent" and spec.noParent,
    )


def _timeouts(options: _Options) -> dict[str, float]:
    if not options.HasField("custom_timeouts"):
        return {}
    texts = {name: getattr(options.custom_timeouts, name) for name in ("create", "update", "delete", "read")}
    return {name: parse_duration(text) for name, text in texts.items() if text}


def parse_duration(text: str) -> float:
    """Seconds in a duration as Go writes it, such as ``1h30m``; raises :class:`EngineError` for anything else."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise EngineError(f"unable to parse customTimeout value {text!r}", remedy="write it like 90s, 10m or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _position(position: Any, program_dir: Path) -> str:
    uri = position.uri
    if not uri:
        return ""
    prefix = program_dir.resolve().as_uri()
    if not uri.startswith(prefix):
        return ""
    suffix = f"#{position.line}" + (f",{position.column}" if position.column else "")
    return f"project://{uri.removeprefix(prefix)}{suffix}"


def package_config(config: Mapping[str, str], secret_keys: Sequence[str], package: str) -> Properties:
    """The stack's settings for one provider package, without the package's name in their keys."""
    prefix = f"{package}:"
    return {
        key.removeprefix(prefix): secret(value) if key in secret_keys else value
        for key, value in config.items()
        if key.startswith(prefix)
    }
