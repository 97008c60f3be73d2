"""The engine's own package, ``pulumi``: references to other stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.values import Properties, is_secret, secret

from .diff import Diff
from .errors import EngineError
from .plugins import ReadResult
from .urn import ROOT_STACK_TYPE
from .values import contains_secret, reveal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .state import State

PACKAGE = "pulumi"
STACK_REFERENCE = "pulumi:pulumi:StackReference"
READ_OUTPUTS = "pulumi:pulumi:readStackOutputs"
READ_RESOURCES = "pulumi:pulumi:readStackResourceOutputs"


class BuiltinProvider:
    """Serves ``pulumi:pulumi:StackReference`` from the backend of this stack."""

    recovers = False
    configured = True

    def __init__(self, resources_of: Callable[[str], Sequence[State]]) -> None:
        self._resources_of = resources_of

    async def check(
        self, urn: str, olds: Properties | None, news: Properties, seed: bytes
    ) -> tuple[Properties, list[tuple[str, str]]]:
        """Only stack references are supported; they need a name."""
        del olds, seed
        if f"{STACK_REFERENCE}::" not in urn:
            raise EngineError(f"this engine does not provide {urn.split('::', 3)[2]}", remedy="use the Pulumi CLI")
        return news, [] if isinstance(reveal(news.get("name")), str) else [("name", "missing required property")]

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
        """Another name is another reference."""
        del urn, id_, old_outputs, ignore_changes
        changed = old_inputs.get("name") != news.get("name")
        return Diff(changed=changed, replace_keys=["name"] if changed else [])

    async def create(self, urn: str, inputs: Properties, timeout: float, *, preview: bool) -> tuple[str, Properties]:
        """Read the other stack's outputs."""
        del urn, timeout, preview
        name = str(reveal(inputs["name"]))
        return name, self._read(name)

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
        """There is nothing to update."""
        del urn, old_inputs, old_outputs, news, timeout, ignore_changes, preview
        return self._read(id_)

    async def delete(self, urn: str, id_: str, inputs: Properties, outputs: Properties, timeout: float) -> None:
        """Deleting a reference leaves the other stack alone."""

    async def read(
        self, urn: str, id_: str, inputs: Properties | None, outputs: Properties | None, timeout: float = 0
    ) -> ReadResult:
        """Read the other stack's outputs."""
        del urn, outputs, timeout
        name = str(reveal((inputs or {}).get("name") or id_))
        return ReadResult(name, {"name": name}, self._read(name))

    async def invoke(self, token: str, args: Properties, *, preview: bool) -> tuple[Properties, list[tuple[str, str]]]:
        """``readStackOutputs``, and ``readStackResourceOutputs``: type and outputs of each resource, by URN."""
        del preview
        if token == READ_RESOURCES:
            name = str(reveal(args["stackName"]))
            found = {state.urn: {"type": state.type, "outputs": state.outputs} for state in self._resources_of(name)}
            return {"name": name, "outputs": found}, []
        if token != READ_OUTPUTS:
            raise EngineError(f"this engine has no function {token}", remedy="use the Pulumi CLI")
        return self._read(str(reveal(args["name"]))), []

    def _read(self, name: str) -> Properties:
        stack = (state.outputs for state in self._resources_of(name) if state.type == ROOT_STACK_TYPE)
        outputs: Properties = next(stack, {})
        return {
            "name": name,
            "outputs": {
                key: secret(reveal(value)) if contains_secret(value) else value for key, value in outputs.items()
            },
            "secretOutputNames": sorted(
                key for key, value in outputs.items() if is_secret(value) or contains_secret(value)
            ),
        }
