"""A policy pack as a running program that speaks ``pulumirpc.Analyzer``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2, json_format
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from .errors import ConfigError, EngineError
from .language import SHIM
from .plugins import CHANNEL_OPTIONS, START_TIMEOUT_SECONDS
from .policypack import LoadedPack, PolicyConfig, PolicyInfo, reconcile
from .processes import spawn, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

LEVELS = {
    analyzer_pb2.ADVISORY: "advisory",
    analyzer_pb2.MANDATORY: "mandatory",
    analyzer_pb2.REMEDIATE: "remediate",
    analyzer_pb2.DISABLED: "disabled",
}
_NUMBERS = {level: number for number, level in LEVELS.items()}
_SEVERITIES = {
    analyzer_pb2.POLICY_SEVERITY_LOW: "low",
    analyzer_pb2.POLICY_SEVERITY_MEDIUM: "medium",
    analyzer_pb2.POLICY_SEVERITY_HIGH: "high",
    analyzer_pb2.POLICY_SEVERITY_CRITICAL: "critical",
}
_KINDS = {analyzer_pb2.POLICY_TYPE_RESOURCE: "resource", analyzer_pb2.POLICY_TYPE_STACK: "stack"}


@dataclass(frozen=True)
class StackSettings:
    """What a pack learns about the stack that it analyzes."""

    project: str
    stack: str
    config: Mapping[str, str]
    config_secret_keys: Sequence[str]
    dry_run: bool
    program: Path
    """The program's folder, where relative paths of assets start."""


class Analyzer:
    """A running policy pack."""

    def __init__(self, loaded: LoadedPack, settings: StackSettings, log: Callable[[str, str], None]) -> None:
        self.pack = loaded.pack
        self.name = str(loaded.pack)
        self.version = loaded.version
        self.policies: dict[str, PolicyInfo] = {}
        self._loaded = loaded
        self._settings = settings
        self._log = log
        self._printed: list[str] | None = []
        """What the pack printed before it was ready."""
        self._process: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start the pack, get its policies, and configure them.

        Raises:
            EngineError: it did not start, or its configuration is not valid; every reason is named.
        """
        settings = self._settings
        self._process = await spawn(
            [self._loaded.python, "-u", str(SHIM)], cwd=self.pack.folder, env=environment, stdin=True
        )
        port = await self._read_port(self._process)
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)
        self._stub = analyzer_pb2_grpc.AnalyzerStub(self._channel)
        stack = analyzer_pb2.AnalyzerStackConfigureRequest(
            stack=settings.stack,
            project=settings.project,
            organization="organization",
            dry_run=settings.dry_run,
            config=settings.config,
            config_secret_keys=settings.config_secret_keys,
        )
        with contextlib.suppress(_UnimplementedError):
            await self._call(self._stub.ConfigureStack, stack)
        info = await self._call(self._stub.GetAnalyzerInfo, empty_pb2.Empty())
        self.name, self.version = info.name, self.version or info.version
        printed, self._printed = self._printed or [], None
        for line in printed:
            self._log(self.name, line)
        await self._configure(info)

    async def _configure(self, info: analyzer_pb2.AnalyzerInfo) -> None:
        policies = [_policy(policy) for policy in info.policies]
        source = str(self.pack.config or f"policy pack {self.pack}")
        if not info.supportsConfig:
            if self._loaded.config:
                raise ConfigError([f"{source}: policy pack {self.pack} takes no configuration."])
            self.policies = {policy.name: policy for policy in policies}
            return
        initial = {name: _config(config) for name, config in info.initialConfig.items()}
        config = reconcile(policies, initial, self._loaded.config, source)
        self.policies = {policy.name: replace(policy, level=config[policy.name].level) for policy in policies}
        request = analyzer_pb2.ConfigureAnalyzerRequest()
        for name, one in config.items():
            request.policyConfig[name].enforcementLevel = _NUMBERS[one.level]
            request.policyConfig[name].properties.update(dict(one.properties))
        await self._call(self._stub.Configure, request)

    @property
    def remediates(self) -> bool:
        """Whether any policy has the level ``remediate``."""
        return any(policy.level == "remediate" for policy in self.policies.values())

    async def analyze(self, request: analyzer_pb2.AnalyzeRequest) -> analyzer_pb2.AnalyzeResponse:
        """Analyze a resource by its inputs."""
        response: analyzer_pb2.AnalyzeResponse = await self._call(self._stub.Analyze, request)
        return response

    async def analyze_stack(self, request: analyzer_pb2.AnalyzeStackRequest) -> analyzer_pb2.AnalyzeResponse:
        """Analyze all resources by their outputs."""
        response: analyzer_pb2.AnalyzeResponse = await self._call(self._stub.AnalyzeStack, request)
        return response

    async def remediate(self, request: analyzer_pb2.AnalyzeRequest) -> analyzer_pb2.RemediateResponse:
        """Remediate a resource's inputs."""
        response: analyzer_pb2.RemediateResponse = await self._call(self._stub.Remediate, request)
        return response

    def severity(self, diagnostic: analyzer_pb2.AnalyzeDiagnostic) -> str:
        """The severity of a violation, or else of its policy; empty if neither has one."""
        policy = self.policies.get(diagnostic.policyName)
        return _SEVERITIES.get(diagnostic.severity) or (policy.severity if policy else "")

    def results(self, kind: str, failed: Iterable[str], not_applicable: Iterable[str]) -> dict[str, list[str]]:
        """Names of the policies of a kind that passed and failed."""
        failing = set(failed)
        asked = {p.name for p in self.policies.values() if p.kind in ("", kind) and p.level != "disabled"}
        names = {"passed": sorted(asked - failing - set(not_applicable)), "failed": sorted(failing)}
        return {key: value for key, value in names.items() if value}

    async def close(self) -> None:
        """End the pack's process."""
        if self._channel is not None:
            await self._channel.close(None)
        if self._process is not None:
            await stop(self._process)
        await self._read_rest()

    async def _read_rest(self) -> None:
        """Read what an ended pack printed; its child processes may still hold the pipes open."""
        if self._readers:
            await asyncio.wait(self._readers, timeout=1.0)

    async def _read_port(self, process: asyncio.subprocess.Process) -> int:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError
        settings = {
            "policy_pack": True,
            "project": self._settings.project,
            "stack": self._settings.stack,
            "dry_run": self._settings.dry_run,
            "config": dict(self._settings.config),
            "config_secret_keys": list(self._settings.config_secret_keys),
            "program": str(self.pack.folder),
            "pwd": str(self.pack.folder),
        }
        self._follow(process.stderr)
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(settings).encode())
            await process.stdin.drain()
        process.stdin.close()
        why = "its program ended without making a PolicyPack"
        try:
            line = (await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_SECONDS)).decode().strip()
            if line:
                why = f"it printed {line!r} first, where the port of its server belongs; print to standard error"
        except TimeoutError:
            line, why = "", f"it was not ready within {START_TIMEOUT_SECONDS:.0f} s"
        if not line.isdecimal():
            await stop(process)
            await self._read_rest()
            raise EngineError(f"policy pack {self.pack} did not start: " + ("\n".join(self._printed or ()) or why))
        self._follow(process.stdout)
        return int(line)

    def _follow(self, stream: asyncio.StreamReader) -> None:
        async def follow() -> None:
            async for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                if self._printed is not None:
                    self._printed.append(line)
                elif line:
                    self._log(self.name, line)

        self._readers.append(asyncio.create_task(follow()))

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                raise _UnimplementedError(f"policy pack {self.pack} is too old for this engine") from None
            message = (error.details() or str(error.code())).removeprefix("Exception calling application: ")
            raise EngineError(f"policy pack {self.pack} failed: {message}") from None


class _UnimplementedError(EngineError):
    pass


def _policy(info: analyzer_pb2.PolicyInfo) -> PolicyInfo:
    return PolicyInfo(
        name=info.name,
        level=LEVELS[info.enforcementLevel],
        kind=_KINDS.get(info.policy_type, ""),
        severity=_SEVERITIES.get(info.severity, ""),
        schema=json_format.MessageToDict(info.configSchema.properties),
        required=list(info.configSchema.required),
    )


def _config(config: analyzer_pb2.PolicyConfig) -> PolicyConfig:
    return PolicyConfig(LEVELS[config.enforcementLevel], json_format.MessageToDict(config.properties))
