"""The OpenStack plugin on a real cloud.

``LAB_TEST_CLOUD`` names an entry of clouds.yaml; nothing else selects a cloud, so that no test ever touches one by
accident. Tests delete what they make, also when they fail.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import openstack
import pytest

from providers.values import plain, unmarshal
from tests.providers.plugin import Plugin, Resource, changed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openstack.connection import Connection
    from pulumi.runtime.proto import provider_pb2

    from providers.values import Properties


class Maker:
    """Creates resources, and deletes them at the end of the test, the latest first."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self._made: list[Resource] = []

    def __call__(self, token: str, inputs: Properties, *, name: str | None = None) -> Resource:
        began = datetime.now(UTC).isoformat()
        resource = self.plugin.create(token, inputs, name=name or f"test-{uuid.uuid4().hex[:8]}")
        self._made.append(resource)
        again = self.plugin.diff(resource, inputs)
        assert not changed(again), "a new resource differs from its own inputs"
        self._see_it_found(resource, inputs, began)
        return resource

    def _see_it_found(self, resource: Resource, inputs: Properties, began: str) -> None:
        """Had the engine been killed, the next run would know what the create has made."""
        found = self.plugin.recover(resource, began)
        assert found, f"an interrupted create of {resource.token} would not be found"
        assert found.id == resource.id
        lost = found.outputs.get("__lost")
        assert changed(self.plugin.diff(found, inputs)) == ({lost} if lost else set())

    def keep(self, resource: Resource) -> Resource:
        """Delete this at the end as well."""
        self._made.append(resource)
        return resource

    def changed(self, before: Resource, after: Resource) -> Resource:
        """Delete it as it is after an update."""
        self._made[self._made.index(before)] = after
        return after

    def keep_partial(
        self, token: str, name: str, inputs: Properties, partial: provider_pb2.ErrorResourceInitFailed
    ) -> Resource:
        """What a failed create left behind; deleted at the end as well."""
        return self.keep(Resource(token, name, partial.id, inputs, unmarshal(partial.properties)))

    def clean_last(self) -> None:
        """Delete the latest, again (that is no error), and see that it is gone."""
        resource = self._made.pop()
        self.plugin.delete(resource)
        found = self.plugin.read(resource)
        # An association's id is of a thing that outlives it.
        assert found is None or changed(self.plugin.diff(found, plain(resource.inputs))), (
            f"{resource.id} is still there"
        )
        self.plugin.delete(resource)

    def clean(self) -> None:
        while self._made:
            self.clean_last()


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
    keep = ("PATH", "HOME", "OS_CLIENT_CONFIG_FILE")
    with Plugin({key: os.environ[key] for key in keep if key in os.environ}) as running:
        running.configure(cloud=cloud_name)
        yield running


@pytest.fixture
def make(plugin: Plugin) -> Iterator[Maker]:
    maker = Maker(plugin)
    yield maker
    maker.clean()
