"""The reference pages of types."""

from __future__ import annotations

import re

from providers.kubernetes.replacing import IMMUTABLE
from providers.openstack import reference
from providers.openstack.__main__ import package


def test_the_page_is_current() -> None:
    assert reference.PAGE.read_text() == reference.page(), (
        "write it again: python -m providers.openstack.reference > docs/reference/openstack-types.md"
    )


def test_what_is_not_tested_on_devcloud_has_a_reason() -> None:
    wanted = {kind.token: [*reference.operations(kind), "replace"] for kind in package().types}
    wanted |= {function.token: ["invoke"] for function in package().functions}
    done = {token: reference.tested(token, operations) for token, operations in wanted.items()}
    assert {token: text for token, text in done.items() if not text.startswith(("all", "no: "))} == {}
    assert reference.NOTES.keys() <= wanted.keys()


def test_the_kubernetes_page_has_every_immutable_field() -> None:
    page = reference.PAGE.with_name("kubernetes-types.md").read_text()
    section = page[page.index("## What replaces an object") : page.index("## What is waited for")]
    rows = [row.split(" | ") for row in re.findall(r"^\| ([A-Z].*) \|$", section, re.MULTILINE)]
    listed = {kind: set(re.findall(r"`([^`]+)`", fields)) for kinds, fields in rows for kind in kinds.split(", ")}
    for (_, kind), rules in IMMUTABLE.items():
        assert kind in listed
        if kind not in {"Pod", "Secret"}:
            assert listed[kind] == set(rules), kind
