"""Names and types of the functions, from the SDK of the official plugin.

``python -m providers.openstack.sdk`` writes ``functions.json`` from the SDK that ``uv.lock`` pins, so that a provider
need not load the SDK. docs/adr says what else the SDK knows.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from providers.openstack.rest import snake

FILE: Final = Path(__file__).with_name("functions.json")
FUNCTIONS: Final = """
compute: getAvailabilityZones getFlavor getKeypair
identity: getAuthScope
images: getImage getImageIds
networking: getFloatingIp getNetwork getPort getRouter getSecGroup getSubnet
"""
_SCALARS: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}


def shape(declared: Any) -> Any:
    """The shape of an SDK annotation: a scalar's name, [item], {"*": value}, or the class of an object."""
    while not isinstance(declared, type) and get_origin(declared) not in (Sequence, Mapping, list, dict):
        # A union of the value with its awaitable and output forms, or with None.
        declared = next(item for item in get_args(declared) if item is not type(None))
    if get_origin(declared) in (Sequence, list):
        return [shape(get_args(declared)[0])]
    if get_origin(declared) in (Mapping, dict):
        return {"*": shape(get_args(declared)[1])}
    return _SCALARS.get(declared, declared)


def _plain(form: Any) -> Any:
    """A shape as JSON: an object is {"fields": {name: shape}}."""
    from pulumi import _types  # noqa: PLC0415

    if isinstance(form, list):
        return [_plain(form[0])]
    if isinstance(form, dict):
        return {"*": _plain(form["*"])}
    if isinstance(form, str):
        return form
    return {"fields": {name: _plain(shape(item)) for name, item in _types.output_type_types(form).items()}}


def table() -> dict[str, dict[str, dict[str, Any]]]:
    """Types of arguments and results by name, for each function's token."""
    from pulumi import _types  # noqa: PLC0415 - only the one who writes the table needs the SDK

    found = {}
    for module, names in re.findall(r"(\w+): (.*)", FUNCTIONS):
        package = import_module(f"pulumi_openstack.{module}")
        for name in names.split():
            result = getattr(package, f"{name[0].upper()}{name[1:]}Result")
            results = {key: _plain(shape(item)) for key, item in _types.output_type_types(result).items()}
            parameters = inspect.signature(getattr(package, snake(name))).parameters.keys() - {"opts"}
            arguments = {key: kind for key, kind in results.items() if snake(key) in parameters}
            found[f"openstack:{module}/{name}:{name}"] = {"arguments": arguments, "results": results}
    return found


def render() -> str:
    """The contents of ``functions.json``."""
    return json.dumps(table(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
