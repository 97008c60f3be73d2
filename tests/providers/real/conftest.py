"""The OpenStack plugin on a real cloud.

``LAB_TEST_CLOUD`` names an entry of clouds.yaml; nothing else selects a cloud, so that no test ever touches one by
accident. Tests delete what they make, also when they fail.

``--record-types tests/providers/real/devcloud.json`` adds what a run did with each type, if all of it passed, to that
file, of which the reference page is made. To begin anew, delete it.
"""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import openstack
import pytest

from providers.openstack.__main__ import package
from providers.values import plain, unmarshal
from tests.providers.plugin import PERFORMED, Plugin, Resource, changed

# A type's module, where not every cloud has what serves it: the service's type and name.
SERVICES = {
    "dns": ("dns", "Designate"),
    "loadbalancer": ("load-balancer", "Octavia"),
    "objectstorage": ("object-store", "Swift"),
}

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
        others = [one.id for one in self._made if one.token == resource.token and one is not resource]
        found = self.plugin.recover(resource, began, others)
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
        """Delete the latest."""
        self._delete(self._made.pop())

    def replaced(self, before: Resource, inputs: Properties, *, delete_first: bool) -> Resource:
        """Replace it as the engine does."""
        if delete_first:
            self._made.remove(before)
            self._delete(before)
        after = self(before.token, inputs)
        if not delete_first:
            assert after.id != before.id
            self._made.remove(before)
            self._delete(before)
        PERFORMED[before.token].add("replace")
        return after

    def _delete(self, resource: Resource) -> None:
        """Delete, again (that is no error), and see that it is gone."""
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-types", type=Path, metavar="PATH", help="add what was done with each type")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--record-types", default=None)
    if path and exitstatus == pytest.ExitCode.OK:
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(record(before), indent=1, sort_keys=True) + "\n")


def record(before: dict[str, list[str] | str]) -> dict[str, list[str] | str]:
    """What this run and those before did with each type and function, or which service the cloud lacks for it."""
    name = os.environ["LAB_TEST_CLOUD"]
    served = {entry["type"] for entry in openstack.connect(cloud=name).service_catalog}
    found: dict[str, list[str] | str] = {}
    provider = package()
    for token in [kind.token for kind in provider.types] + [function.token for function in provider.functions]:
        needed, service = SERVICES.get(token.split(":")[1].split("/")[0], ("", ""))
        missing = needed and needed not in served
        found[token] = f"{name} has no {service}" if missing else sorted(PERFORMED[token].union(before.get(token, [])))
    return found


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
