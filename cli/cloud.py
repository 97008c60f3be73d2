"""Connects `doctor` and `sweep` to the cloud with openstacksdk, with timeouts and readable errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import openstack
from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException
from openstack.exceptions import HttpException, SDKException

from cli.errors import LabError

if TYPE_CHECKING:
    from openstack.connection import Connection

    from cli.session import Session

TIMEOUT_SECONDS = 30
CloudError = (SDKException, ClientException)


def connect(session: Session, cloud: str | None = None) -> Connection:
    """Connect to `cloud` of clouds.yaml; by default the one in the stack's settings, or else in the environment.

    Sends no request yet.

    Raises:
        LabError: clouds.yaml has no such entry, or no cloud is configured.
    """
    from cli.default_cloud import is_up, point_to_devcloud

    region = None
    if cloud is None:
        cloud, region = _configured(session)
        if point_to_devcloud(session, session.stack_option or session.current_stack()) and not is_up():
            raise LabError("the stack's cloud, devcloud, is not running", remedy="start it: lab devcloud up")
    try:
        return openstack.connect(cloud=cloud, region_name=region, api_timeout=TIMEOUT_SECONDS)
    except CloudError as error:
        raise LabError(
            f"cannot connect to cloud '{cloud}': {error}" if cloud else f"no cloud is configured: {error}",
            remedy="set an entry of clouds.yaml: `lab config set --path cloud.name NAME`, or OS_CLOUD",
        ) from None


def _configured(session: Session) -> tuple[str | None, str | None]:
    """Entry of clouds.yaml and region in the settings, without checking other settings."""
    stack = session.stack_option or session.current_stack()
    value = session.config(session.parse_stack(stack)).get("cloud") if stack else None
    try:
        settings = json.loads(value.value) if value else {}
    except ValueError:
        settings = {}
    return (settings.get("name"), settings.get("region")) if isinstance(settings, dict) else (None, None)


def offers(cloud: Connection, *types: str) -> bool:
    """Whether the service catalog has one of `types`."""
    return bool({service["type"] for service in cloud.service_catalog} & set(types))


def blazar(cloud: Connection) -> Adapter:
    """Blazar's API, for which openstacksdk has no classes."""
    return Adapter(
        cloud.session,
        service_type="reservation",
        interface=cloud.config.get_interface(),
        region_name=cloud.config.get_region_name(),
        connect_retries=1,
    )


def explain(error: Exception) -> str:
    """The cloud's error message with the request ID, which operators can find in their logs."""
    text = str(error.details or error.message) if isinstance(error, HttpException) else str(error)
    request = getattr(error, "request_id", None)
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    details = [f"HTTP {status}"] if status and f"HTTP {status}" not in text else []
    details += [f"request {request}"] if request and request not in text else []
    return " ".join(text.split()) + (f" ({', '.join(details)})" if details else "")
