"""The OpenStack plugin on a real cloud.

``LAB_TEST_CLOUD`` names an entry of clouds.yaml; nothing else selects a cloud, so that no test ever touches one by
accident. Tests delete what they make, also when they fail.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import openstack
import pytest

from tests.providers.conftest import EXECUTABLE
from tests.providers.plugin import Plugin, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openstack.connection import Connection

    from providers.values import Properties


class Maker:
    """Creates resources, and deletes them at the end of the test, the latest first."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self._made: list[Resource] = []

    def __call__(self, token: str, inputs: Properties, *, name: str | None = None) -> Resource:
        resource = Resource(token, name or f"test-{uuid.uuid4().hex[:8]}", {})
        resource.inputs = self.checked(resource, inputs)
        resource = self.keep(self.plugin.create(resource))
        again = self.plugin.diff(resource, self.checked(resource, inputs))
        assert not again.changes, "a new resource differs from its own inputs"
        return resource

    def checked(self, resource: Resource, inputs: Properties) -> Properties:
        """The inputs after Check, which must find no fault."""
        checked = self.plugin.check(resource, inputs)
        assert not checked.failures
        return checked.inputs

    def keep(self, resource: Resource) -> Resource:
        """Delete this at the end as well."""
        self._made.append(resource)
        return resource

    def clean(self) -> None:
        while self._made:
            resource = self._made.pop()
            self.plugin.delete(resource)
            assert self.plugin.read(resource) is None, f"{resource.id} is still there"
            self.plugin.delete(resource)  # it is no error that it is gone


@pytest.fixture(scope="session")
def cloud_name() -> str:
    name = os.environ.get("LAB_TEST_CLOUD")
    if not name:
        pytest.skip("LAB_TEST_CLOUD names no cloud to test on")
    return name


@pytest.fixture(scope="session")
def sdk(cloud_name: str) -> Connection:
    """The cloud by other eyes than the plugin's."""
    return openstack.connect(cloud=cloud_name)


@pytest.fixture(scope="module")
def plugin(cloud_name: str) -> Iterator[Plugin]:
    environment = {key: os.environ[key] for key in ("HOME", "OS_CLIENT_CONFIG_FILE") if key in os.environ}
    running = Plugin(EXECUTABLE, {"cloud": cloud_name}, environment)
    yield running
    running.close()


@pytest.fixture
def make(plugin: Plugin) -> Iterator[Maker]:
    maker = Maker(plugin)
    yield maker
    maker.clean()
