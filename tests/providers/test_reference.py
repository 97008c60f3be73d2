"""The reference page of types."""

from __future__ import annotations

from providers.openstack import reference
from providers.openstack.__main__ import package


def test_the_page_is_current() -> None:
    assert reference.PAGE.read_text() == reference.page(), (
        "write it anew: python -m providers.openstack.reference > docs/reference/openstack-types.md"
    )


def test_what_is_not_tested_on_devcloud_has_a_reason() -> None:
    wanted = {kind.token: [*reference.operations(kind), "replace"] for kind in package().types}
    wanted |= {function.token: ["invoke"] for function in package().functions}
    done = {token: reference.tested(token, operations) for token, operations in wanted.items()}
    assert {token: text for token, text in done.items() if not text.startswith(("all", "no: "))} == {}
    assert reference.NOTES.keys() <= wanted.keys()
