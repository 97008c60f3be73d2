"""No secret is in anything that monitoring and logging keep, serve, say or send."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import urllib3

from tests.engine.harness import wait_for
from tests.k8s import report
from tests.k8s.planted import Planted, careless, surfaces

if TYPE_CHECKING:
    from tests.k8s.chain import Chain


def test_every_form_of_a_secret_would_be_found() -> None:
    planted = Planted()
    where, secret = "monitoring/tracking password", planted.one("monitoring/tracking", "password")
    for text in (
        secret, quote(secret, safe=""), json.dumps({"a": secret}), base64.b64encode(secret.encode()).decode(),
        *(base64.b64encode(f"{before}:{secret}".encode()).decode() for before in ("a", "ab", "monitor")),
    ):  # fmt: skip
        assert planted.found(f"before {text} after") == {where}
    assert not planted.found("planted/ nothing")


@pytest.mark.slow_cluster
@pytest.mark.timeout(900)
def test_figures_behind_a_password_are_read(chain: Chain) -> None:
    for query in ('tracking_told{job="tracking"}', 'forge_told{job="forge"}'):
        chain.wait_for_figures(query)
    assert not chain.monitors.get("metrics", "/api/v1/query", query='up{job=~"tracking|forge"} == 0')["data"]["result"]


@pytest.mark.slow_cluster
@pytest.mark.timeout(900)
def test_no_planted_secret_is_anywhere(chain: Chain, pytestconfig: pytest.Config) -> None:
    told = len(chain.heard.bodies())
    careless(chain, "careless")
    pool = urllib3.PoolManager()
    for login in ("admin:wrong", f"admin:{chain.planted.one('platform/monitoring', 'password')}"):
        headers = urllib3.make_headers(basic_auth=login)
        pool.request("GET", f"{chain.monitors.url('login')}/prometheus/api/v1/query?query=up", headers=headers)
    wait_for(lambda: len(chain.heard.bodies()) > told, "a message", 300)
    began = time.monotonic()
    found, read, size = dict[str, set[str]](), 0, 0
    for where, text in surfaces(chain):
        read, size = read + 1, size + len(text)
        if hits := chain.planted.found(text):
            found[where] = hits
    seconds = time.monotonic() - began
    rows = [
        ("planted", len(chain.planted.all)), ("pages, labels, logs and messages read", read),
        ("KiB of them", size >> 10), ("in which there is one", len(found)),
    ]  # fmt: skip
    text = report.table(("", "number"), rows)
    print(f"\n{datetime.now(UTC):%H:%M} in {seconds:.0f} s\n{text}", flush=True)
    if target := pytestconfig.getoption("--monitoring-report"):
        report.write(target, "Secrets", NOTE + text)
    assert not found


NOTE = """\
A text of its own is planted in every key of every Secret that the platform can have, in what the programs are given
of them, and in a pod that does wrong what can be done wrong: in annotations, environment, fields of JSON lines and
headers. It is looked for as it is, in URLs, and in Base64 wherever that begins.

"""
