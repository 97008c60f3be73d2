"""The cloud: openstacksdk's connection made of the provider's configuration, and plain REST calls on its services.

Calls return the parsed JSON. A failure is a :class:`CloudError` with the call, the cloud's
response, its request id, and a remedy. Calls that may be repeated safely are repeated on 429, 500, 502, 503, 504,
broken connections and unreadable answers, honouring ``Retry-After``; a POST only where the cloud surely did nothing: it
said so (429, 503) or was not reached. After any other such failure of a POST its outcome is unknown; the error says so.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import openstack.config
import openstack.connection
import openstack.exceptions
import requests
import tenacity
import urllib3.exceptions
from keystoneauth1 import exceptions as ksa

from protocol.recovery import GRACE_SECONDS
from providers.framework import Operation, ProviderError
from providers.schema import BOOLEAN, INTEGER, STRING, Field, Map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from providers.values import Properties

T = TypeVar("T")

CONFIG: Final = (
    Field("allowReauth", BOOLEAN, "Log in again when the token expires."),
    Field("applicationCredentialId", description="Id of the application credential to log in with."),
    Field("applicationCredentialName", description="Name of the application credential to log in with."),
    Field("applicationCredentialSecret", description="Secret of the application credential.", secret=True),
    Field("authUrl", description="URL of the identity service."),
    Field("cacertFile", description="File with the certificate authorities to trust."),
    Field("cert", description="Client certificate file."),
    Field("cloud", description="Entry of clouds.yaml to use."),
    Field("defaultDomain", description="Domain id where none is given."),
    Field("delayedAuth", BOOLEAN, "Log in at the first request (always so here)."),
    Field("disableNoCacheHeader", BOOLEAN, "Accepted for compatibility; no such header is sent."),
    Field("domainId", description="Id of the domain to scope to."),
    Field("domainName", description="Name of the domain to scope to."),
    Field("enableLogging", BOOLEAN, "Accepted for compatibility; requests are never logged, they may hold secrets."),
    Field("endpointOverrides", Map(STRING), "URL of a service by its type, instead of the catalog's."),
    Field("endpointType", description="Interface of the catalog to use: public, internal or admin."),
    Field("insecure", BOOLEAN, "Accept any server certificate."),
    Field("key", description="Client key file."),
    Field("maxRetries", INTEGER, "How often to retry a failed connection."),
    Field("password", description="Password of the user.", secret=True),
    Field("projectDomainId", description="Id of the project's domain."),
    Field("projectDomainName", description="Name of the project's domain."),
    Field("region", description="Region to use."),
    Field("swauth", BOOLEAN, "Swift's own authentication.", validate=lambda on: "is not supported" if on else None),
    Field("systemScope", BOOLEAN, "Scope to the system."),
    Field("tenantId", description="Id of the project."),
    Field("tenantName", description="Name of the project."),
    Field("token", description="Token to use instead of a password.", secret=True),
    Field("userDomainId", description="Id of the user's domain."),
    Field("userDomainName", description="Name of the user's domain."),
    Field("userId", description="Id of the user."),
    Field("userName", description="Name of the user."),
)

# Configuration key -> (keystoneauth's option, environment variables). The variables are the official plugin's.
_AUTH: Final = {
    "applicationCredentialId": ("application_credential_id", ("OS_APPLICATION_CREDENTIAL_ID",)),
    "applicationCredentialName": ("application_credential_name", ("OS_APPLICATION_CREDENTIAL_NAME",)),
    "applicationCredentialSecret": ("application_credential_secret", ("OS_APPLICATION_CREDENTIAL_SECRET",)),
    "authUrl": ("auth_url", ("OS_AUTH_URL",)),
    "defaultDomain": ("default_domain_id", ("OS_DEFAULT_DOMAIN",)),
    "domainId": ("domain_id", ("OS_DOMAIN_ID",)),
    "domainName": ("domain_name", ("OS_DOMAIN_NAME",)),
    "password": ("password", ("OS_PASSWORD",)),
    "projectDomainId": ("project_domain_id", ("OS_PROJECT_DOMAIN_ID",)),
    "projectDomainName": ("project_domain_name", ("OS_PROJECT_DOMAIN_NAME",)),
    "tenantId": ("project_id", ("OS_TENANT_ID", "OS_PROJECT_ID")),
    "tenantName": ("project_name", ("OS_TENANT_NAME", "OS_PROJECT_NAME")),
    "token": ("token", ("OS_TOKEN", "OS_AUTH_TOKEN")),
    "userDomainId": ("user_domain_id", ("OS_USER_DOMAIN_ID",)),
    "userDomainName": ("user_domain_name", ("OS_USER_DOMAIN_NAME",)),
    "userId": ("user_id", ("OS_USER_ID",)),
    "userName": ("username", ("OS_USERNAME",)),
}
_OPTIONS: Final = {
    "cacertFile": ("cacert", ("OS_CACERT",)),
    "cert": ("cert", ("OS_CERT",)),
    "endpointType": ("interface", ("OS_ENDPOINT_TYPE", "OS_INTERFACE")),
    "insecure": ("insecure", ("OS_INSECURE",)),
    "key": ("key", ("OS_KEY",)),
}

_READING: Final = frozenset({"GET", "HEAD"})
_IDEMPOTENT: Final = _READING | {"PUT", "DELETE"}
_RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_RETRY_POST_STATUS: Final = frozenset({429, 503})
_UNCERTAIN_FOR: Final = {500: 0.0, 502: GRACE_SECONDS, 504: GRACE_SECONDS}
"""After these the cloud may have done what was asked; a gateway's do not even mean that it has ended."""
ATTEMPTS: Final = 12
"""With the delays between them they outlast the restart of a service: a minute and a half."""
CONTACT_ATTEMPTS: Final = 4
"""A service that was never reached may as well be the wrong one: a few seconds."""
_FIRST_DELAY: Final = 0.5  # seconds
_MAX_DELAY: Final = 15.0  # seconds
_MAX_RETRY_AFTER: Final = 300.0  # seconds that Retry-After is believed
_ANSWER_SECONDS: Final = 120.0  # for one answer, where clouds.yaml has no api_timeout; Nova itself waits up to 60
_REPORTED_DELAY: Final = 3.0  # seconds; longer delays between attempts are shown
_UNCONNECTED: Final = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_FAILURE_CACHE_SECONDS: Final = (
    30.0  # seconds that a service counts as unreachable, so that many resources fail at once
)

_REMEDIES: Final = (
    (r"quota|exceed.*limit|limit.*exceed|OverLimit", "Free what is not used, ask for a higher quota, or plan less."),
    (
        r"No valid host",
        "No host has room for this flavor, hints, zone and reservation: choose others or check the reservation.",
    ),
    (
        r"(ip ?address|fixed.?ip|address).*(in use|already allocated)|IpAddressInUse|IpAddressAlreadyAllocated",
        "Choose another address, or replace with delete_before_replace=True so that the old resource frees it first.",
    ),
    (r"flavor.*(not be found|not found)|FlavorNotFound", "`openstack flavor list` shows the flavors of this project."),
    (r"image.*(not be found|not found)|ImageNotFound", "`openstack image list` shows the images of this project."),
    (r"key_?pair.*(not be found|not found)|Invalid key_name", "`openstack keypair list` shows this user's key pairs."),
)
_STATUS_REMEDIES: Final = {
    401: "Check the credential: expired, revoked, or of another cloud? Stray OS_* variables can override it.",
    403: "The credential lacks a role or the policy forbids it; an application credential may be restricted.",
    409: "It is in use, or in a state that forbids this. See what else works on it, then run the command again.",
    429: "The cloud limits the request rate; lower --parallel.",
    **dict.fromkeys(
        (500, 502, 503, 504),
        "The cloud itself failed: run the command again. Its operators find the cause by the request id.",
    ),
}


def remedy_for(message: str) -> str | None:
    """What helps against a failure that the cloud describes so."""
    return next((text for pattern, text in _REMEDIES if re.search(pattern, message, re.IGNORECASE)), None)


class CloudError(ProviderError):
    """An API call that failed. ``status`` is None where no answer came."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        remedy: str | None = None,
        uncertain_for: float | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, uncertain_for=uncertain_for)
        self.status = status
        self.request_id = request_id


class _RetryableError(Exception):
    """Carries the failure that a later attempt may not meet, and how long the server asked to wait."""

    def __init__(self, error: CloudError, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


def _misconfigured(call: str, failure: Exception) -> CloudError:
    return CloudError(
        f"{call} failed: {_first_line(failure)}",
        remedy="Check the provider's configuration: identity URL, credential, region and endpoint type.",
    )


class Service:
    """One API of the cloud. Paths are below the versioned endpoint and begin with a slash."""

    def __init__(self, name: str, adapter: Any, attempts: int = ATTEMPTS) -> None:
        self.name = name
        self._adapter = adapter
        self._attempts = attempts

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        microversion: str | None = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        data: Any = None,
        repeatable: bool | None = None,
        as_json: bool = False,
    ) -> requests.Response:
        """One call, repeated where that is safe. ``body`` is sent as JSON, ``data`` as it is. Raises CloudError.

        ``as_json``: an answer that is no JSON is a failure.
        """
        if repeatable is None:
            repeatable = method in _IDEMPOTENT and data is None
        options = {
            "json": body,
            "data": data,
            "params": params,
            "headers": {"Accept": "application/json", **(headers or {})},  # Glance's errors are HTML otherwise
            "microversion": microversion,
        }
        given = {key: value for key, value in options.items() if value is not None}
        call = f"{method} {self.name}{path}"
        return _retry(
            call, self._attempts, lambda: self._attempt(method, path, given, repeatable=repeatable, as_json=as_json)
        )

    def _attempt(
        self, method: str, path: str, given: dict[str, Any], *, repeatable: bool, as_json: bool
    ) -> requests.Response:
        call, began = f"{method} {self.name}{path}", time.monotonic()
        try:
            response: requests.Response = self._adapter.request(path, method, raise_exc=False, **given)
        except ksa.SSLError as failure:
            raise _misconfigured(call, failure) from failure
        except (ksa.ConnectionError, ksa.RetriableConnectionFailure, requests.RequestException) as failure:
            arrived = method not in _READING and not _never_sent(failure)
            error = CloudError(
                f"{call} failed: {_first_line(failure)}",
                remedy="Is the cloud reachable from here? Check the network, the VPN and the identity URL.",
                # A cloud that was slow to answer is slow to make things, too.
                uncertain_for=max(GRACE_SECONDS, time.monotonic() - began) if arrived else None,
            )
            if repeatable or not arrived:
                raise _RetryableError(error) from failure
            raise error from failure
        except ksa.HttpError as failure:
            error = self._error(call, failure.http_status, str(failure.message), failure.request_id)
            if failure.http_status in _RETRY_STATUS:  # Keystone's answer to a login
                raise _RetryableError(error, _retry_after(failure.response)) from failure
            raise error from failure
        except (ksa.ClientException, openstack.exceptions.SDKException) as failure:
            raise _misconfigured(call, failure) from failure
        status = response.status_code
        request_id = response.headers.get("x-openstack-request-id") or response.headers.get("x-compute-request-id")
        if status < 400:
            if not as_json or not response.content or _is_structure(response):
                return response
            error = self._error(call, status, "what came is no JSON", request_id, uncertain_for=0.0)
            if repeatable:
                raise _RetryableError(error)
            raise error
        error = self._error(
            call,
            status,
            _message(response),
            request_id,
            uncertain_for=None if method in _READING else _UNCERTAIN_FOR.get(status),
        )
        if status in (_RETRY_STATUS if repeatable else _RETRY_POST_STATUS):
            raise _RetryableError(error, _retry_after(response))
        raise error

    @staticmethod
    def _error(
        call: str, status: int, message: str, request_id: str | None, *, uncertain_for: float | None = None
    ) -> CloudError:
        reference = f" ({request_id})" if request_id else ""
        return CloudError(
            f"{call} answered {status}: {message}{reference}",
            status=status,
            request_id=request_id,
            remedy=remedy_for(message) or _STATUS_REMEDIES.get(status),
            uncertain_for=uncertain_for,
        )

    def get(self, path: str, **options: Any) -> Any:
        """GET; the parsed JSON."""
        return self.request("GET", path, as_json=True, **options).json()

    def find(self, path: str, **options: Any) -> Any | None:
        """GET; None where the cloud answers 404."""
        try:
            return self.get(path, **options)
        except CloudError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """POST; the parsed JSON, None without a body."""
        return _json(self.request("POST", path, body, as_json=True, **options))

    def put(self, path: str, body: Any = None, **options: Any) -> Any:
        """PUT; the parsed JSON, None without a body."""
        return _json(self.request("PUT", path, body, as_json=True, **options))

    def patch(self, path: str, body: Any, **options: Any) -> Any:
        """PATCH; the parsed JSON, None without a body."""
        return _json(self.request("PATCH", path, body, as_json=True, **options))

    def delete(self, path: str, **options: Any) -> bool:
        """DELETE; False where it was gone already."""
        try:
            self.request("DELETE", path, **options)
        except CloudError as error:
            if error.status == 404:
                return False
            raise
        return True

    def list(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """All items of a collection, following the pages' ``<key>_links`` or ``links``."""
        page = self.get(path, params=params)
        while True:
            yield from page[key]
            links = page.get(f"{key}_links") or page.get("links") or ()
            following = (
                links.get("next")
                if isinstance(links, dict)
                else next((link["href"] for link in links if link["rel"] == "next"), None)
            )
            if not following:
                return
            page = self.get(following)


class _ServiceAttribute:
    """An attribute of :class:`Cloud`: the service of the attribute's name."""

    def __set_name__(self, owner: type[Cloud], name: str) -> None:
        self.name = name

    def __get__(self, cloud: Cloud, owner: type[Cloud] | None = None) -> Service:
        return cloud.service(self.name)


class Cloud:
    """The cloud in one region. Making it reads configuration only; the first call logs in.

    Raises ProviderError when the configuration names no cloud, or one that clouds.yaml lacks.
    """

    def __init__(self, config: Properties) -> None:
        self.config = config
        self._lock = threading.RLock()
        self._attempts = ATTEMPTS if config.get("maxRetries") is None else 1 + int(config["maxRetries"])
        self._services: dict[str, Service] = {}
        self._failures: dict[str, tuple[float, CloudError]] = {}
        self._regions: dict[str, Cloud] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lookups: dict[tuple[str, str], str] = {}
        self.known: dict[tuple[str, str], Properties] = {}
        """What names and ids refer to, by kind and name; see names.py."""
        self._region_config = _region_config(config)
        self.region: str = self._region_config.region_name or ""

    def in_region(self, region: str | None) -> Cloud:
        """This cloud in another region; itself for the same one or None."""
        if not region or region == self.region:
            return self
        with self._lock:
            if region not in self._regions:
                self._regions[region] = Cloud({**self.config, "region": region})
            return self._regions[region]

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """One at a time for what the cloud cannot do concurrently, such as a router's interfaces."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            yield

    def remember(self, key: tuple[str, str], look_up: Callable[[], str]) -> str:
        """What never changes (the name of a flavor's id), asked for once."""
        if key not in self._lookups:
            self._lookups[key] = look_up()
        return self._lookups[key]

    @cached_property
    def connection(self) -> openstack.connection.Connection:
        """openstacksdk's connection, for what has no plain REST form (image upload, large objects)."""
        return openstack.connection.Connection(config=self._region_config)

    @property
    def project_id(self) -> str:
        """Id of the project that the credential is scoped to."""
        return self.connection.current_project_id or ""

    def service(self, name: str) -> Service:
        """A service by openstacksdk's name of it: compute, network, block_storage, image..."""
        with self._lock:
            found = self._services.get(name)
            if found is None:
                since, recent = self._failures.get(name, (0.0, None))
                if recent and time.monotonic() - since < _FAILURE_CACHE_SECONDS:
                    raise recent
                try:
                    # Where one service was reached, the others are no mistake.
                    attempts = self._attempts if self._services else min(CONTACT_ATTEMPTS, self._attempts)
                    adapter = _retry(f"the contact to the {name} service", attempts, lambda: self._contact(name))
                except CloudError as failure:
                    self._failures[name] = time.monotonic(), failure
                    raise
                found = self._services[name] = Service(name, adapter, self._attempts)
            return found

    def _contact(self, name: str) -> Any:
        """Log in where that was not done yet, and find the service."""
        try:
            return getattr(self.connection, name)
        except (ksa.ClientException, openstack.exceptions.SDKException) as reason:
            status = getattr(reason, "http_status", None) or getattr(reason, "status_code", None)
            error = CloudError(
                f"cannot reach the {name} service: {_first_line(reason)}",
                status=status,
                request_id=getattr(reason, "request_id", None),
                remedy=_STATUS_REMEDIES.get(status or 0)
                or "Check identity URL, credential, region, and that the cloud has this service.",
            )
            unreachable = isinstance(reason, ksa.ConnectionError) and not isinstance(reason, ksa.SSLError)
            if unreachable or status in _RETRY_STATUS:
                raise _RetryableError(error, _retry_after(getattr(reason, "response", None))) from reason
            raise error from reason

    compute = _ServiceAttribute()
    network = _ServiceAttribute()
    block_storage = _ServiceAttribute()
    image = _ServiceAttribute()
    identity = _ServiceAttribute()
    dns = _ServiceAttribute()
    load_balancer = _ServiceAttribute()
    object_store = _ServiceAttribute()


def _setting(config: Properties, key: str, variables: tuple[str, ...]) -> Any:
    """The configured value; without clouds.yaml also the environment's."""
    value = config.get(key)
    if value is None and not _cloud_name(config):
        value = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    return value


def _cloud_name(config: Properties) -> str | None:
    # An identity URL in the configuration wins over OS_CLOUD, and is never mixed with clouds.yaml.
    return config.get("cloud") or (None if config.get("authUrl") else os.environ.get("OS_CLOUD"))


def _region_config(config: Properties) -> Any:
    cloud = _cloud_name(config)
    auth = {option: value for key, (option, names) in _AUTH.items() if (value := _setting(config, key, names))}
    options = {option: value for key, (option, names) in _OPTIONS.items() if (value := _setting(config, key, names))}
    if str(options.pop("insecure", "")).lower() in {"true", "1", "yes", "t"}:
        options["verify"] = False
    domain = auth.pop("default_domain_id", None) or "default"
    for owner, named in (("project", "project_name"), ("user", "username")):
        if named in auth and not cloud and not {f"{owner}_domain_id", f"{owner}_domain_name"} & auth.keys():
            auth[f"{owner}_domain_id"] = domain
    if config.get("systemScope"):
        auth["system_scope"] = "all"
    if any(key.startswith("application_credential") for key in auth):
        options["auth_type"] = "v3applicationcredential"
    elif "token" in auth:
        options["auth_type"] = "v3token"
    for service, url in (config.get("endpointOverrides") or {}).items():
        options[f"{service.replace('-', '_')}_endpoint_override"] = url
    region = config.get("region") or os.environ.get("OS_REGION_NAME")
    if region:
        options["region_name"] = region
    if not cloud and "auth_url" not in auth:
        raise ProviderError(
            "no OpenStack cloud is configured",
            remedy="Set openstack:cloud or OS_CLOUD to an entry of clouds.yaml, or openstack:authUrl and a credential.",
        )
    # The environment names the clouds.yaml files; its credentials were taken above, where they apply.
    loader = openstack.config.OpenStackConfig(load_yaml_config=bool(cloud), load_envvars=bool(cloud))
    try:
        found = loader.get_one(cloud=cloud, auth=auth, **options)
    except (openstack.exceptions.SDKException, ksa.ClientException) as failure:
        raise ProviderError(
            f"the OpenStack configuration is not usable: {_first_line(failure)}",
            remedy="See openstack:cloud, OS_CLOUD, OS_CLIENT_CONFIG_FILE and clouds.yaml.",
        ) from failure
    # Without it, a dead connection blocks for ever.
    found.config["api_timeout"] = found.config.get("api_timeout") or _ANSWER_SECONDS
    return found


def _retry(what: str, attempts: int, call: Callable[[], T]) -> T:
    """Repeat a call while it raises _RetryableError; raises the last one's CloudError.

    Shows the retry beside the current operation's resource, and ends with that operation.
    """
    operation = Operation.current()

    def sleep(seconds: float) -> None:
        if operation is None:
            time.sleep(seconds)
            return
        if seconds > _REPORTED_DELAY:
            operation.status(f"{what} failed; retrying in {seconds:.0f} s")
        operation.cancelled.wait(min(seconds, operation.remaining()))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_RetryableError),
        stop=lambda state: state.attempt_number >= attempts or (operation is not None and operation.ended),
        wait=_delay,
        sleep=sleep,
        reraise=True,
    )
    try:
        return retrying(call)
    except _RetryableError as failure:
        raise failure.error from None


def _delay(state: tenacity.RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.after if isinstance(failure, _RetryableError) else None
    backoff = tenacity.wait_exponential_jitter(_FIRST_DELAY, _MAX_DELAY, jitter=_FIRST_DELAY)(state)
    return min(asked, _MAX_RETRY_AFTER) if asked is not None else backoff


def _retry_after(response: requests.Response | None) -> float | None:
    value = response.headers.get("Retry-After", "") if response is not None else ""
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _never_sent(failure: Exception) -> bool:
    """Whether the request did not go out, as there was no connection; requests tells by the reason that it wraps."""
    wrapped = failure.__context__ if isinstance(failure, ksa.ConnectionError) else failure
    cause = wrapped.args[0] if wrapped is not None and wrapped.args else None
    return isinstance(getattr(cause, "reason", None), _UNCONNECTED)


def _is_structure(response: requests.Response) -> bool:
    try:
        return isinstance(response.json(), dict | list)
    except ValueError:
        return False


def _message(response: requests.Response) -> str:
    """What the services call the reason: each has its own envelope."""
    try:
        body = response.json()
    except ValueError:
        return _first_line(response.text) or str(response.reason)
    while isinstance(body, dict):
        text = next((body[key] for key in ("message", "faultstring", "detail") if body.get(key)), None)
        if text is not None:
            body = text
        elif body:
            body = next(iter(body.values()))
        else:
            break
    return re.sub(r"\s*<br */?>", "", str(body)).strip() or str(response.reason)  # Glance ends its messages so


def _json(response: requests.Response) -> Any:
    return response.json() if response.content else None


def _first_line(failure: object) -> str:
    return str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
