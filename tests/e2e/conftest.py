"""The devcloud that all end-to-end tests use, and what they look at it with."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from devcloud.layout import PORTS
from tests.devcloud.support import connect, running
from tests.e2e.fault_proxy import Proxy
from tests.e2e.harness import BUNDLE, Cloud, Deployment, wait
from tests.e2e.platform_stack import FOUND, VERSION, Found, PlatformStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud

PLATFORM = "e2e-platform"


@pytest.fixture(scope="session")
def devcloud() -> Devcloud:
    """The cloud that all tests of this folder use."""
    return running()


@pytest.fixture(scope="session")
def student(devcloud: Devcloud) -> Connection:
    """The account that stacks use, past any proxy."""
    return connect(devcloud, "devcloud")


@pytest.fixture
def proxy(devcloud: Devcloud) -> Iterator[Proxy]:
    """A proxy in front of every API."""
    names = PORTS.keys() - {"nova-metadata"}
    with Proxy({name: devcloud.layout.url(name) for name in names}) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def cloud(devcloud: Devcloud, student: Connection) -> Cloud:
    """The cloud as its users and its databases see it."""
    return Cloud(devcloud, student, connect(devcloud, "devcloud-admin"))


@pytest.fixture(scope="session")
def deploy(
    cloud: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], AbstractContextManager[Deployment]]:
    """Makes a stack of a name, of the settings of stack `dev`; what a failed test leaves in the cloud is swept."""

    @contextmanager
    def making(stack: str) -> Iterator[Deployment]:
        deployment = Deployment(tmp_path_factory.mktemp(stack), cloud, stack)
        deployment.run("sweep", "--yes")
        try:
            yield deployment
        finally:
            deployment.run("sweep", "--yes")

    return making


@pytest.fixture(scope="session")
def platform(
    cloud: Cloud,
    deploy: Callable[[str], AbstractContextManager[Deployment]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PlatformStack]:
    """A cluster with the platform, its example trained and served: made for the tests, unless one is named that is up.

    Costs about 10 minutes on idle cores, 10 GiB of memory beside the cloud's, and a bundle (`lab bundle build`).
    """
    folder = tmp_path_factory.mktemp("platform")
    if found := os.environ.get(FOUND):
        yield PlatformStack(Found(folder, cloud, found), folder)
        return
    with deploy(PLATFORM) as lab:
        lab.change(
            lease="none",
            cluster={"kubernetesVersion": VERSION, "bundle": str(BUNDLE)},
            platform={"profile": "lab", "example": True, "backup": {"copyTo": {"volume": "backups"}}},
            storage__volumes={"backups": {"sizeGb": 2, "attachTo": "worker-1", "holds": "backups"}},
            nodes__groups__control__flavor="m1.medium",
            # Either carries all that can move, while the other is drained.
            nodes__groups__worker__flavor="m1.large",
        )
        lab.change(nodes__groups__worker__count=2)
        lab.run("up", "--yes", "--skip-preview")
        yield PlatformStack(lab, folder)
        lab.perform("destroy")
        assert lab.run("sweep", "--json").json == []
        wait(partial(cloud.has_no_rows, PLATFORM), "nothing is left in the databases")
