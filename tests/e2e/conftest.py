"""The devcloud that all end-to-end tests use, and what they look at it with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from devcloud.layout import PORTS
from tests.devcloud.support import connect, running
from tests.e2e.fault_proxy import Proxy
from tests.e2e.harness import Cloud, Deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud


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
