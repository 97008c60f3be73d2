"""What a generated SDK for the testbed provider would hold; the test programs import it."""

from __future__ import annotations

from typing import Any

import pulumi

OUTPUTS = ("computed", "serial", "token", "name", "value")


class Provider(pulumi.ProviderResource):
    def __init__(self, _name: str, /, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        super().__init__("testbed", _name, props, opts)


class Thing(pulumi.CustomResource):
    """Any resource of the testbed: keyword arguments are its inputs; computed outputs are attributes."""

    type_ = "testbed:index:Thing"

    def __init__(self, _name: str, /, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        super().__init__(self.type_, _name, {**dict.fromkeys(OUTPUTS), **props}, opts)

    @classmethod
    def get(cls, name: str, id_: str) -> Thing:
        return cls(name, pulumi.ResourceOptions(id=id_))


class Gadget(Thing):
    type_ = "testbed:index:Gadget"


class Box(pulumi.ComponentResource):
    """A component; its children are made by the program."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, type_: str = "test:index:Box") -> None:
        super().__init__(type_, name, {}, opts)


def invoke(function: str, args: dict[str, Any], opts: pulumi.InvokeOptions | None = None) -> Any:
    return pulumi.runtime.invoke(f"testbed:index:{function}", args, opts).value


def invoke_output(
    function: str, args: dict[str, Any], opts: pulumi.InvokeOutputOptions | None = None
) -> pulumi.Output[Any]:
    return pulumi.runtime.invoke_output(f"testbed:index:{function}", args, opts)
