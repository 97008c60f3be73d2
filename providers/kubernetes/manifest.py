"""The resource type that serves every kind, custom ones and Patches too, by server-side apply."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any, Final

import kubeyaml
from providers import schema
from providers.framework import Function, NotYetError, Operation, ProviderError, ResourceType, Timeouts
from providers.kubernetes import objects, ownership, readiness, replacing
from providers.kubernetes.client import Cluster, ClusterError, UnknownKindError, UnreachableError
from providers.kubernetes.objects import AUTONAMED, INPUTS, MANAGER, Identity, annotations_of, flagged, get, to_object
from providers.schema import CheckFailure, Difference, Field, List
from providers.values import UNKNOWN, Unknown, contains, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from providers.kubernetes.objects import Object
    from providers.schema import Autoname
    from providers.values import Properties

ORDER_SECONDS: Final = 30.0
"""How long a create waits for its namespace or kind, which may be created at the same time."""
PROPAGATION: Final = {"orphan": "Orphan", "background": "Background"}
OWNERSHIP_ATTEMPTS: Final = 5
ALLOCATED: Final = ("clusterIP", "clusterIPs", "healthCheckNodePort")
"""Values of a Service that a dry run allocates differently."""


class Manifest(ResourceType[Cluster]):
    """Any object of any kind, by ``token`` and the inputs' ``apiVersion`` and ``kind``."""

    fields = ()
    import_id = "<namespace>/<name>, or <name>"

    def __init__(self, token: str) -> None:
        self.token = token

    def _target(self, client: Cluster, properties: Properties) -> Identity:
        """The object that inputs or outputs are of. Raises UnknownKindError."""
        api_version, kind, _ = objects.parse_token(self.token, properties)
        metadata = plain(properties)["metadata"]
        return client.identify(api_version, kind, metadata.get("namespace"), metadata["name"])

    def _is_patch(self, properties: Properties) -> bool:
        return objects.parse_token(self.token, properties)[2]

    # Check and Diff.

    def check_inputs(
        self, client: Cluster | None, olds: Properties, news: Properties, naming: Autoname, failures: list[CheckFailure]
    ) -> Properties:
        inputs: Properties = objects.without_nulls(
            {key: plain(item) for key, item in news.items() if not key.startswith("__")}
        )
        api_version, kind, patch = objects.parse_token(self.token, inputs)
        inputs |= {"apiVersion": api_version, "kind": kind}
        if kind.endswith("List") and "items" in inputs:
            failures.append(
                CheckFailure("items", f"cannot be made as one {kind}: make each of them a resource of its own")
            )
        metadata = inputs.setdefault("metadata", {})
        if isinstance(metadata, dict):
            for key in objects.READ_ONLY:
                metadata.pop(key, None)
            self._name(metadata, plain(olds), naming, failures, patch=patch)
            self._place(client, api_version, kind, metadata)
        if isinstance(expression := annotations_of(inputs).get("pulumi.com/waitFor"), str):
            try:
                readiness.conditions(expression)
            except ValueError as error:
                failures.append(CheckFailure('metadata.annotations["pulumi.com/waitFor"]', str(error)))
        return objects.mark(inputs, news)

    def _name(
        self, metadata: Object, olds: Properties, naming: Autoname, failures: list[CheckFailure], *, patch: bool
    ) -> None:
        if "generateName" in metadata:
            reason = "cannot be used with server-side apply: without a name, one is made of the resource's"
            failures.append(CheckFailure("metadata.generateName", reason))
        elif patch and "name" not in metadata:
            failures.append(CheckFailure("metadata.name", "is required: a Patch changes an existing object"))
        elif "name" not in metadata and isinstance(metadata.setdefault("annotations", {}), dict):
            try:
                before = get(olds, "metadata", "name") if annotations_of(olds).get(AUTONAMED) == "true" else None
                metadata["name"] = before or naming.name(objects.AUTONAME_DIGITS)
                metadata["annotations"][AUTONAMED] = "true"
            except ValueError as error:
                failures.append(CheckFailure("metadata.name", str(error)))

    def _place(self, client: Cluster | None, api_version: str, kind: str, metadata: Object) -> None:
        """The default namespace where none is given; none where the kind has none. An unknown kind is left as it is."""
        try:
            if client and not client.served(api_version, kind).namespaced:
                metadata.pop("namespace", None)
            elif client:
                metadata.setdefault("namespace", client.namespace)
        except (UnknownKindError, UnreachableError):
            pass

    def diff(
        self,
        client: Cluster | None,
        old_inputs: Properties,
        olds: Properties,
        news: Properties,
        operation: Operation,
    ) -> Iterable[Difference]:
        old, new = to_object(old_inputs or olds[INPUTS]), to_object(news)
        if isinstance(get(new, "metadata"), dict):
            # The object has fields that the program did not set before.
            lived = {key: get(plain(olds), "metadata", key) for key in ("name", "namespace")}
            lived = {key: value for key, value in lived.items() if value and key in new["metadata"]}
            old["metadata"] = {**lived, **old.get("metadata", {})}
            if not get(plain(olds), "metadata", "namespace"):
                for side in (old, new):
                    side["metadata"].pop("namespace", None)
        policy = self._policy(client, news)
        rules = policy
        if not self._is_patch(news):
            rules += replacing.immutable_fields(*objects.parse_token(self.token, news)[:2], old)
        found = list(objects.differences(old, new, rules))
        identity = {item.path for item in found} & {"metadata", *objects.IDENTITY}
        if found and client and not identity and not contains(news, Unknown):
            found = self._describe_filters(client, olds, news, operation, found)
        if client and flagged(news, "replaceUnready") and self._failed(client, olds, news):
            found.append(Difference('metadata.annotations["pulumi.com/replaceUnready"]', "UPDATE", replace=True))
        return found

    def _policy(self, client: Cluster | None, news: Properties) -> tuple[str, ...]:
        """Paths whose change replaces the object, even if the API server accepts it."""
        if self._is_patch(news):
            return objects.IDENTITY
        api_version, kind, _ = objects.parse_token(self.token, news)
        mutable_maps, mutable_secrets = (client.mutable_maps, client.mutable_secrets) if client else (False, False)
        return replacing.policy(api_version, kind, mutable_maps=mutable_maps, mutable_secrets=mutable_secrets)

    def _describe_filters(
        self, client: Cluster, olds: Properties, news: Properties, operation: Operation, found: list[Difference]
    ) -> list[Difference]:
        """The differences by a dry run: none where new inputs change nothing (1000m for 1, or what an import has read),
        a
        replacement where the API server refuses to change a field."""
        try:
            target = self._target(client, olds)
            live = client.find(target)
            if live is None:
                return found
            manager = objects.field_manager(operation.urn, news, olds)
            if entries := ownership.taken_over(live, manager):
                # Until an update has adopted these fields, an apply does not remove them.
                owned = ownership.managed_fields({"metadata": {"managedFields": entries}}, manager)
                return replacing.ours(found, owned)
            owned = ownership.managed_fields(live, manager)
            found = replacing.ours(found, owned)
            manifest = _to_apply(news, live, {manager}, operation)
            planned = client.apply(target, manifest, manager, force=True, dry_run=True)
        except ClusterError as error:
            return found if self._is_patch(news) else replacing.from_refusal(found, error.causes)
        except ProviderError:
            return found
        silent = target.kind in replacing.SILENT
        same = not silent and (not owned or owned == ownership.managed_fields(planned, manager))
        if same and objects.settled(live) == objects.settled(planned):
            return []
        return replacing.accepted(found, self._policy(client, news), live, planned, silent=silent)

    def _failed(self, client: Cluster, olds: Properties, news: Properties) -> bool:
        """Whether a Job is not complete, which ``pulumi.com/replaceUnready`` is about."""
        live = client.find(self._target(client, olds)) if news.get("kind") == "Job" else None
        try:
            return live is not None and readiness.job(readiness.Check(live, client)) is not None
        except ProviderError:
            return True

    def deletes_before_replace(self, olds: Properties, news: Properties) -> bool:
        named = annotations_of(news).get(AUTONAMED) != "true"
        return named and all(
            get(plain(olds), "metadata", key) == get(plain(news), "metadata", key) for key in ("name", "namespace")
        )

    # Previews.

    def preview(
        self, client: Cluster | None, olds: Properties | None, news: Properties, operation: Operation
    ) -> Properties:
        """The result of a dry run; None where the object depends on something that does not exist yet."""
        if client is None or contains(news, Unknown):
            return {}
        patch = self._is_patch(news)
        try:
            target = self._target(client, news)
            live = client.find(target)
            if olds is None and live and not (patch or client.upsert):
                if target.id in operation.others:
                    return {}
                raise _exists(target)
            manager = objects.field_manager(operation.urn, news, olds or {})
            manifest, force = to_object(news), self._forced(client, news)
            if live:
                entries = None if patch else ownership.taken_over(live, manager)
                if entries is not None:
                    live, force = {**live, "metadata": {**live["metadata"], "managedFields": entries}}, True
                manifest = _to_apply(news, live, {manager, str(plain((olds or {}).get(MANAGER)))}, operation)
            planned = client.apply(target, manifest, manager, force=force, dry_run=True)
        except UnknownKindError:
            return {}
        except (ClusterError, UnreachableError) as error:
            if isinstance(error, ClusterError):
                if error.code == 404:
                    return {}
                if error.code != 403 and "dry run" not in error.said:
                    raise
            operation.log("warning", f"this preview was not checked by the API server: {error.args[0]}")
            return {}
        return planned if live else _provisional(planned)

    # Create, update, delete.

    def _forced(self, client: Cluster, inputs: Properties) -> bool:
        return client.patch_force or flagged(inputs, "patchForce")

    def create(self, client: Cluster, inputs: Properties, operation: Operation) -> str:
        began = time.monotonic()
        manager = objects.field_manager(operation.urn, inputs, {})
        may_exist = self._is_patch(inputs) or client.upsert

        def attempt() -> Identity:
            try:
                target = self._target(client, inputs)
                if not may_exist and client.find(target):
                    raise _exists(target)
                client.apply(target, to_object(inputs), manager, force=self._forced(client, inputs))
            except (ClusterError, UnknownKindError) as error:
                known = isinstance(error, ClusterError) and error.code != 404
                if known or time.monotonic() - began > ORDER_SECONDS:
                    raise
                raise NotYetError(error) from error
            return target

        target = operation.wait("its namespace and kind", attempt)
        operation.created(target.id, **{MANAGER: manager})
        self._settle(client, target, inputs, operation)
        return target.id

    def find(self, client: Cluster, inputs: Properties, operation: Operation) -> str | None:
        """What was applied under this resource's own field manager."""
        manager = objects.field_manager(operation.urn, inputs, {})
        try:
            target = self._target(client, inputs)
        except UnknownKindError:
            return None
        live = client.find(target)
        if live is None or not ownership.managed_fields(live, manager):
            return None
        if not self._is_patch(inputs) and not operation.may_have_made(live["metadata"]["creationTimestamp"]):
            return None
        operation.created(target.id, **{MANAGER: manager})
        self._settle(client, target, inputs, operation)
        return target.id

    def differences(self, olds: Properties, news: Properties) -> Any:
        """None after a create: an apply is atomic."""
        return iter(())

    def _settle(self, client: Cluster, target: Identity, inputs: Properties, operation: Operation) -> None:
        if self._is_patch(inputs):
            return
        readiness.settle(client, target, inputs, operation)
        if target.kind == "CustomResourceDefinition":
            self._serve(client, inputs, operation)

    def _serve(self, client: Cluster, inputs: Properties, operation: Operation) -> None:
        """Wait until the new kinds are served, as dependents need them next."""
        spec = inputs["spec"]
        kind = spec["names"]["kind"]
        for version in (item["name"] for item in spec["versions"] if item.get("served")):

            def served(api_version: str = f"{spec['group']}/{version}") -> bool:
                try:
                    client.served(api_version, kind)
                except UnknownKindError as error:
                    raise NotYetError(error) from error
                return True

            operation.wait(f"{kind} to be served", served)

    def read(self, client: Cluster, id_: str, state: Properties, operation: Operation) -> Properties | None:
        api_version, kind, _ = objects.parse_token(self.token, state)
        namespace, _, name = id_.rpartition("/")
        try:
            return client.find(client.identify(api_version, kind, namespace, name))
        except UnknownKindError:
            return None
        except UnreachableError as error:
            if not client.delete_unreachable:
                raise
            operation.log("warning", f"dropped from the state: {error.args[0]}")
            return None

    def update(self, client: Cluster, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        target = self._target(client, olds)
        former, manager = olds.get(MANAGER), objects.field_manager(operation.urn, news, olds)
        live = client.find(target)
        if live is None:
            raise ProviderError(f"{target} no longer exists", remedy="Refresh the stack, then update again.")
        if not self._is_patch(news):
            live = self._take_over(client, target, live, manager)
        manifest = _to_apply(news, live, {manager, str(former)}, operation)
        live = client.apply(target, manifest, manager, force=self._forced(client, news))
        operation.created(id_, **{MANAGER: manager})
        if former and former != manager:
            client.release(target, former, live["metadata"]["uid"])
        self._settle(client, target, news, operation)

    def _take_over(self, client: Cluster, target: Identity, live: Object, manager: str) -> Object:
        """Adopt the fields that the official plugin or client-side applies have set."""
        for attempt in range(1, OWNERSHIP_ATTEMPTS + 1):
            entries = ownership.taken_over(live, manager)
            if entries is None:
                break
            try:
                return client.replace_managed_fields(target, entries, live["metadata"]["resourceVersion"])
            except ClusterError:
                if attempt == OWNERSHIP_ATTEMPTS:
                    raise
                live = client.find(target) or live
        return live

    def delete(self, client: Cluster, id_: str, state: Properties, operation: Operation) -> None:
        try:
            target = self._target(client, state)
            if self._is_patch(state):
                manager = objects.field_manager(operation.urn, state.get(INPUTS, {}), state)
                self._release(client, target, manager)
                return
            policy = str(annotations_of(state.get(INPUTS, {})).get("pulumi.com/deletionPropagationPolicy", ""))
            if not client.delete(target, PROPAGATION.get(policy.lower(), "Foreground")):
                return
        except UnknownKindError:
            return
        except UnreachableError as error:
            if not client.delete_unreachable:
                raise
            operation.log("warning", f"dropped from the state: {error.args[0]}")
            return
        if flagged(state, "skipAwait") and target.kind in readiness.NO_DELETE_WAIT:
            return
        readiness.until_gone(client, target, get(state, "metadata", "uid"), operation)

    def _release(self, client: Cluster, target: Identity, manager: str) -> None:
        live = client.find(target)
        if live is None or not ownership.managed_fields(live, manager):
            return
        try:
            client.release(target, manager, live["metadata"]["uid"])
        except ClusterError as error:
            required = [cause["field"] for cause in error.causes if cause.get("reason") == "FieldValueRequired"]
            if not required:
                raise
            raise ProviderError(
                f"{target} is not valid without what the Patch has set: {', '.join(required)}",
                remedy="Let another resource set it first, or keep it, with the resource option retain_on_delete.",
            ) from error

    # State.

    def outputs(self, known: Properties, found: Properties, inputs: Properties) -> Properties:
        given = {key: item for key, item in inputs.items() if not key.startswith("__")}
        if found:
            shown = objects.from_object(found)
        else:
            shown = {key: plain(item) for key, item in known.items() if not key.startswith("__")}
        outputs = objects.mark(shown, given)
        last = known.get(INPUTS) or (given if found is not None and given else self.import_inputs(outputs))
        kept = {key: item for key, item in ((MANAGER, known.get(MANAGER)), (INPUTS, last)) if item}
        return {**outputs, **kept, objects.API_VERSION: str(plain(shown["apiVersion"]))}

    def refreshed_inputs(self, client: Cluster, given: Properties, outputs: Properties) -> Properties:
        """The given inputs, with the cluster's values where an apply would change them."""
        shape, live = to_object(given), to_object(outputs)
        try:
            target = self._target(client, outputs)
            manager = str(plain(outputs.get(MANAGER)) or "pulumi-kubernetes")
            planned = client.apply(target, shape, manager, force=True, dry_run=True)
        except ProviderError:
            planned = shape
        if isinstance(words := shape.get("stringData"), dict):
            for side in (live, planned):
                side["stringData"] = {key: _decoded(get(side, "data", key)) for key in words}
        found = objects.adopt(shape, planned, live)
        return given if found == shape else objects.mark(found, given)

    def import_inputs(self, outputs: Properties) -> Properties:
        return objects.mark(objects.import_inputs(to_object(outputs)), {})

    def unhealthy_reason(self, client: Cluster, found: Properties, state: Properties) -> str | None:
        if self._is_patch(found):
            return None
        target = self._target(client, found)
        try:
            lacking = readiness.missing(client, found, target, plain(state.get(INPUTS, {})), float("inf"))
        except ProviderError as failure:
            return f"{target}: {failure}"
        return f"{target} is not ready: {lacking}" if lacking else None

    def timeouts_of(self, properties: Properties) -> Timeouts:
        seconds = str(annotations_of(properties).get("pulumi.com/timeoutSeconds", ""))
        return Timeouts(*[float(seconds)] * 3) if seconds.isdigit() else self.timeouts


def _to_apply(news: Properties, live: Object, managers: set[str], operation: Operation) -> Object:
    """The manifest to apply to an existing object; ``managers`` are ours."""
    manifest = to_object(news)
    return ownership.without_ignored(manifest, live, managers, operation.ignored) if operation.ignored else manifest


def _exists(target: Identity) -> ClusterError:
    status = {"reason": "AlreadyExists", "message": f"{target} exists in the cluster, and is not this resource's"}
    return ClusterError(f"creating {target}", 409, status, None)


def _provisional(planned: Object) -> Properties:
    """The result of a dry run of a create, without values that only a real create decides."""
    metadata = planned["metadata"]
    shown = objects.unknown_where({**planned, "metadata": {**metadata, "creationTimestamp": UNKNOWN}}, metadata["uid"])
    shown["metadata"].pop("resourceVersion", None)
    shown.pop("status", None)
    if planned["kind"] == "Service":
        shown["spec"] |= {key: UNKNOWN for key in ALLOCATED if shown["spec"].get(key) not in (None, "None", ["None"])}
    return dict(shown)


def _decoded(data: str | None) -> str | None:
    return None if data is None else base64.b64decode(data).decode(errors="replace")


def _decode(client: Cluster | None, arguments: Properties, operation: Operation) -> Properties:
    """The manifests of a YAML text, with the default namespace where they name none: version 1 of ConfigGroup asks."""
    try:
        documents = kubeyaml.read_documents(arguments["text"])
    except kubeyaml.YamlError as error:
        raise ProviderError(f"the YAML cannot be read: {error}") from error
    found = [item for item in documents if isinstance(item, dict) and item.get("kind") and item.get("apiVersion")]
    namespace = arguments.get("defaultNamespace")
    for item in found if namespace else ():
        try:
            namespaced = client is None or client.served(item["apiVersion"], item["kind"]).namespaced
        except UnknownKindError:
            namespaced = True
        if namespaced:
            item.setdefault("metadata", {}).setdefault("namespace", namespace)
    return {"result": found}


DECODE: Final = Function[Cluster](
    "kubernetes:yaml:decode",
    (Field("text", required=True), Field("defaultNamespace")),
    (Field("result", List(schema.ANY)),),
    _decode,
    "The manifests of a YAML text.",
    offline=True,
)
