"""The real program on a real cloud that fails in every way a network and its services can.

Each run meets a dozen faults, every one at another request; each kind of fault comes to several requests in turn. A
run ends in success or in an error that says what to do, and what exists is never lost track of: in the end nothing is
there twice, and after `destroy` nothing is left.

Costs some 12 minutes on idle cores. Runs as root.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e.fault_proxy import Call, Fault, Rule
from tests.e2e.victim import Outcome, Victim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.fault_proxy import Moment, Proxy
    from tests.e2e.harness import Cloud

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]

PATIENCE_SECONDS: Final = 60.0
"""How long the clients of these tests wait for an answer."""
RETRY_AFTER_SECONDS: Final = 6
REQUEST_ID: Final = "req-00000000-0000-4000-8000-00000000fa17"


def refusal(status: int, *, name: str = "", later: bool = False, forwarded: bool = False) -> Fault:
    """A service's refusal, in the envelope that most have; `later`: with Retry-After."""
    headers = {"Content-Type": "application/json", "x-openstack-request-id": REQUEST_ID}
    if later:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = b'{"error": {"message": "the proxy says so", "code": %d}}' % status
    return Fault(name or str(status), forwarded, status, headers, body)


FAULTS: Final = (
    refusal(500),
    refusal(500, name="500, yet done", forwarded=True),
    refusal(503, later=True),
    refusal(429, later=True),
    refusal(409),
    refusal(401),
    Fault("reset", reset=True),
    Fault("lost answer", reset=True, forwarded=True),
    Fault("stall", reset=True, seconds=PATIENCE_SECONDS + 5),
    Fault("stalled answer", reset=True, forwarded=True, seconds=PATIENCE_SECONDS + 5),
    Fault("truncated", truncated=True, forwarded=True),
    Fault("garbage", forwarded=True, status=200, headers={"Content-Type": "text/html"}, body=b"<html>Sorry!</html>"),
)
ID: Final = "[0-9a-f-]{36}"
CREATES: Final = (
    ("POST", "neutron", "/v2.0/networks"),
    ("POST", "nova", "/v2.1/servers"),
    ("POST", "neutron", "/v2.0/floatingips"),
    ("POST", "cinder", "/v3/[0-9a-f]+/volumes"),
    ("POST", "blazar", "/v1/leases"),
    ("PUT", "neutron", f"/v2.0/routers/{ID}/add_router_interface"),
    ("POST", "nova", "/v2.1/os-keypairs"),
    ("POST", "nova", f"/v2.1/servers/{ID}/os-volume_attachments"),
    ("POST", "neutron", "/v2.0/security-group-rules"),
    ("POST", "nova", "/v2.1/os-server-groups"),
    ("GET", "nova", f"/v2.1/servers/{ID}"),
    ("GET", "blazar", f"/v1/leases/{ID}"),
)
DELETES: Final = (
    ("DELETE", "neutron", f"/v2.0/networks/{ID}"),
    ("DELETE", "nova", f"/v2.1/servers/{ID}"),
    ("DELETE", "neutron", f"/v2.0/floatingips/{ID}"),
    ("DELETE", "cinder", f"/v3/[0-9a-f]+/volumes/{ID}"),
    ("DELETE", "blazar", f"/v1/leases/{ID}"),
    ("PUT", "neutron", f"/v2.0/routers/{ID}/remove_router_interface"),
    ("DELETE", "nova", "/v2.1/os-keypairs/.+"),
    ("DELETE", "nova", f"/v2.1/servers/{ID}/os-volume_attachments/{ID}"),
    ("DELETE", "neutron", f"/v2.0/security-group-rules/{ID}"),
    ("DELETE", "neutron", f"/v2.0/ports/{ID}"),
    ("GET", "nova", f"/v2.1/servers/{ID}"),
    ("GET", "neutron", f"/v2.0/floatingips/{ID}"),
)
TURN: Final = 5
"""By how much the faults move on along the requests from round to round; it has no divisor in common with 12."""
MOST_RUNS: Final = 6


def tells_of(text: str, call: Call) -> bool:
    """Whether a text says that this request failed: by its method and path, below the service's version."""
    if call.service == "blazar":
        return "Could not" in text
    path = re.sub(r"^/v[\d.]+(/[0-9a-f]{32})?", "", call.path).partition("?")[0]
    return re.search(rf"{call.method} [a-z_]+{re.escape(path)}\b", text) is not None


def run_through(victim: Victim, verb: str, proxy: Proxy, outcomes: Counter[tuple[str, str]]) -> None:
    """Run a command until it succeeds, while faults are met; every failure has to be one that a user understands."""
    for _ in range(MOST_RUNS):
        before = {id(rule): len(rule.met) for rule in proxy.rules}
        outcome = victim.attempt(verb)
        met = [rule for rule in proxy.rules if len(rule.met) > before[id(rule)]]
        print(f"{verb}: status {outcome.status} after {outcome.seconds:.0f} s")
        result = [rule for rule in met if outcome.status and tells_of(outcome.diagnostics, rule.met[-1])]
        for rule in met:
            how = "clear error" if rule in result else "success after retry"
            outcomes[rule.fault.name, how] += 1
            print(f"  {rule.fault.name:14} {how:20} {rule.met[-1]}")
        if outcome.status == 0:
            assert all(rule.met for rule in proxy.rules), [str(rule) for rule in proxy.rules if not rule.met]
            return
        print(outcome.diagnostics)
        assert result, f"failed without a fault, or without telling of it:\n{outcome.output}"
        assert REQUEST_ID in outcome.output or not any(rule.fault.status in range(400, 600) for rule in result)
    raise AssertionError(f"{verb} did not succeed in {MOST_RUNS} runs")


def waits(proxy: Proxy) -> list[float]:
    """How long after an answer with Retry-After the same was asked again."""
    found = []
    for index, call in enumerate(proxy.calls):
        if call.fault is not None and "Retry-After" in call.fault.headers:
            later = (item for item in proxy.calls[index + 1 :] if str(item) == str(call))
            found += [item.began - call.began for item in list(later)[:1]]
    return found


@pytest.mark.thorough
def test_every_failure_is_recovered_from(
    tmp_path: Path, cloud: Cloud, proxy: Proxy, record_property: Callable[[str, object], None]
) -> None:
    victim = Victim(tmp_path, cloud, "faults", proxy.urls["keystone"], api_timeout=PATIENCE_SECONDS)
    outcomes: Counter[tuple[str, str]] = Counter()
    began = time.monotonic()
    for turn in range(3):
        for verb, requests in (("up", CREATES), ("destroy", DELETES)):
            faults = [FAULTS[(index + TURN * turn) % len(FAULTS)] for index in range(len(requests))]
            proxy.rules = [Rule(fault, *request) for fault, request in zip(faults, requests, strict=True)]
            run_through(victim, verb, proxy, outcomes)
            proxy.rules = []
            if verb == "up":
                victim.assert_whole()
        assert victim.left() == []
    assert min(waits(proxy)) >= RETRY_AFTER_SECONDS
    kinds = {fault.name: [f"{outcomes[fault.name, how]} {how}" for how in ("success after retry", "clear error")]
             for fault in FAULTS}  # fmt: skip
    result = "; ".join(f"{kind}: {', '.join(counts)}" for kind, counts in kinds.items())
    record_property(
        "figures",
        f"faults on devcloud: {outcomes.total()} ({result}); Retry-After {RETRY_AFTER_SECONDS} s waited for "
        f"{min(waits(proxy)):.1f} s or more, {len(waits(proxy))} times; 0 duplicates, 0 orphans, "
        f"{time.monotonic() - began:.0f} s",
    )


KILLED: Final[dict[str, tuple[str, str, str]]] = {
    "keystone": ("POST", "neutron", "/v2.0/networks"),
    "neutron": ("POST", "neutron", "/v2.0/subnets"),
    "cinder": ("POST", "cinder", "/v3/[0-9a-f]+/volumes"),
    "blazar": ("POST", "blazar", "/v1/leases"),
    "rabbitmq": ("PUT", "neutron", f"/v2.0/floatingips/{ID}"),
    "nova": ("POST", "nova", "/v2.1/servers"),
    "mariadb": ("POST", "nova", f"/v2.1/servers/{ID}/os-volume_attachments"),
}
"""Services, and the request at which each is killed: some do it, some never get it."""


def test_services_that_are_killed_come_back_and_the_run_goes_on(
    tmp_path: Path, cloud: Cloud, proxy: Proxy, record_property: Callable[[str, object], None]
) -> None:
    victim = Victim(tmp_path, cloud, "services", proxy.urls["keystone"])
    control = cloud.devcloud.control
    killed: dict[str, str] = {}
    lock = threading.Lock()

    def watch(call: Call, moment: Moment) -> bool:
        if moment != "sent":
            return False
        for name, request in KILLED.items():
            with lock:
                if name in killed or not Rule(FAULTS[0], *request).fits(call):
                    continue
                killed[name] = str(call)
            pid = next(service.pid for service in control.call("status").services if service.name == name)
            control.inside("kill", "-KILL", str(pid))
        return False

    proxy.watch = watch
    began = time.monotonic()
    results: list[Outcome] = []
    while len(killed) < len(KILLED) or not results or results[-1].status:
        assert len(results) <= len(KILLED), "it never got through"
        outcome = victim.attempt("up")
        print(f"status {outcome.status} after {outcome.seconds:.0f} s, killed so far: {', '.join(killed)}")
        if outcome.status:
            print(outcome.diagnostics)
        results.append(outcome)
    victim.assert_whole()
    proxy.watch = lambda _call, _moment: False
    assert victim.attempt("destroy").status == 0
    left = victim.left()
    record_property(
        "figures",
        f"services killed in the middle of `up` on devcloud: {', '.join(killed)}; success in run {len(results)}, "
        f"{len(left)} orphans, {time.monotonic() - began:.0f} s",
    )
    assert left == []
