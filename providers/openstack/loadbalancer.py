"""Load balancers and their listeners, pools, members and monitors (Octavia).

A load balancer is immutable while any part of it changes, so every call waits until it is ACTIVE, and is repeated when
another change came first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from providers.framework import NotYetError, Operation, ProviderError, ResourceType, Timeouts
from providers.openstack import normal
from providers.openstack.client import Cloud, CloudError, Service
from providers.openstack.normal import ADDRESS, NETWORK
from providers.openstack.rest import (
    DESCRIPTION,
    NAME,
    REGION,
    TENANT_ID,
    RestType,
    from_api,
    given,
    only_candidate,
    pair,
    to_api,
)
from providers.schema import BOOLEAN, INTEGER, STRING, CheckFailure, Difference, Field, List, Map, Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from providers.framework import Function
    from providers.values import Properties

T = TypeVar("T")

_STRINGS: Final = List(STRING)
_TAGS: Final = Field("tags", List(STRING, unordered=True))
_ADMIN: Final = Field("adminStateUp", BOOLEAN, "Off: it exists, but does nothing.", default=True)


def _each_of(*known: str) -> Callable[[list[str]], str | None]:
    def fault(values: list[str]) -> str | None:
        wrong = next((value for value in values if value not in known), None)
        return f"holds {wrong!r}, which is none of {', '.join(known)}" if wrong else None

    return fault


_TLS: Final = (
    Field(
        "alpnProtocols", List(STRING, unordered=True), computed=True, validate=_each_of("http/1.0", "http/1.1", "h2")
    ),
    Field("tlsCiphers", description="OpenSSL's notation.", computed=True),
    Field(
        "tlsVersions",
        List(STRING, unordered=True),
        computed=True,
        validate=_each_of("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    ),
)


def _between(low: int, high: int) -> Callable[[int], str | None]:
    return lambda value: None if low <= value <= high else f"must be between {low} and {high}"


_PORT_NUMBER: Final = _between(1, 65535)


def _when_active(service: Service, balancer: str, what: str, call: Callable[[], T | None], operation: Operation) -> T:
    """The result of ``call``, which is made when the load balancer is ACTIVE, and repeated while it is immutable."""

    def attempt() -> T | None:
        status = service.get(f"/lbaas/loadbalancers/{balancer}")["loadbalancer"]["provisioning_status"]
        if status == "ERROR":
            raise ProviderError(
                f"load balancer {balancer} is in status ERROR and accepts no changes",
                remedy="Replace the load balancer (--replace its URN), or have the operators fail it over.",
            )
        if status != "ACTIVE":
            return None
        try:
            return call()
        except CloudError as error:
            if error.status == 409 and "immutable" in str(error):
                raise NotYetError(error) from error
            raise

    return operation.wait(f"{what} (load balancer {balancer} is busy)", attempt)


class _OctaviaType(RestType):
    """One type of Octavia's objects; ``path`` may hold fields of the state in braces."""

    service = "load_balancer"
    local: ClassVar = frozenset()
    renamed: ClassVar[Mapping[str, str]] = {"tenantId": "project_id"}

    def sent(self) -> list[Field]:
        return [field for field in self.fields if field.name not in {"region"} | self.local]

    def where(self, state: Properties) -> str:
        """Path of the collection."""
        return self.path.format_map(state)

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        service, path = self.api(client, inputs), self.where(inputs)
        fitting = (
            item
            for item in service.list(path, self.collection(), name=inputs["name"])
            if item.get("provisioning_status") != "DELETED" and self.fits(client, item, inputs)
        )
        found = only_candidate(self.key, fitting, operation)
        if found is None:
            return None
        id_: str = found["id"]
        operation.created(id_)
        self._wait_active(service, f"{path}/{id_}", operation)
        return id_

    def balancer(self, service: Service, state: Properties, id_: str | None) -> str:
        """Id of the load balancer that it belongs to."""
        if pool_id := state.get("poolId"):
            parent = service.get(f"/lbaas/pools/{pool_id}")["pool"]
        elif listener_id := state.get("listenerId"):
            parent = service.get(f"/lbaas/listeners/{listener_id}")["listener"]
        elif state.get("loadbalancerId"):
            return str(state["loadbalancerId"])
        else:
            parent = service.get(f"{self.where(state)}/{id_}")[self.key]
        return str(parent["loadbalancers"][0]["id"])

    def _wait_active(self, service: Service, path: str, operation: Operation) -> Properties:
        def active() -> Properties | None:
            item: Properties = service.get(path)[self.key]
            status = item.get("provisioning_status", "ACTIVE")
            if status == "ERROR":
                raise ProviderError(
                    f"{self.key} {item['id']} is in status ERROR",
                    remedy=f"Replace it: run the update with --replace '{operation.urn}'.",
                )
            return item if status == "ACTIVE" else None

        return operation.wait(f"{self.key} to be ACTIVE", active)

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        service, path = self.api(client, inputs), self.where(inputs)
        body = {self.key: self.body(client, inputs)}
        item = _when_active(
            service,
            self.balancer(service, inputs, None),
            f"to create {operation.name}",
            lambda: service.post(path, body)[self.key],
            operation,
        )
        id_: str = item["id"]
        operation.created(id_)
        self._wait_active(service, f"{path}/{id_}", operation)
        return id_

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        answer = self.api(client, state).find(f"{self.where(state)}/{id_}")
        if answer is None or answer[self.key].get("provisioning_status") == "DELETED":
            return None
        properties = self.attributes(client, answer[self.key], state)
        return {**properties, "region": client.in_region(state.get("region")).region}

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        service, path = self.api(client, olds), f"{self.where(olds)}/{id_}"
        changes = self.changes(client, olds, news)
        if changes:
            _when_active(
                service,
                self.balancer(service, olds, id_),
                f"to update {operation.name}",
                lambda: service.put(path, {self.key: changes}) or True,
                operation,
            )
        self._wait_active(service, path, operation)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        service, path = self.api(client, state), f"{self.where(state)}/{id_}"

        def gone() -> bool | None:
            found = service.find(path)
            status = found and found[self.key].get("provisioning_status")
            if found is None or status == "DELETED":
                return True
            if status != "PENDING_DELETE":
                try:
                    service.delete(path)
                except CloudError as error:
                    if error.status == 409:
                        raise NotYetError(error) from error
                    raise
            return None

        operation.wait(f"{self.key} {id_} to be gone", gone)


class LoadBalancer(_OctaviaType):
    """A load balancer: a virtual IP and what serves it."""

    token = "openstack:loadbalancer/loadBalancer:LoadBalancer"
    description = "A load balancer."
    timeouts = Timeouts(delete=300)
    path = "/lbaas/loadbalancers"
    key = "loadbalancer"
    local: ClassVar = frozenset({"securityGroupIds"})
    renamed: ClassVar = {"tenantId": "project_id", "loadbalancerProvider": "provider"}
    fields = (
        REGION,
        NAME,
        DESCRIPTION,
        Field("vipNetworkId", description="Network of the virtual IP.", computed=True, force_new=True),
        Field("vipSubnetId", description="Subnet of the virtual IP.", computed=True, force_new=True),
        Field("vipPortId", description="Port of the virtual IP.", computed=True, force_new=True),
        Field("vipAddress", ADDRESS, computed=True, force_new=True),
        Field("vipQosPolicyId"),
        TENANT_ID,
        _ADMIN,
        Field("flavorId", computed=True, force_new=True),
        Field("loadbalancerProvider", description="Driver, such as amphora or ovn.", computed=True, force_new=True),
        Field("availabilityZone", force_new=True),
        Field("securityGroupIds", List(STRING, unordered=True), "Groups of the virtual IP's port.", computed=True),
        _TAGS,
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if not given(inputs, "vipNetworkId", "vipSubnetId", "vipPortId"):
            yield CheckFailure("vipSubnetId", "is required, or vipNetworkId, or vipPortId")

    def balancer(self, service: Service, state: Properties, id_: str | None) -> str:
        return id_ or ""

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        service = self.api(client, inputs)
        id_: str = self.post(service, {self.key: self.body(client, inputs)}, inputs, operation)["id"]
        operation.created(id_)
        made = self._wait_active(service, f"{self.path}/{id_}", operation)
        self._guard(client, made["vip_port_id"], inputs)
        return id_

    @staticmethod
    def _guard(client: Cloud, port: str | None, inputs: Properties) -> None:
        if port and inputs.get("securityGroupIds") is not None:
            network = client.in_region(inputs.get("region")).network
            network.put(f"/ports/{port}", {"port": {"security_groups": inputs["securityGroupIds"]}})

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        properties = super().attributes(client, found, state)
        port = found.get("vip_port_id")
        answer = client.in_region(state.get("region")).network.find(f"/ports/{port}") if port else None
        return {**properties, "securityGroupIds": sorted(answer["port"]["security_groups"]) if answer else []}

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        super().update(client, id_, olds, news, operation)
        if "securityGroupIds" in self.changed(olds, news):
            self._guard(client, olds.get("vipPortId"), {**news, "region": olds.get("region")})


class Listener(_OctaviaType):
    """A port of a load balancer."""

    token = "openstack:loadbalancer/listener:Listener"
    description = "A listener of a load balancer."
    path = "/lbaas/listeners"
    key = "listener"
    fields = (
        REGION,
        Field("loadbalancerId", required=True, force_new=True),
        Field(
            "protocol",
            required=True,
            force_new=True,
            choices=("TCP", "UDP", "SCTP", "HTTP", "HTTPS", "TERMINATED_HTTPS", "PROMETHEUS"),
        ),
        Field("protocolPort", INTEGER, required=True, force_new=True, validate=_PORT_NUMBER),
        TENANT_ID,
        NAME,
        DESCRIPTION,
        _ADMIN,
        Field("defaultPoolId", description="Pool for requests that no policy redirects.", computed=True),
        Field("connectionLimit", INTEGER, "-1: none.", computed=True),
        *(
            Field(name, INTEGER, "Milliseconds.", computed=True)
            for name in ("timeoutClientData", "timeoutMemberConnect", "timeoutMemberData", "timeoutTcpInspect")
        ),
        Field("insertHeaders", Map(STRING), "Headers to add to requests, such as X-Forwarded-For."),
        Field("allowedCidrs", List(NETWORK, unordered=True), "Who may connect; everyone by default."),
        Field("defaultTlsContainerRef", description="URL of the certificate in the key manager."),
        Field("sniContainerRefs", _STRINGS, "URLs of further certificates."),
        Field("clientAuthentication", choices=("NONE", "OPTIONAL", "MANDATORY")),
        Field("clientCaTlsContainerRef", description="URL of the authority for clients' certificates."),
        Field("clientCrlContainerRef", description="URL of its revocation list."),
        Field("hstsIncludeSubdomains", BOOLEAN),
        Field("hstsMaxAge", INTEGER, "Seconds."),
        Field("hstsPreload", BOOLEAN),
        *_TLS,
        _TAGS,
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        for name in ("hstsIncludeSubdomains", "hstsPreload"):
            if inputs.get(name) and inputs.get("hstsMaxAge") is None:
                yield CheckFailure(name, "needs hstsMaxAge")

    @staticmethod
    def _settled(olds: Properties) -> Properties:
        # Octavia stores an empty value as NONE.
        return {**olds, "clientAuthentication": ""} if olds.get("clientAuthentication") == "NONE" else olds

    def differences(self, olds: Properties, news: Properties) -> Iterator[Difference]:
        same = news.get("clientAuthentication") == olds.get("clientAuthentication")
        return super().differences(olds if same else self._settled(olds), news)

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        changes = super().changes(client, self._settled(olds), news)
        if changes.get("client_authentication") == "":
            changes["client_authentication"] = "NONE"
        return changes

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        properties = super().attributes(client, found, state)
        return {**properties, "loadbalancerId": found["loadbalancers"][0]["id"]}


_PERSISTENCE: Final = Object(
    (
        Field("type", required=True, choices=("SOURCE_IP", "HTTP_COOKIE", "APP_COOKIE")),
        Field("cookieName", description="For APP_COOKIE."),
    )
)


class Pool(_OctaviaType):
    """The members behind a listener."""

    token = "openstack:loadbalancer/pool:Pool"
    description = "A pool of members."
    path = "/lbaas/pools"
    key = "pool"
    renamed: ClassVar = {
        "tenantId": "project_id",
        "lbMethod": "lb_algorithm",
        "persistence": "session_persistence",
    }
    fields = (
        REGION,
        TENANT_ID,
        NAME,
        DESCRIPTION,
        Field(
            "protocol",
            required=True,
            force_new=True,
            choices=("TCP", "UDP", "HTTP", "HTTPS", "PROXY", "SCTP", "PROXYV2"),
        ),
        Field("loadbalancerId", description="This or listenerId.", force_new=True, conflicts=("listenerId",)),
        Field(
            "listenerId",
            description="Listener whose default pool it becomes.",
            force_new=True,
            conflicts=("loadbalancerId",),
        ),
        Field("lbMethod", required=True, choices=("ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP", "SOURCE_IP_PORT")),
        Field("persistence", _PERSISTENCE, "Send a client to the same member."),
        _ADMIN,
        Field("tlsEnabled", BOOLEAN, "Speak TLS to the members."),
        Field("tlsContainerRef", description="URL of the client certificate in the key manager."),
        Field("caTlsContainerRef", description="URL of the authority for the members' certificates."),
        Field("crlContainerRef", description="URL of its revocation list."),
        *_TLS,
        _TAGS,
    )

    def check(self, inputs: Properties) -> Iterable[CheckFailure]:
        if not given(inputs, "loadbalancerId", "listenerId"):
            yield CheckFailure("loadbalancerId", "or listenerId is required")
        persistence = inputs.get("persistence")
        if isinstance(persistence, dict) and isinstance(persistence.get("type"), str):
            cookie = given(persistence, "cookieName")
            if persistence["type"] == "APP_COOKIE" and not cookie:
                yield CheckFailure("persistence.cookieName", "is required by APP_COOKIE")
            if persistence["type"] != "APP_COOKIE" and cookie:
                yield CheckFailure("persistence.cookieName", "is for APP_COOKIE alone")

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        properties = super().attributes(client, found, state)
        # A pool made for a listener belongs to the load balancer too: only an import has to choose.
        for name in ("loadbalancerId", "listenerId"):
            del properties[name]
        if not given(state, "loadbalancerId", "listenerId"):
            if found["listeners"]:
                properties["listenerId"] = found["listeners"][0]["id"]
            else:
                properties["loadbalancerId"] = found["loadbalancers"][0]["id"]
        return properties


_MEMBER: Final = (
    Field("name"),
    Field("weight", INTEGER, "Share of the connections, 0 to 256.", validate=_between(0, 256)),
    Field("backup", BOOLEAN, "Only used when all others are down."),
    Field("monitorAddress", ADDRESS, "Where to check its health, if elsewhere."),
    Field("monitorPort", INTEGER, "Where to check its health, if elsewhere.", validate=_PORT_NUMBER),
)


class Member(_OctaviaType):
    """A server behind a pool."""

    token = "openstack:loadbalancer/member:Member"
    import_id = "<pool id>/<id>"
    description = "A member of a pool."
    path = "/lbaas/pools/{poolId}/members"
    key = "member"
    local: ClassVar = frozenset({"poolId"})
    fields = (
        REGION,
        NAME,
        TENANT_ID,
        Field("poolId", required=True, force_new=True),
        Field("address", ADDRESS, "IP address.", required=True, force_new=True),
        Field("protocolPort", INTEGER, required=True, force_new=True, validate=_PORT_NUMBER),
        Field("weight", INTEGER, "Share of the connections, 0 to 256.", computed=True, validate=_between(0, 256)),
        Field("subnetId", description="Subnet to reach it by.", force_new=True),
        _ADMIN,
        *_MEMBER[2:],
        _TAGS,
    )

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        return _without_monitor(super().changes(client, olds, news))

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        if "/" not in id_:
            return super().read(client, id_, state, operation)
        pool, id_ = pair(id_, "a member: <pool id>/<member id>")
        found = super().read(client, id_, {**state, "poolId": pool}, operation)
        return found and {**found, "id": id_, "poolId": pool}


def _without_monitor(changes: Properties) -> Properties:
    # Nothing is null here, neither an address nor a port.
    return {key: value or None if key.startswith("monitor_") else value for key, value in changes.items()}


class Members(_OctaviaType):
    """All members of a pool at once; its id is the pool's."""

    token = "openstack:loadbalancer/members:Members"
    import_id = "<pool id>"
    description = "All members of a pool."
    fields = (
        REGION,
        Field("poolId", required=True, force_new=True),
        Field(
            "members",
            List(
                Object(
                    (
                        Field("id", output=True),
                        Field("address", ADDRESS, "IP address.", required=True),
                        Field("protocolPort", INTEGER, required=True, validate=_PORT_NUMBER),
                        Field(
                            "weight",
                            INTEGER,
                            "Share of the connections, 0 to 256.",
                            default=1,
                            validate=_between(0, 256),
                        ),
                        Field("subnetId", description="Subnet to reach it by."),
                        _ADMIN,
                        *(field for field in _MEMBER if field.name != "weight"),
                    )
                ),
                unordered=True,
            ),
        ),
    )

    def _put(self, client: Cloud, pool: str, state: Properties, operation: Operation) -> None:
        service = self.api(client, state)
        kind = next(field.kind for field in self.fields if field.name == "members")
        body = {"members": to_api(kind, state.get("members") or [])}
        _when_active(
            service,
            self.balancer(service, {"poolId": pool}, None),
            f"to set the members of pool {pool}",
            lambda: service.put(f"/lbaas/pools/{pool}/members", body) or True,
            operation,
        )

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        pool: str = inputs["poolId"]
        self._put(client, pool, inputs, operation)
        return pool

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        pool: str = inputs["poolId"]
        found = self.read(client, pool, inputs, operation)

        def places(members: list[Properties] | None) -> set[tuple[object, int]]:
            return {(normal.address(member["address"]), member["protocolPort"]) for member in members or ()}

        return pool if found and places(found["members"]) == places(inputs.get("members")) else None

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        service = self.api(client, state)
        if service.find(f"/lbaas/pools/{id_}") is None:
            return None
        balancer = self.balancer(service, {"poolId": id_}, None)
        path = f"/lbaas/pools/{id_}/members"
        found = _when_active(
            service, balancer, f"to read the members of pool {id_}", lambda: service.get(path), operation
        )
        kind = next(field.kind for field in self.fields if field.name == "members")
        region = client.in_region(state.get("region")).region
        return {"poolId": id_, "members": from_api(kind, found["members"]), "region": region}

    def update(self, client: Cloud, id_: str, olds: Properties, news: Properties, operation: Operation) -> None:
        self._put(client, id_, {**news, "region": olds.get("region")}, operation)

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        if self.api(client, state).find(f"/lbaas/pools/{id_}") is not None:
            self._put(client, id_, {"region": state.get("region")}, operation)


class Monitor(_OctaviaType):
    """How a pool checks the health of its members."""

    token = "openstack:loadbalancer/monitor:Monitor"
    import_id = "<id> or <id>/<pool id>"
    description = "A health monitor of a pool."
    path = "/lbaas/healthmonitors"
    key = "healthmonitor"
    fields = (
        REGION,
        Field("poolId", required=True, force_new=True),
        NAME,
        TENANT_ID,
        Field(
            "type",
            required=True,
            force_new=True,
            choices=("HTTP", "HTTPS", "PING", "SCTP", "TCP", "TLS-HELLO", "UDP-CONNECT"),
        ),
        Field("delay", INTEGER, "Seconds between checks.", required=True),
        Field("timeout", INTEGER, "Seconds to wait for an answer.", required=True),
        Field(
            "maxRetries",
            INTEGER,
            "Successes until a member is healthy.",
            required=True,
            validate=_between(1, 10),
        ),
        Field(
            "maxRetriesDown",
            INTEGER,
            "Failures until a member is unhealthy.",
            computed=True,
            validate=_between(1, 10),
        ),
        Field("urlPath", computed=True),
        Field(
            "httpMethod",
            computed=True,
            choices=("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"),
        ),
        Field("httpVersion", choices=("1.0", "1.1")),
        Field("expectedCodes", description="200, 200-204, or 200,202.", computed=True),
        Field("domainName", description="Host header of the checks."),
        _ADMIN,
    )

    def changes(self, client: Cloud, olds: Properties, news: Properties) -> Properties:
        changes = super().changes(client, olds, news)
        return {
            key: value or None if key in {"domain_name", "http_version"} else value for key, value in changes.items()
        }

    def attributes(self, client: Cloud, found: Properties, state: Properties) -> Properties:
        properties = super().attributes(client, found, state)
        pools = found.get("pools") or [{"id": state.get("poolId")}]
        return {**properties, "poolId": pools[0]["id"]}

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        monitor, _, pool = id_.partition("/")
        found = super().read(client, monitor, {**state, "poolId": pool} if pool else state, operation)
        return found and {**found, "id": monitor}


TYPES: list[ResourceType[Cloud]] = [LoadBalancer(), Listener(), Pool(), Member(), Members(), Monitor()]
FUNCTIONS: list[Function[Cloud]] = []
