"""Application credentials on a real Keystone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openstack
import pytest

from providers.values import Secret, plain
from tests.providers.plugin import EXECUTABLE, CallError, Plugin
from tests.providers.real.lifecycle import Life, live

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.providers.plugin import Resource
    from tests.providers.real.conftest import Maker

CREDENTIAL = "openstack:identity/applicationCredential:ApplicationCredential"


def auth_url(sdk: Connection) -> str:
    return str(sdk.config.config["auth"]["auth_url"])


def test_the_secret_is_told_once_and_works(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    made = make(CREDENTIAL, {"description": "of a test", "expiresAt": "2099-01-31T13:00:00+01:00"})
    secret = made.outputs["secret"]
    assert isinstance(secret, Secret)
    assert made.outputs["expiresAt"] == "2099-01-31T12:00:00Z"
    assert made.outputs["projectId"] == sdk.current_project_id
    assert made.outputs["roles"]
    with openstack.connect(
        auth_type="v3applicationcredential",
        auth={
            "auth_url": auth_url(sdk),
            "application_credential_id": made.id,
            "application_credential_secret": plain(secret),
        },
    ) as connection:
        assert connection.current_project_id == sdk.current_project_id
    refreshed = plugin.read(made)
    assert refreshed
    assert refreshed.outputs["secret"] == secret


def test_given_secret_and_access_rules(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    rule = {"path": "/v2.1/servers", "method": "GET", "service": "compute"}
    inputs = {"secret": "correct horse battery staple", "accessRules": [rule], "roles": ["member"]}
    made = make(CREDENTIAL, inputs)
    assert plain(made.outputs["secret"]) == inputs["secret"]
    assert isinstance(made.inputs["secret"], Secret)
    (found,) = made.outputs["accessRules"]
    assert found == {**rule, "id": found["id"]}
    assert made.outputs["roles"] == ["member"]
    other = {**inputs, "accessRules": [{**rule, "method": "POST"}]}
    assert list(plugin.diff(made, other).replaces) == ["accessRules"]
    plugin.delete(made)
    rules = sdk.identity.get(f"/users/{sdk.current_user_id}/access_rules").json()["access_rules"]
    assert found["id"] not in {item["id"] for item in rules}


def test_application_credential(plugin: Plugin, make: Maker, sdk: Connection) -> None:
    def seen(resource: Resource) -> None:
        found = sdk.identity.get(f"/users/{sdk.current_user_id}/application_credentials/{resource.id}").json()
        credential = found["application_credential"]
        assert (credential["name"], credential["description"]) == (
            resource.outputs["name"],
            resource.inputs["description"],
        )
        assert credential["unrestricted"] is True

    live(
        plugin,
        make,
        Life(
            CREDENTIAL,
            {"description": "of a test", "unrestricted": True},
            replace={"name": "another", "unrestricted": False, "expiresAt": "2099-01-31T12:00:00Z"},
            replacement={"description": "another"},
            unread=frozenset({"secret"}),
        ),
        seen,
    )


def test_a_restricted_credential_says_why(make: Maker, sdk: Connection) -> None:
    made = make(CREDENTIAL, {})
    config = {
        "authUrl": auth_url(sdk),
        "applicationCredentialId": made.id,
        "applicationCredentialSecret": plain(made.outputs["secret"]),
    }
    with Plugin({"PATH": "/usr/bin:/bin"}, EXECUTABLE) as restricted:
        restricted.configure(**config)
        with pytest.raises(CallError, match=r"answered 403: .*\n.*unrestricted"):
            restricted.create(CREDENTIAL, {})


def test_times_need_a_zone(plugin: Plugin) -> None:
    _, faults = plugin.check_failures(CREDENTIAL, {"expiresAt": "2099-01-31T12:00:00"})
    assert "RFC 3339" in faults["expiresAt"]
