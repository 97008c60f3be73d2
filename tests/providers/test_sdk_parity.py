"""The providers' schemas against the installed SDKs of the official plugins: same names, types and requirements."""

from __future__ import annotations

import inspect
import json
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pulumi_kubernetes
import pulumi_openstack
import pytest
from pulumi import _types
from pulumi.runtime.proto import provider_pb2

from providers.kubernetes import __main__ as kubernetes
from providers.openstack import sdk
from providers.openstack.__main__ import package
from providers.openstack.sdk import shape
from tests.providers.plugin import CallError

if TYPE_CHECKING:
    from types import ModuleType

    from tests.providers.plugin import Plugin

Schema = dict[str, Any]
RESOURCES = sorted(kind.token for kind in package().types)
FUNCTIONS = sorted(function.token for function in package().functions)
# What a program for a cluster uses, or reaches for next.
WANTED = """
compute: Keypair Instance ServerGroup VolumeAttach InterfaceAttach
networking: Network Subnet Router RouterInterface Port PortSecGroupAssociate Trunk
networking: FloatingIp FloatingIpAssociate SecGroup SecGroupRule
blockstorage: Volume
objectstorage: Container
images: Image
dns: Zone RecordSet
loadbalancer: LoadBalancer Listener Pool Member Monitor
identity: ApplicationCredential
"""


@pytest.fixture(scope="module")
def schema(offline: Plugin) -> Schema:
    answer = offline.call("GetSchema", provider_pb2.GetSchemaRequest())
    loaded: Schema = json.loads(answer.schema)
    return loaded


def sdk_module(token: str) -> tuple[ModuleType, str]:
    _, module, name = token.split(":")
    return import_module(f"pulumi_openstack.{module.partition('/')[0]}"), name


def compare(entry: Schema, declared: Any, schema: Schema, where: str) -> None:
    """A property of our schema against its shape in the SDK."""
    if isinstance(declared, list):
        assert entry.get("type") == "array", where
        compare(entry["items"], declared[0], schema, where)
    elif isinstance(declared, dict):
        assert entry.get("type") == "object", where
        compare(entry["additionalProperties"], declared["*"], schema, where)
    elif isinstance(declared, str):
        assert entry.get("type") == declared, where
    else:
        spec = schema["types"][entry["$ref"].removeprefix("#/types/")]
        inputs = _types.is_input_type(declared)
        types = _types.input_type_types(declared) if inputs else _types.output_type_types(declared)
        if inputs:  # outputs have more, such as an interface's MAC address
            assert required(declared) == set(spec["required"]), where
        assert set(types) <= set(spec["properties"]), where
        for name, item in types.items():
            compare(spec["properties"][name], shape(item), schema, f"{where}.{name}")


def required(arguments: type) -> set[str]:
    names = _types.input_type_py_to_pulumi_names(arguments)
    parameters = inspect.signature(arguments).parameters.values()
    return {names[item.name] for item in parameters if item.default is inspect.Parameter.empty}


def test_everything_is_there() -> None:
    wanted = {
        f"openstack:{module}/{name[0].lower()}{name[1:]}:{name}"
        for module, names in re.findall(r"(\w+): (.*)", WANTED)
        for name in names.split()
    }
    assert wanted <= set(RESOURCES)


@pytest.mark.parametrize("token", RESOURCES)
def test_resource(token: str, schema: Schema) -> None:
    module, name = sdk_module(token)
    spec = schema["resources"][token]
    resource, arguments = getattr(module, name), getattr(module, f"{name}Args")
    assert resource.pulumi_type == token
    inputs = _types.input_type_types(arguments)
    assert set(spec["inputProperties"]) == set(inputs)
    assert set(spec["requiredInputs"]) == required(arguments)
    outputs = _types.resource_types(resource)
    assert set(spec["properties"]) == set(outputs)
    for properties, types in ((spec["inputProperties"], inputs), (spec["properties"], outputs)):
        for key, declared in types.items():
            compare(properties[key], shape(declared), schema, f"{token}.{key}")


def test_functions_are_those_of_the_sdk(schema: Schema) -> None:
    assert sdk.FILE.read_text() == sdk.render(), "write it again: python -m providers.openstack.sdk"
    assert set(FUNCTIONS) == set(sdk.table())
    for token, declared in sdk.table().items():
        spec = schema["functions"][token]
        assert set(spec["inputs"]["properties"]) == set(declared["arguments"])
        assert set(spec["outputs"]["properties"]) == set(declared["results"])


def test_configuration(schema: Schema) -> None:
    assert set(schema["provider"]["inputProperties"]) == set(_types.input_type_types(pulumi_openstack.ProviderArgs))


def test_configuration_of_the_kubernetes_provider() -> None:
    names = {field.name for field in kubernetes.package().config}
    assert names == set(_types.input_type_types(pulumi_kubernetes.ProviderArgs))


def test_references_resolve(schema: Schema) -> None:
    references = set(re.findall(r'"#/types/([^"]+)"', json.dumps(schema)))
    assert references == set(schema["types"])


def test_there_is_only_one_schema(offline: Plugin) -> None:
    with pytest.raises(CallError, match="no schema of version 2"):
        offline.call("GetSchema", provider_pb2.GetSchemaRequest(version=2))
