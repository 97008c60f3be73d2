"""What a provider declares: resource types, functions, and the package of them."""
# ruff: noqa: ARG002 - parameters that only some types need

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from providers import schema
from providers.framework.operation import ProviderError, Timeouts
from providers.schema import DEFAULTS, Autoname, CheckFailure, Difference, Field
from providers.values import UNKNOWN, Properties, mark_secrets, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from providers.framework.operation import Operation

C = TypeVar("C")


class ResourceType(ABC, Generic[C]):
    """One type of resource. Its instances hold no state: a single one serves all resources of the type.

    import_id: the form of the id that an import takes.
    """

    token: str
    fields: ClassVar[tuple[Field, ...]]
    description: ClassVar[str] = ""
    timeouts: ClassVar[Timeouts] = Timeouts()
    delete_before_replace: ClassVar[bool] = False
    import_id: ClassVar[str] = "<id>"

    @abstractmethod
    def create(self, client: C, inputs: Properties, operation: Operation) -> str:
        """Create it; returns the id."""

    @abstractmethod
    def read(self, client: C, id_: str, state: Properties, operation: Operation) -> Properties | None:
        """The attributes; ``state`` has the recorded outputs (empty at an import). None when it does not exist.

        An ``"id"`` among the attributes replaces the id (an import by another id than the resource's own).
        """

    def update(self, client: C, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        """Update it in place; ``olds`` are outputs, ``news`` inputs. Not needed where every field is ``force_new``."""
        raise NotImplementedError(self.token)

    @abstractmethod
    def delete(self, client: C, id_: str, state: Properties, operation: Operation) -> None:
        """Delete it and wait until it is gone. Not an error if it does not exist."""

    def find(self, client: C, inputs: Properties, operation: Operation) -> str | None:
        """The id of what an interrupted create with these inputs has made; None if it has made nothing.

        Like a create it calls ``operation.created`` before it waits for what it found, and may name a property that is
        ``UNRECOVERABLE``. Raises ProviderError where it cannot decide: it must not take over somebody else's resource.
        """
        raise ProviderError(f"the cloud cannot be asked for a {self.token.rpartition(':')[2]} by anything but its id")

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        """Check failures that involve more than one field. ``inputs`` are plain, and may hold unknowns."""
        return ()

    # Types that fields alone cannot describe override these. ``client`` is None while the configuration is unknown.

    def check_inputs(
        self, client: C | None, olds: Properties, news: Properties, naming: Autoname, failures: list[CheckFailure]
    ) -> Properties:
        """The checked inputs, with defaults; appends to ``failures``."""
        inputs = schema.check(self.fields, olds, news, failures=failures, autoname=naming)
        if not failures:
            failures += self.check(plain(inputs))
            if client is not None:
                failures += self.check_references(client, plain(olds), plain(inputs))
        return inputs

    def check_references(self, client: C, olds: Properties, news: Properties) -> Iterable[CheckFailure]:
        """Check failures that the cloud has to be asked about; ``olds`` are the old inputs, empty for a create."""
        return ()

    def diff(
        self, client: C | None, old_inputs: Properties, olds: Properties, news: Properties, operation: Operation
    ) -> Iterable[Difference]:
        """Like ``differences``, for types that also need the old inputs or the cloud."""
        return self.differences(olds, news)

    def deletes_before_replace(self, olds: Properties, news: Properties) -> bool:
        """Whether a replacement needs the name of what it replaces."""
        defaults = plain(news.get(DEFAULTS)) or ()
        named = any(field.autoname and field.name in news and field.name not in defaults for field in self.fields)
        return self.delete_before_replace or named

    def preview(self, client: C | None, olds: Properties | None, news: Properties, operation: Operation) -> Properties:
        """A preview's outputs beyond the inputs; ``olds`` is None at a create. Inputs may hold unknowns."""
        return self.unknown_outputs(news) if olds is None else {}

    def outputs(self, known: Properties, found: Properties, inputs: Properties) -> Properties:
        """The outputs to record: ``known``, overlaid with ``found``, with secrets marked."""
        outputs = {key: value for key, value in {**plain(known), **found}.items() if key not in schema.RESERVED}
        outputs.pop("id", None)
        return schema.mark_field_secrets(self.fields, mark_secrets(outputs, inputs))

    def refreshed_inputs(self, client: C, given: Properties, outputs: Properties) -> Properties:
        """The inputs after a refresh: the user's, with the values that the cloud has now."""
        return schema.adopt_inputs(self.fields, given, outputs)

    def import_inputs(self, outputs: Properties) -> Properties:
        """The inputs that would create what an import has read."""
        return schema.import_inputs(self.fields, outputs)

    def unhealthy_reason(self, client: C, found: Properties, state: Properties) -> str | None:
        """Why an object that a refresh has read is unhealthy; None if it is not."""
        return None

    def timeouts_of(self, properties: Properties) -> Timeouts:
        """The timeouts where ``custom_timeouts`` says nothing."""
        return self.timeouts

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        """Where ``news`` (inputs) differ from ``olds`` (outputs)."""
        return schema.diff(self.fields, olds, news)

    def unknown_outputs(self, inputs: Properties) -> Properties:
        """The outputs of a preview that only the cloud decides: unknown."""
        return {
            field.name: UNKNOWN
            for field in self.fields
            if (field.output or field.computed) and inputs.get(field.name) is None
        }


@dataclass(frozen=True)
class Function(Generic[C]):
    """A function: ``call(client, arguments, operation)`` returns the results.

    offline: it can do without the client, which is None while the configuration is not known.
    """

    token: str
    arguments: tuple[Field, ...]
    results: tuple[Field, ...]
    call: Callable[[Any, Properties, Operation], Properties]
    description: str = ""
    offline: bool = False


@dataclass(frozen=True)
class Package(Generic[C]):
    """A provider. ``connect(config)`` makes the client and refuses invalid configuration; it makes no calls yet."""

    name: str
    version: str
    description: str
    config: tuple[Field, ...]
    types: Sequence[ResourceType[C]]
    functions: Sequence[Function[C]]
    connect: Callable[[Properties], C]
    any_type: Callable[[str], ResourceType[C]] | None = None
    """Makes the type of a token that is not among ``types``."""
    config_differences: Callable[[Properties, Properties], Iterable[Difference]] | None = None
    """How a change of the configuration is diffed, where the fields are not enough."""
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Remedies for the tokens that only the official plugin serves."""

    def schema(self) -> dict[str, Any]:
        """The Pulumi package schema."""
        types: dict[str, Any] = {}
        config = schema.properties_schema(self.config, f"{self.name}:index/Config:Config", types)
        resources = {}
        for kind in self.types:
            owner = _type_owner(kind.token)
            inputs = [field for field in kind.fields if not field.output]
            resources[kind.token] = {
                "description": kind.description,
                "inputProperties": schema.properties_schema(inputs, owner, types),
                "requiredInputs": [field.name for field in inputs if field.required and field.default is None],
                "properties": schema.properties_schema(kind.fields, owner, types),
                "required": [field.name for field in kind.fields if field.required or field.computed or field.output],
            }
        functions = {
            function.token: {
                "description": function.description,
                "inputs": {
                    "type": "object",
                    "properties": schema.properties_schema(function.arguments, _type_owner(function.token), types),
                    "required": [field.name for field in function.arguments if field.required],
                },
                "outputs": {
                    "type": "object",
                    "properties": schema.properties_schema(
                        function.results, f"{_type_owner(function.token)}Result", types
                    ),
                    "required": [field.name for field in function.results],
                },
            }
            for function in self.functions
        }
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "config": {"variables": config},
            "provider": {"inputProperties": config},
            "types": types,
            "resources": resources,
            "functions": functions,
        }


def _type_owner(token: str) -> str:
    package, module, name = token.split(":")
    return f"{package}:{module.partition('/')[0]}:{name[:1].upper()}{name[1:]}"
