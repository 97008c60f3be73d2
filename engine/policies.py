"""Applies policy packs to the resources of an operation.

The order is the CLI's (``pkg/resource/deploy`` in pulumi/pulumi): before steps are generated for a resource, packs
may remediate its inputs, then all of them analyze it; after all steps, they analyze the stack.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi.runtime.proto import analyzer_pb2

from protocol.signatures import UNKNOWN
from protocol.values import Properties, is_secret, secret, signature, to_wire

from .analyzers import LEVELS, Analyzer, StackSettings
from .errors import ConfigError, EngineError
from .events import mask
from .policypack import LoadedPack, PolicyPack, load
from .urn import ROOT_STACK_TYPE, make_urn, name_of
from .values import convert_properties, from_wire, hash_assets, propagate_secrets, redact, reveal, without_references

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .events import Emitter
    from .goal import Goal
    from .state import State

SHORTEST_LINE = 8
"""Characters: lines of a secret text that are at least this long are masked one by one, too."""
SHORTEST_NUMBER = 4
"""Digits: shorter secret numbers are not masked, as they occur in every text."""


class PolicyViolationError(Exception):
    """A mandatory policy forbids a resource; the violation has been reported."""


@dataclass(frozen=True)
class Violation:
    """A policy's violation by a resource or by the stack."""

    policy: str
    level: str
    message: str
    severity: str = ""


class Policies:
    """The policy packs of one preview or update."""

    def __init__(self, packs: Sequence[PolicyPack], settings: StackSettings, emitter: Emitter) -> None:
        self._packs = packs
        self._settings = settings
        self._emit = emitter
        self._running: list[Analyzer] = []
        self._secrets = {settings.config[key] for key in settings.config_secret_keys} - {""}
        """Texts to mask: packs see secrets in plain text, and may repeat them."""
        self.violated = False
        """Whether a mandatory policy was violated."""

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start the packs.

        Raises:
            ConfigError: with every reason why one cannot run.
        """
        loaded: list[LoadedPack] = []
        problems: list[str] = []
        for pack in self._packs:
            try:
                loaded.append(load(pack))
            except ConfigError as error:
                problems += error.problems
        self._running = [Analyzer(pack, self._settings, self._log) for pack in loaded]
        starts = (analyzer.start(environment) for analyzer in self._running)
        for result in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(result, EngineError):
                problems.append(str(result))
            elif isinstance(result, BaseException):
                raise result
        if problems:
            raise ConfigError([self._mask(problem) for problem in problems])

    async def close(self) -> None:
        """Stop the packs."""
        await asyncio.gather(*(analyzer.close() for analyzer in self._running))

    @property
    def versions(self) -> dict[str, str]:
        """The packs and their versions, as the summary of an operation lists them."""
        return {f"{analyzer.name}|local|{analyzer.pack}": analyzer.version for analyzer in self._running}

    async def remediate(self, state: State, goal: Goal, provider: State | None, *, silent: bool = False) -> None:
        """Let the packs remediate the inputs of a resource, one after the other; ``silent`` emits no events."""
        for analyzer in self._running:
            if not analyzer.remediates:
                continue
            self._secrets.update(_secret_texts(state.inputs))
            response = await analyzer.remediate(_request(state, goal, provider, state.inputs))
            for remediation in response.remediations:
                before, after = state.inputs, state.inputs
                if not remediation.diagnostic:
                    after = state.inputs = self._decode(remediation, before)
                if silent:
                    continue
                if remediation.diagnostic:
                    violation = Violation(remediation.policyName, "advisory", remediation.diagnostic)
                    self._report(analyzer, state.urn, violation)
                else:
                    shown = {"before": redact(before), "after": redact(after)}
                    self._event("policyRemediationEvent", analyzer, state.urn, remediation.policyName, shown)
            if not silent:
                self._summarize(analyzer, "Remediate", response, state.urn)

    def _decode(self, remediation: analyzer_pb2.Remediation, before: Properties) -> Properties:
        """The inputs that a policy returned, with secrets marked again: it got them in plain text."""

        def keep_secret(value: Any) -> Any:
            if signature(value) is not None:
                return value
            if isinstance(value, dict):
                return {key: keep_secret(item) for key, item in value.items()}
            if isinstance(value, list):
                return [keep_secret(item) for item in value]
            return secret(value) if isinstance(value, str) and self._contains_secret(value) else value

        inputs: Properties = hash_assets(from_wire(remediation.properties), self._settings.program)
        return convert_properties(propagate_secrets(inputs, before), keep_secret)

    def _contains_secret(self, text: str) -> bool:
        """Whether a text is a secret, or contains one that is too long to be there by chance."""
        return text in self._secrets or any(each in text for each in self._secrets if len(each) >= SHORTEST_LINE)

    async def analyze(self, state: State, goal: Goal, provider: State | None) -> None:
        """Analyze a resource by its inputs, before its steps.

        Raises:
            PolicyViolationError: a mandatory policy forbids it; in a preview, :attr:`violated` alone says so.
        """
        if not self._running:
            return
        self._secrets.update(_secret_texts(state.inputs))
        request = _request(state, goal, provider, _shown(state.inputs))
        responses = await asyncio.gather(*(analyzer.analyze(request) for analyzer in self._running))
        forbidden = False
        for analyzer, response in zip(self._running, responses, strict=True):
            for diagnostic in response.diagnostics:
                forbidden |= self._diagnose(analyzer, diagnostic, state.urn)
            self._summarize(analyzer, "Analyze", response, state.urn)
        if forbidden and not self._settings.dry_run:
            raise PolicyViolationError

    async def analyze_stack(
        self, states: Sequence[State], goals: Mapping[str, Goal], find_provider: Callable[[str], State | None]
    ) -> None:
        """Analyze the stack by the outputs of its resources; sets :attr:`violated`."""
        if not self._running:
            return
        for state in states:
            self._secrets.update(_secret_texts(state.outputs))
        request = analyzer_pb2.AnalyzeStackRequest(
            resources=[_stack_resource(state, goals.get(state.urn), find_provider) for state in states]
        )
        settings = self._settings
        root = make_urn(settings.stack, settings.project, "", ROOT_STACK_TYPE, f"{settings.project}-{settings.stack}")
        known = {state.urn for state in states}
        responses = await asyncio.gather(*(analyzer.analyze_stack(request) for analyzer in self._running))
        for analyzer, response in zip(self._running, responses, strict=True):
            for diagnostic in response.diagnostics:
                self._diagnose(analyzer, diagnostic, diagnostic.urn if diagnostic.urn in known else root)
            self._summarize(analyzer, "AnalyzeStack", response)

    def _diagnose(self, analyzer: Analyzer, diagnostic: analyzer_pb2.AnalyzeDiagnostic, urn: str) -> bool:
        """Report a violation; returns whether it is mandatory."""
        level = LEVELS[diagnostic.enforcementLevel]
        if level == "remediate":
            # The remediation did not help, or there is none, as for a stack.
            level = "mandatory"
        if level == "mandatory":
            self.violated = True
            self._emit.errors.append(f"{diagnostic.policyName}: {self._mask(diagnostic.message)}")
        severity = analyzer.severity(diagnostic)
        self._report(analyzer, urn, Violation(diagnostic.policyName, level, diagnostic.message, severity))
        return level == "mandatory"

    def _report(self, analyzer: Analyzer, urn: str, violation: Violation) -> None:
        payload = {"message": self._mask(violation.message) + "\n", "enforcementLevel": violation.level}
        if violation.severity:
            payload["severity"] = violation.severity
        self._event("policyEvent", analyzer, urn, violation.policy, payload)

    def _event(self, kind: str, analyzer: Analyzer, urn: str, policy: str, payload: dict[str, Any]) -> None:
        head = {"resourceUrn": urn, "color": "never", "policyName": policy}
        self._emit.emit(kind, head | _labels(analyzer) | payload)

    def _summarize(self, analyzer: Analyzer, call: str, response: Any, urn: str = "") -> None:
        """Emit the names of the policies that passed and failed in the response to ``call``."""
        found = response.remediations if call == "Remediate" else response.diagnostics
        kind = "stack" if call == "AnalyzeStack" else "resource"
        results = analyzer.results(
            kind, [each.policyName for each in found], [each.policy_name for each in response.not_applicable]
        )
        head = {"resourceUrn": urn} if urn else {}
        self._emit.emit(f"policy{call}SummaryEvent", head | _labels(analyzer) | results)

    def _log(self, name: str, line: str) -> None:
        self._emit.diagnostic("info#err", f"{name}: {self._mask(line)}")

    def _mask(self, text: str) -> str:
        return mask(text, sorted(self._secrets, key=len, reverse=True))


def _labels(analyzer: Analyzer) -> dict[str, Any]:
    version = analyzer.version
    return {"policyPackName": analyzer.name, "policyPackVersion": version, "policyPackVersionTag": version}


def _request(
    state: State, goal: Goal | None, provider: State | None, properties: Mapping[str, Any]
) -> analyzer_pb2.AnalyzeRequest:
    request = analyzer_pb2.AnalyzeRequest(
        type=state.type,
        properties=to_wire(convert_properties(properties, without_references)),
        urn=state.urn,
        name=name_of(state.urn),
        options=_options(state, goal),
    )
    if provider is not None:
        request.provider.CopyFrom(_provider(provider))
    return request


def _stack_resource(
    state: State, goal: Goal | None, find_provider: Callable[[str], State | None]
) -> analyzer_pb2.AnalyzerResource:
    provider = find_provider(state.provider) if state.provider else None
    one = _request(state, goal, provider, _shown(state.outputs))
    return analyzer_pb2.AnalyzerResource(
        type=one.type,
        properties=one.properties,
        urn=one.urn,
        name=one.name,
        options=one.options,
        provider=one.provider if one.HasField("provider") else None,
        parent=state.parent,
        dependencies=state.dependencies,
        propertyDependencies={
            key: analyzer_pb2.AnalyzerPropertyDependencies(urns=urns)
            for key, urns in state.property_dependencies.items()
            if urns
        },
    )


def _options(state: State, goal: Goal | None) -> analyzer_pb2.AnalyzerResourceOptions:
    delete_first = goal.delete_before_replace if goal is not None else None
    timeouts = {name: state.custom_timeouts.get(name, 0) for name in ("create", "update", "delete", "read")}
    return analyzer_pb2.AnalyzerResourceOptions(
        protect=state.protect,
        ignoreChanges=state.ignore_changes,
        deleteBeforeReplace=bool(delete_first),
        deleteBeforeReplaceDefined=delete_first is not None,
        additionalSecretOutputs=state.additional_secret_outputs,
        aliases=state.aliases,
        customTimeouts=analyzer_pb2.AnalyzerResourceOptions.CustomTimeouts(**timeouts),
        parent=state.parent,
    )


def _provider(state: State) -> analyzer_pb2.AnalyzerProviderResource:
    return analyzer_pb2.AnalyzerProviderResource(
        type=state.type,
        properties=to_wire(convert_properties(_shown(state.inputs), without_references)),
        urn=state.urn,
        name=name_of(state.urn),
    )


def _shown(properties: Mapping[str, Any]) -> Properties:
    """The properties as packs see them: without the engine's own, at every depth."""

    def without_internal(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_internal(item) for key, item in value.items() if not key.startswith("__")}
        if isinstance(value, list):
            return [without_internal(item) for item in value]
        return value

    shown: Properties = without_internal(dict(properties))
    return shown


def _secret_texts(value: Any, *, inside: bool = False) -> Iterator[str]:
    """Every text and number that is secret, and long lines of secret texts; ``inside`` a secret, all of them."""
    if is_secret(value):
        yield from _secret_texts(reveal(value), inside=True)
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _secret_texts(item, inside=inside)
    elif inside and isinstance(value, str) and value != UNKNOWN:
        yield from {value, *(line for line in value.splitlines() if len(line) >= SHORTEST_LINE)} - {""}
    elif inside and isinstance(value, int | float) and len(str(value)) >= SHORTEST_NUMBER:
        yield str(value)
