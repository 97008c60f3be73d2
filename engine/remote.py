"""Remote components: the provider of their package constructs them and answers calls of their methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi.runtime.proto import provider_pb2, resource_pb2

from protocol.values import Properties, to_wire

from .deployment import CancelledUpdateError
from .errors import EngineError
from .plugins import Provider
from .urn import is_provider_type, split_reference
from .values import convert_properties, from_wire, lower_outputs, reveal_properties, without_references

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf import struct_pb2

    from .deployment import Deployment

SHUT_DOWN = "resource monitor shut down"
"""What a client of the monitor hears once the update has failed or was cancelled."""
_SELF = "__self__"


@dataclass(frozen=True)
class Settings:
    """What the processes of providers need to register resources as the program does."""

    monitor_address: str
    config: Mapping[str, str]
    """Values in plain text by full key, such as ``aws:region``."""
    secret_keys: Sequence[str]


class RemoteComponents:
    """Forwards registrations of remote components, and calls of methods, to providers."""

    def __init__(self, deployment: Deployment, settings: Settings) -> None:
        self._deployment = deployment
        self._common: dict[str, Any] = {
            "project": deployment.project,
            "stack": deployment.stack,
            "organization": "organization",
            "config": dict(settings.config),
            "configSecretKeys": list(settings.secret_keys),
            "dryRun": deployment.dry_run,
            "parallel": deployment.options.parallel,
            "monitorEndpoint": settings.monitor_address,
            "accepts_output_values": True,
        }

    async def construct(
        self,
        request: resource_pb2.RegisterResourceRequest,
        options: resource_pb2.TransformResourceOptions,
        inputs: Properties,
        dependencies: Mapping[str, set[str]],
    ) -> resource_pb2.RegisterResourceResponse:
        """Have a component constructed; its provider registers it and its children.

        ``dependencies`` are the URNs that each input depends on.

        Raises:
            EngineError: the provider could not construct it.
            CancelledUpdateError: a resource below it failed, which has been reported.
        """
        reference = await self._deployment.provider_reference(
            options.provider, request.type, options.version, options.plugin_download_url
        )
        provider = self._provider(reference)
        if not provider.configured:
            raise EngineError(f"resource '{request.name}': the configuration of its provider is not known yet")
        construct = provider_pb2.ConstructRequest(
            **self._common,
            type=request.type,
            name=request.name,
            parent=request.parent,
            inputDependencies={
                key: provider_pb2.ConstructRequest.PropertyDependencies(urns=sorted(urns))
                for key, urns in dependencies.items()
            },
            providers=dict(options.providers),
            dependencies=options.depends_on,
            protect=options.protect,
            aliases=options.aliases,
            additionalSecretOutputs=options.additional_secret_outputs,
            deletedWith=options.deleted_with,
            ignoreChanges=options.ignore_changes,
            replaceOnChanges=options.replace_on_changes,
            retainOnDelete=options.retain_on_delete,
            replace_with=options.replace_with,
        )
        _copy_optional(options, construct)
        try:
            response = await provider.construct(construct, inputs)
        except EngineError as error:
            if SHUT_DOWN in str(error) and self._deployment.errored:
                raise CancelledUpdateError from None
            raise EngineError(f"resource '{request.name}': {error}", remedy=error.remedy) from None
        found = {key: set(value.urns) for key, value in response.stateDependencies.items()}
        outputs: Properties = {}
        for key, value in from_wire(response.state).items():
            outputs[key] = lower_outputs(value, found.setdefault(key, set()))
        return resource_pb2.RegisterResourceResponse(
            urn=response.urn,
            object=outputs_for(request, outputs),
            result=resource_pb2.SUCCESS,
            propertyDependencies={
                key: resource_pb2.RegisterResourceResponse.PropertyDependencies(urns=sorted(urns))
                for key, urns in found.items()
            },
        )

    async def call(self, request: resource_pb2.ResourceCallRequest) -> provider_pb2.CallResponse:
        """Call a method of a component or of a provider.

        Raises:
            EngineError: there is no such resource or method, or it failed.
        """
        arguments = from_wire(request.args)
        receiver = lower_outputs(arguments.get(_SELF)) or {}
        if is_provider_type(request.tok.rpartition("/")[0]):
            reference = f"{receiver.get('urn', '')}::{receiver.get('id', '')}"
        else:
            state = self._deployment.executor.news.get(receiver.get("urn", ""))
            reference = request.provider or (state.provider if state else "")
        reference = await self._deployment.provider_reference(
            reference, request.tok, request.version, request.pluginDownloadURL
        )
        provider = self._provider(reference)
        if not provider.configured:
            return provider_pb2.CallResponse()
        dependencies = {key: set(value.urns) for key, value in request.argDependencies.items()}
        for key, value in arguments.items():
            lower_outputs(value, dependencies.setdefault(key, set()))
        call = provider_pb2.CallRequest(
            **self._common,
            tok=request.tok,
            argDependencies={
                key: provider_pb2.CallRequest.ArgumentDependencies(urns=sorted(urns))
                for key, urns in dependencies.items()
            },
        )
        return await provider.call(call, arguments)

    def _provider(self, reference: str) -> Provider:
        if self._deployment.has_failed(split_reference(reference)[0]):
            raise CancelledUpdateError
        provider = self._deployment.registry.get(reference)
        if not isinstance(provider, Provider):
            raise EngineError("the engine's own provider has no components")
        return provider


def outputs_for(
    request: resource_pb2.RegisterResourceRequest | resource_pb2.ReadResourceRequest, outputs: Properties
) -> struct_pb2.Struct:
    """A resource's outputs in the form that the SDK that asked takes."""
    shown = outputs if request.acceptSecrets else reveal_properties(outputs)
    return to_wire(shown if request.acceptResources else convert_properties(shown, without_references))


def _copy_optional(options: resource_pb2.TransformResourceOptions, construct: provider_pb2.ConstructRequest) -> None:
    """Copy the options whose absence means something."""
    if options.HasField("delete_before_replace"):
        construct.deleteBeforeReplace = options.delete_before_replace
    if options.HasField("replacement_trigger"):
        construct.replacement_trigger.CopyFrom(options.replacement_trigger)
    if options.HasField("custom_timeouts"):
        given = options.custom_timeouts
        construct.customTimeouts.CopyFrom(
            provider_pb2.ConstructRequest.CustomTimeouts(
                create=given.create, update=given.update, delete=given.delete, read=given.read
            )
        )
    if options.HasField("hooks"):
        for field, names in options.hooks.ListFields():
            getattr(construct.resource_hooks, field.name).extend(names)
