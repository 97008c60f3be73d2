"""The JSON schema of the settings, and descriptions of its parts for messages and the reference."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from infra.settings.model import Settings
from infra.settings.rules import Location


@functools.cache
def schema() -> dict[str, Any]:
    """JSON schema of the settings, with keys as written in the stack's file."""
    return Settings.model_json_schema(by_alias=True)


def resolve(node: Mapping[str, Any]) -> dict[str, Any]:
    """Follow references and `X or null` in a part of `schema()`, keeping the keys beside them."""
    merged = dict(node)
    while True:
        target = merged.pop("$ref", None)
        options = [option for option in merged.pop("anyOf", []) if option.get("type") != "null"]
        base = schema()["$defs"][target.rsplit("/", 1)[1]] if target else options[0] if options else None
        if base is None:
            return merged
        merged = {**base, **merged}


def schema_at(location: Location) -> dict[str, Any]:
    node = resolve(schema())
    for step in location:
        inner = node.get("properties", {}).get(step) or node.get("additionalProperties") or node.get("items")
        node = resolve(inner) if isinstance(inner, dict) else {}
    return node


def kind(node: Mapping[str, Any]) -> str:
    """Describe a part of `schema()` with its limits: 'whole number from 1 to 250'."""
    if "enum" in node or "const" in node:
        return "one of " + ", ".join(json.dumps(value) for value in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        return f"list of {kind(resolve(node['items']))}"
    names = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
        "object": "group of settings",
    }
    name = str(node.get("format") or names.get(str(node.get("type")), "value"))
    if node.get("type") == "object" and isinstance(node.get("additionalProperties"), dict):
        name = "mapping of names to " + kind(resolve(node["additionalProperties"]))
    if "minimum" in node and "maximum" in node:
        return f"{name} from {node['minimum']} to {node['maximum']}"
    return name
