"""The reference page of types."""

from __future__ import annotations

from providers.openstack import reference
from providers.openstack.__main__ import package


def test_the_page_is_current() -> None:
    assert reference.PAGE.read_text() == reference.page(), (
        "write it anew: python -m providers.openstack.reference > docs/reference/openstack-types.md"
    )


def test_what_is_not_tested_on_a_cloud_has_a_reason() -> None:
    tokens = [kind.token for kind in package().types] + [function.token for function in package().functions]
    assert [token for token in tokens if reference.tested(token) == "no"] == []
    for start in (*reference.UNTESTED, *reference.NOTES):
        assert any(token.startswith(start) for token in tokens), f"{start} is no type's"
