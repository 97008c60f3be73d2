"""Providers as resources: which process serves which reference, and how a change of a provider is handled."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Any

from protocol.signatures import UNKNOWN

from .builtin import PACKAGE as BUILTIN_PACKAGE
from .builtin import BuiltinProvider
from .diff import Diff
from .errors import EngineError
from .urn import name_of, package_of, split_reference
from .values import contains_unknown, equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from protocol.values import Properties

    from .plugins import PluginHost, Provider
    from .state import State

INTERNAL = "__internal"
_OWN_KEYS = frozenset({"version", "pluginDownloadURL", "pluginChecksums", INTERNAL})


def default_name(version: str) -> str:
    """The logical name of a package's default provider."""
    return "default" if not version else "default_" + re.sub(r"[^0-9A-Za-z]", "_", version)


class ProviderRegistry:
    """The providers that this update has started, by reference (``<urn>::<id>``)."""

    def __init__(self, host: PluginHost, builtin: BuiltinProvider, *, dry_run: bool) -> None:
        self._host = host
        self._builtin = builtin
        self._dry_run = dry_run
        self._started: dict[str, Provider] = {}
        self._ready: dict[str, Provider | BuiltinProvider] = {}
        self._loading: dict[str, asyncio.Task[Provider | BuiltinProvider]] = {}

    def prestart(self, states: Iterable[State]) -> None:
        """Start the plugins of the providers in the state."""
        for state in states:
            if state.is_provider and not state.delete and package_of(state.type) != BUILTIN_PACKAGE:
                self._host.prestart(package_of(state.type), _version(state.inputs))

    def get(self, reference: str) -> Provider | BuiltinProvider:
        """The provider behind a reference; raises :class:`EngineError` for one that was not registered."""
        provider = self._ready.get(reference)
        if provider is None:
            raise EngineError(f"unknown provider {reference!r}: it is not registered in this update")
        return provider

    async def check(self, urn: str, olds: Properties, news: Properties) -> tuple[Properties, list[tuple[str, str]]]:
        """Validate a provider's configuration by the provider's own ``CheckConfig``."""
        if package_of(_type(urn)) == BUILTIN_PACKAGE:
            return news, []
        provider = await self._start(urn, news)
        inputs, failures = await provider.check_config(urn, _config(olds), _config(news))
        return {**inputs, **{key: value for key, value in news.items() if key in _OWN_KEYS}}, failures

    async def diff(self, urn: str, old: State, news: Properties) -> Diff:
        """Compare two configurations; a change of version alone updates the provider."""
        if package_of(_type(urn)) == BUILTIN_PACKAGE:
            return Diff(changed=False)
        provider = await self._start(urn, news)
        diff = await provider.diff_config(urn, _config(old.inputs), _config(old.outputs), _config(news))
        if not diff.known:
            diff = Diff(changed=not is_same_configuration(old.inputs, news))
        # The CLI writes some empty keys of its own.
        if any((old.inputs.get(key) or None) != (news.get(key) or None) for key in _OWN_KEYS):
            diff.changed = True
        return diff

    async def create(self, urn: str, inputs: Properties) -> str:
        """Configure a new provider and return its ID, which is unknown in a preview."""
        id_ = UNKNOWN if self._dry_run else str(uuid.uuid4())
        await self.serve(urn, id_, inputs)
        return id_

    async def serve(self, urn: str, id_: str, inputs: Properties) -> None:
        """Serve ``<urn>::<id>`` by a provider with this configuration."""
        if package_of(_type(urn)) == BUILTIN_PACKAGE:
            self._ready[f"{urn}::{id_}"] = self._builtin
            return
        provider = await self._start(urn, inputs)
        if provider.configured:
            # It serves another reference already: an old and a new configuration may be needed at once.
            self._started.pop(urn)
            provider = await self._start(urn, inputs)
        config = _config(inputs)
        if not contains_unknown(config):
            await provider.configure(urn, id_, config)
        self._ready[f"{urn}::{id_}"] = provider

    async def ensure(self, reference: str, find: Callable[[str], State | None]) -> Provider | BuiltinProvider:
        """The provider behind a reference, started from its recorded state where this update has not registered it."""
        if reference in self._ready:
            return self._ready[reference]
        if reference not in self._loading:
            self._loading[reference] = asyncio.create_task(self._load(reference, find))
        return await asyncio.shield(self._loading[reference])

    async def _load(self, reference: str, find: Callable[[str], State | None]) -> Provider | BuiltinProvider:
        urn, id_ = split_reference(reference)
        state = find(reference)
        if state is None:
            raise EngineError(
                f"the state has no provider {name_of(urn)!r} ({reference}), which resources of the stack refer to",
                remedy="restore a backup of the state with `lab state import`",
            )
        await self.serve(urn, id_, state.inputs)
        return self._ready[reference]

    async def _start(self, urn: str, inputs: Mapping[str, Any]) -> Provider:
        provider = self._started.get(urn)
        if provider is None:
            provider = await self._host.start(package_of(_type(urn)), _version(inputs))
            self._started[urn] = provider
        return provider


def _type(urn: str) -> str:
    return urn.split("::", 3)[2].rsplit("$", 1)[-1]


def _version(inputs: Mapping[str, Any]) -> str:
    version = inputs.get("version")
    return version if isinstance(version, str) else ""


def is_same_configuration(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two providers with these inputs are configured alike; their versions may differ."""
    return equal(_config(one), _config(other))


def _config(inputs: Mapping[str, Any]) -> Properties:
    return {key: value for key, value in inputs.items() if key not in _OWN_KEYS}
