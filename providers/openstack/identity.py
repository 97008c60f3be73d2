"""Application credentials (Keystone)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from providers.framework import UNRECOVERABLE, Operation, ProviderError, ResourceType
from providers.openstack.client import Cloud, CloudError
from providers.openstack.normal import CASELESS, INSTANT, instant
from providers.openstack.rest import DESCRIPTION, REGION, OpenStackType, delete_and_wait, given
from providers.schema import BOOLEAN, Field, List, Object

if TYPE_CHECKING:
    from providers.framework import Function
    from providers.values import Properties

_RULE = Object(
    (
        Field("id", output=True),
        Field("path", description="Path of the API, such as /v2.1/servers.", required=True, force_new=True),
        Field("method", required=True, force_new=True, choices=("POST", "GET", "HEAD", "PATCH", "PUT", "DELETE")),
        Field("service", CASELESS, "Type of the service, such as compute.", required=True, force_new=True),
    )
)


def _rfc3339(value: str) -> str | None:
    try:
        if datetime.fromisoformat(value).tzinfo:
            return None
    except ValueError:
        pass
    return "must be a time with its zone (RFC 3339), such as 2027-01-31T12:00:00Z"


class ApplicationCredential(OpenStackType):
    """A credential of the current user and project; its secret is returned once, at the creation."""

    token = "openstack:identity/applicationCredential:ApplicationCredential"
    description = "An application credential of the current user in the current project."
    fields = (
        REGION,
        Field("name", computed=True, autoname=True, force_new=True),
        Field("description", description=DESCRIPTION.description, force_new=True),
        Field("unrestricted", BOOLEAN, "Let it make further credentials and trusts.", default=False, force_new=True),
        Field("secret", description="Made by the cloud unless given.", computed=True, secret=True, force_new=True),
        Field(
            "roles",
            List(CASELESS, unordered=True),
            "Names; all of the user's by default.",
            computed=True,
            force_new=True,
        ),
        Field("accessRules", List(_RULE, unordered=True), "The only calls that it may make.", force_new=True),
        Field(
            "expiresAt",
            INSTANT,
            "RFC 3339; never by default.",
            force_new=True,
            validate=_rfc3339,
        ),
        Field("projectId", output=True),
    )

    @staticmethod
    def _user(cloud: Cloud) -> str:
        return f"/users/{quote(cloud.connection.current_user_id or '', safe='')}"

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        cloud = client.in_region(inputs.get("region"))
        body: dict[str, Any] = {
            key: inputs[key] for key in ("name", "description", "unrestricted", "secret") if given(inputs, key)
        }
        if given(inputs, "roles"):
            body["roles"] = [{"name": name} for name in inputs["roles"]]
        if given(inputs, "accessRules"):
            body["access_rules"] = [
                {key: rule[key] for key in ("path", "method", "service")} for rule in inputs["accessRules"]
            ]
        if given(inputs, "expiresAt"):
            body["expires_at"] = instant(inputs["expiresAt"]).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        try:
            made = cloud.identity.post(f"{self._user(cloud)}/application_credentials", {"application_credential": body})
        except CloudError as error:
            if error.status != 403:
                raise
            raise ProviderError(
                f"{operation.name}: {error.args[0]}",
                remedy="A restricted application credential cannot make others: log in with a password or with an "
                "unrestricted one.",
            ) from error
        found = made["application_credential"]
        operation.created(found["id"], secret=found["secret"])
        id_: str = found["id"]
        return id_

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        cloud = client.in_region(inputs.get("region"))
        path = f"{self._user(cloud)}/application_credentials"
        found = next(cloud.identity.list(path, "application_credentials", name=inputs["name"]), None)
        if found is None:
            return None
        id_: str = found["id"]
        if given(inputs, "secret"):
            return id_
        # Nobody has received its secret. An automatic name can only be of this create; Keystone has no times.
        if "name" not in operation.defaults:
            raise ProviderError(
                f"the application credential {inputs['name']} exists, "
                "and its secret was returned only when it was created",
                remedy=f"If nobody uses it: `openstack application credential delete {id_}`.",
            )
        operation.created(id_, **{UNRECOVERABLE: "secret"})
        return id_

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.identity.find(f"{self._user(cloud)}/application_credentials/{quote(id_, safe='')}")
        if answer is None:
            return None
        found = answer["application_credential"]
        expires = found["expires_at"]
        return {
            "name": found["name"],
            "description": found["description"] or "",
            "unrestricted": found["unrestricted"],
            "roles": sorted(role["name"] for role in found["roles"]),
            "accessRules": [
                {key: rule[key] for key in ("id", "path", "method", "service")}
                for rule in found.get("access_rules") or ()
            ],
            "expiresAt": instant(expires).isoformat().replace("+00:00", "Z") if expires else "",
            "projectId": found["project_id"],
            "region": cloud.region,
        }

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        cloud = client.in_region(state.get("region"))
        user = self._user(cloud)
        delete_and_wait(
            cloud.identity, f"{user}/application_credentials/{id_}", f"application credential {id_}", operation
        )
        for rule in state.get("accessRules") or ():
            try:
                cloud.identity.delete(f"{user}/access_rules/{rule['id']}")
            except CloudError as error:
                if error.status != 403:  # another credential uses the rule
                    raise


TYPES: list[ResourceType[Cloud]] = [ApplicationCredential()]
FUNCTIONS: list[Function[Cloud]] = []
