"""The engine's operations: preview, update, refresh and destroy of a stack, from its settings to its new state."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import grpc.aio
from pulumi.runtime.proto import engine_pb2_grpc, resource_pb2_grpc

from protocol.values import is_secret

from . import integrity, remote
from . import snapshot as snapshots
from .analyzers import StackSettings
from .builtin import BuiltinProvider
from .deployment import Deployment
from .errors import EngineError
from .events import Emitter, mask
from .goal import UpdateOptions
from .language import EXIT_ERROR_SHOWN, Program
from .monitor import EngineService, ResourceMonitor, package_config
from .plan import Plan, Planner, fingerprints
from .plugins import CHANNEL_OPTIONS, PluginHost
from .policies import Policies
from .registry import ProviderRegistry
from .secrets import find_passphrase, open_secrets_manager
from .snapshot import Snapshot
from .state import Codec, State
from .urn import ROOT_STACK_TYPE, make_urn
from .values import Secret, contains_secret, reveal, transform

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from .backend import Backend, Update
    from .events import Event
    from .policypack import PolicyPack
    from .project import Project
    from .secrets import SecretsManager

Kind = Literal["preview", "update", "refresh", "destroy"]


@dataclass(frozen=True)
class UpdateRequest:
    """One operation on one stack; ``dry_run`` makes a preview of it."""

    kind: Kind
    dry_run: bool
    project: Project
    stack: str
    config: dict[str, str]
    config_secret_keys: list[str]
    backend: Backend
    secrets: SecretsManager
    options: UpdateOptions = field(default_factory=UpdateOptions)
    plugin_dirs: tuple[Path, ...] = ()
    """Folders searched for ``pulumi-resource-<name>`` after Pulumi's plugin folder and ``PATH``."""
    message: str = ""
    made_of: dict[str, str] = field(default_factory=dict)
    """Where the program is from, for the history, under the CLI's names: `git.head` and the like."""
    config_record: dict[str, Any] = field(default_factory=dict)
    """The stack's configuration as history keeps it: secrets encrypted."""
    plan: Plan | None = None
    """The plan that constrains the operation."""
    plan_of_former_state: bool = False
    """Accept a plan of another state: for a preview, which changes nothing."""
    record_plan: bool = False
    """Whether to return the plan of this preview."""
    policy_packs: tuple[PolicyPack, ...] = ()
    unprotect: frozenset[str] = frozenset()
    """URNs of protected resources that may be deleted all the same; the state keeps their protection."""


@dataclass
class UpdateResult:
    """How an operation ended."""

    outcome: Literal["succeeded", "failed", "cancelled"]
    changes: dict[str, int]
    outputs: dict[str, Any]
    duration_seconds: float
    errors: list[str]
    plan: Plan | None = None
    """The plan of a successful preview with ``record_plan``."""
    unchanged: dict[str, str] | None = None
    """Of a successful preview whose update would leave the whole state as it is: the fingerprints of that state."""


class Cancellation:
    """How the user stops an operation, from any thread.

    The first :meth:`cancel` lets the running steps end and begins no new ones; the second also asks the providers to
    cancel; a third stops the programs without waiting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._listener: Callable[[int], None] | None = None

    def cancel(self) -> None:
        """Ask the operation to end, more urgently each time."""
        with self._lock:
            self._requests += 1
            requests, listener = self._requests, self._listener
        if listener is not None:
            listener(requests)

    def listen(self, listener: Callable[[int], None] | None) -> None:
        """Call ``listener`` with the number of requests, now and at each further one."""
        with self._lock:
            self._listener = listener
            requests = self._requests
        if listener is not None and requests:
            listener(requests)


def run_update(request: UpdateRequest, emit: Callable[[Event], None], cancellation: Cancellation) -> UpdateResult:
    """Run an operation; blocks until it has ended and its state is written.

    Raises :class:`EngineError` where it cannot start: a locked stack, a wrong passphrase, a missing program. Failures
    of resources are in the events and in the result.
    """
    if request.dry_run:
        return asyncio.run(_Run(request, emit, cancellation).run())
    with request.backend.lock(request.project.name, request.stack, request.kind):
        return asyncio.run(_Run(request, emit, cancellation).run())


def record_unchanged(request: UpdateRequest, preview: UpdateResult) -> UpdateResult | None:
    """Enter an update into the history whose preview found nothing to do, without running the program once more.

    None where the state is not the one that was previewed, or the preview found something.
    """
    if preview.unchanged is None:
        return None
    started = time.monotonic()
    project, stack = request.project.name, request.stack
    with request.backend.lock(project, stack, request.kind):
        checkpoint = request.backend.load(project, stack)
        if fingerprints(checkpoint) != preview.unchanged:
            return None
        update = request.backend.begin_update(
            project,
            stack,
            request.kind,
            message=request.message,
            environment=request.made_of,
            config=request.config_record,
        )
        update.finish(checkpoint, result="succeeded", changes=preview.changes)
    return replace(preview, duration_seconds=time.monotonic() - started)


class _Run:
    def __init__(self, request: UpdateRequest, emit: Callable[[Event], None], cancellation: Cancellation) -> None:
        self._request = request
        self._emitter = Emitter(emit)
        self._cancellation = cancellation
        self._started = time.monotonic()
        self._codec = Codec(request.secrets)
        self._secret_texts = {request.config[key] for key in request.config_secret_keys if request.config[key]}
        self._hard_stop: asyncio.Event | None = None
        self._planner = Planner(request.plan, record=request.record_plan)
        self._base: dict[str, Any] = {}
        self._found: dict[str, str] = {}
        """Fingerprints of the state at the start of a preview."""
        self._environment = {**os.environ, "PULUMI_PROJECT": request.project.name}
        self._policies: Policies | None = None
        self._running: asyncio.Task[None] | None = None
        """The program, until it has ended."""

    async def run(self) -> UpdateResult:
        """Run the operation, unless a policy pack does not start."""
        request = self._request
        perform = self.preview if request.dry_run else self.update
        if not request.policy_packs:
            return await perform()
        settings = StackSettings(
            project=request.project.name,
            stack=request.stack,
            config=request.config,
            config_secret_keys=request.config_secret_keys,
            dry_run=request.dry_run,
            program=request.project.program_folder,
        )
        self._policies = Policies(request.policy_packs, settings, self._emitter)
        try:
            await self._policies.start(self._environment)
            return await perform()
        finally:
            await self._policies.close()

    async def preview(self) -> UpdateResult:
        return await self._run(Snapshot(*snapshots.load(self._checkpoint(), self._codec), self._codec, None), None)

    async def update(self) -> UpdateResult:
        request = self._request
        checkpoint = self._checkpoint()
        update = request.backend.begin_update(
            request.project.name,
            request.stack,
            request.kind,
            message=request.message,
            environment=request.made_of,
            config=request.config_record,
        )
        await asyncio.wrap_future(update.append(snapshots.header(request.secrets)))
        snapshot = Snapshot(*snapshots.load(checkpoint, self._codec), self._codec, update)
        return await self._run(snapshot, update)

    def _checkpoint(self) -> dict[str, Any]:
        """The checkpoint, with its secrets under the stack's key: an imported state may use another."""
        request = self._request
        checkpoint = request.backend.load(request.project.name, request.stack)
        if request.dry_run:
            self._found = fingerprints(checkpoint)
        records = checkpoint["deployment"].get("resources") or []
        # Only their order is repaired: earlier versions wrote children before their parents after a refresh.
        integrity.check_read([records[index] for index in integrity.in_order(records)], request.stack)
        if request.plan is not None:
            request.plan.check_base(request.project.name, request.stack, checkpoint, moved=request.plan_of_former_state)
        if request.record_plan:
            self._base = {
                "project": request.project.name,
                "stack": request.stack,
                "refresh": request.options.refresh,
                "resources": self._found or fingerprints(checkpoint),
            }
        foreign = self._secrets_of(checkpoint)
        if foreign is request.secrets:
            return checkpoint

        def rekey(part: Any) -> Any:
            if is_secret(part) and "ciphertext" in part:
                return part | {"ciphertext": request.secrets.encrypt(foreign.decrypt(part["ciphertext"]))}
            return part

        rekeyed: dict[str, Any] = transform(checkpoint, rekey)
        rekeyed["deployment"]["secrets_providers"] = {"type": request.secrets.type, "state": request.secrets.state()}
        if not request.dry_run:
            request.backend.save(request.project.name, request.stack, rekeyed, check=False)
        return rekeyed

    async def _run(self, snapshot: Snapshot, update: Update | None) -> UpdateResult:
        request = self._request
        program = Program(request.project)
        environment = self._environment
        host = PluginHost(
            root=request.project.root,
            program=program.folder,
            python=program.python,
            plugin_paths=request.project.provider_paths,
            plugin_dirs=request.plugin_dirs,
            environment=environment,
            log=self._log_plugin,
        )
        registry = ProviderRegistry(host, BuiltinProvider(self._resources_of), dry_run=request.dry_run)
        deployment = Deployment(
            project=request.project.name,
            stack=request.stack,
            snapshot=snapshot,
            registry=registry,
            emitter=self._emitter,
            options=request.options,
            dry_run=request.dry_run,
            package_config=lambda package: package_config(request.config, request.config_secret_keys, package),
            known_secrets=self._secret_texts,
            planner=self._planner,
            policies=self._policies,
            unprotected=request.unprotect,
        )
        shown = {
            key: "[secret]" if key in request.config_secret_keys else value for key, value in request.config.items()
        }
        self._emitter.emit("preludeEvent", {"config": shown})
        loop = asyncio.get_running_loop()
        self._hard_stop = asyncio.Event()

        def on_cancel(requests: int) -> None:
            loop.call_soon_threadsafe(self._cancel, requests, deployment, host)

        self._cancellation.listen(on_cancel)
        service = EngineService(self._emitter)
        server = grpc.aio.server(options=CHANNEL_OPTIONS)
        engine_pb2_grpc.add_EngineServicer_to_server(service, server)
        address = host.engine_address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        settings = remote.Settings(address, request.config, request.config_secret_keys)
        monitor = ResourceMonitor(deployment, service, program.folder, settings)
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
        await server.start()
        try:
            if request.kind in {"preview", "update"}:
                await program.start(environment)
            registry.prestart(snapshot.resources)
            work = asyncio.create_task(self._work(deployment, program, monitor, service, address))
            stop = asyncio.create_task(self._hard_stop.wait())
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            self._cancellation.listen(None)
            await program.stop()
            await monitor.close()
            await server.stop(None)
            records = host.records()
            await host.close()
            result = self._finish(deployment, snapshot, update, records)
        return result

    async def _work(
        self,
        deployment: Deployment,
        program: Program,
        monitor: ResourceMonitor,
        service: EngineService,
        address: str,
    ) -> None:
        try:
            await self._operate(deployment, monitor, lambda: self._run_program(program, deployment, service, address))
        except EngineError as error:
            deployment.report(error)
        except asyncio.CancelledError:
            if self._running is not None:
                self._running.cancel()
            raise
        finally:
            monitor.let_program_end()
            if self._running is not None:
                await self._running
            deployment.errored |= deployment.executor.hooks.failed

    async def _operate(
        self, deployment: Deployment, monitor: ResourceMonitor, run_program: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        kind = self._request.kind
        if kind == "destroy":
            deployment.check_delete_hooks()
        await deployment.recovery.resolve()
        if kind == "refresh":
            deployment.check_targets()
            await deployment.refresh()
            await deployment.recovery.forget()
            return
        if self._request.options.refresh:
            await deployment.refresh()
            if deployment.errored:
                return
        deployment.check_replace_targets()
        if kind in {"preview", "update"}:
            self._running = asyncio.create_task(run_program())
            registered_all = asyncio.create_task(monitor.registered_all.wait())
            await asyncio.wait({self._running, registered_all}, return_when=asyncio.FIRST_COMPLETED)
            registered_all.cancel()
            if deployment.cancelled:
                return
        deployment.check_targets()
        if not deployment.errored or kind == "destroy":
            await deployment.delete_unregistered()
        if monitor.stack_outputs is not None:
            await deployment.register_outputs(*monitor.stack_outputs)
        if kind in {"preview", "update"}:
            await deployment.analyze_stack()
        if not deployment.errored and not deployment.cancelled:
            deployment.finish_plan()

    async def _run_program(
        self,
        program: Program,
        deployment: Deployment,
        service: EngineService,
        address: str,
    ) -> None:
        request = self._request
        stack_urn = make_urn(request.stack, request.project.name, "", ROOT_STACK_TYPE, self._root_name)
        settings = {
            "address": address,
            "project": request.project.name,
            "stack": request.stack,
            "root": str(request.project.root),
            "parallel": request.options.parallel,
            "dry_run": request.dry_run,
            "config": request.config,
            "config_secret_keys": request.config_secret_keys,
            "policy_pack": False,
        }

        def show(severity: str, line: str) -> None:
            if not deployment.cancelled:
                self._emitter.diagnostic(severity, mask(line, self._secret_texts), service.root_urn or stack_urn)

        status = await program.run(settings, show)
        if status and not deployment.cancelled:
            deployment.errored = True
            if status != EXIT_ERROR_SHOWN:
                message = f"an unhandled error occurred: Program exited with non-zero exit code: {status}"
                self._emitter.diagnostic("error", message, service.root_urn or stack_urn)

    @property
    def _root_name(self) -> str:
        return f"{self._request.project.name}-{self._request.stack}"

    def _cancel(self, requests: int, deployment: Deployment, host: PluginHost) -> None:
        deployment.cancelled = True
        if requests == 2:
            self._cancel_task = asyncio.ensure_future(host.cancel())
        elif requests > 2 and self._hard_stop is not None:
            self._hard_stop.set()

    def _log_plugin(self, package: str, line: str) -> None:
        self._emitter.diagnostic("info#err", f"{package}: {mask(line, self._secret_texts)}")

    def _resources_of(self, name: str) -> list[State]:
        """The resources of a stack, named ``stack`` or ``organization/project/stack``."""
        parts = name.split("/")
        stack = parts[-1]
        project = parts[-2] if len(parts) > 1 else self._request.project.name
        if project == "organization":
            project = self._request.project.name
        checkpoint = self._request.backend.load(project, stack)
        resources, _ = snapshots.load(checkpoint, Codec(self._secrets_of(checkpoint)))
        return [state for state in resources if not state.delete]

    def _secrets_of(self, checkpoint: dict[str, Any]) -> SecretsManager:
        recorded = checkpoint["deployment"].get("secrets_providers") or {}
        if not recorded or recorded.get("state") == self._request.secrets.state():
            return self._request.secrets
        return open_secrets_manager(recorded, find_passphrase())

    def _finish(
        self, deployment: Deployment, snapshot: Snapshot, update: Update | None, plugins: list[dict[str, Any]]
    ) -> UpdateResult:
        request = self._request
        verb = "preview" if request.dry_run else "update"
        outcome: Literal["succeeded", "failed", "cancelled"] = "succeeded"
        if deployment.errored:
            outcome = "failed"
            self._emitter.diagnostic("error", f"{verb} failed")
        elif deployment.cancelled:
            outcome = "cancelled"
            self._emitter.diagnostic("error", f"{verb} canceled")
        unexpected = {op: count for op, count in deployment.executor.changes.items() if op not in {"same", "read"}}
        if request.options.expect_no_changes and outcome == "succeeded" and unexpected:
            outcome = "failed"
            self._emitter.diagnostic(
                "error",
                "no changes were expected but changes were " + ("proposed" if request.dry_run else "made"),
            )
        duration = time.monotonic() - self._started
        if update is not None:
            update.finish(
                snapshot.checkpoint(request.secrets, plugins),
                result="succeeded" if outcome == "succeeded" else "failed",
                changes=deployment.executor.changes,
            )
        self._emitter.emit(
            "summaryEvent",
            {
                "maybeCorrupt": False,
                "durationSeconds": math.ceil(duration),
                "resourceChanges": deployment.executor.changes,
                "PolicyPacks": self._policies.versions if self._policies else {},
                "isPreview": request.dry_run,
                "result": outcome if outcome == "succeeded" else "failed",
            },
        )
        if deployment.cancelled and not deployment.errored:
            self._emitter.emit("cancelEvent", {})
        outputs = next((state.outputs for state in snapshot.resources if state.type == ROOT_STACK_TYPE), {})
        return UpdateResult(
            outcome=outcome,
            changes=deployment.executor.changes,
            outputs={key: Secret(reveal(value)) if contains_secret(value) else value for key, value in outputs.items()},
            duration_seconds=duration,
            errors=self._emitter.errors,
            plan=Plan(self._planner.recorded, request.config_record, self._base)
            if request.record_plan and outcome == "succeeded"
            else None,
            unchanged=self._found
            if request.dry_run and outcome == "succeeded" and not unexpected and not snapshot.changed
            else None,
        )
