"""Key pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from providers.framework import UNRECOVERABLE, ProviderError
from providers.openstack.normal import TRIMMED
from providers.openstack.rest import (
    REGION,
    VALUE_SPECS,
    OpenStackType,
    given,
    snake,
)
from providers.schema import Field

if TYPE_CHECKING:
    from providers.framework import Operation
    from providers.openstack.client import Cloud
    from providers.values import Properties

# Microversions, the lowest that has the feature (nova/api/openstack/compute/rest_api_version_history.rst).
KEYPAIR_OF_USER: Final = "2.10"


class Keypair(OpenStackType):
    token = "openstack:compute/keypair:Keypair"
    import_id = "<name>"
    description = "An SSH key pair. Without publicKey the cloud makes one, and the private key is an output."
    fields = (
        REGION,
        Field("name", computed=True, autoname=True, force_new=True),
        Field("publicKey", TRIMMED, computed=True, force_new=True),
        VALUE_SPECS,
        Field("privateKey", output=True, secret=True),
        Field("fingerprint", output=True),
        Field("userId", description="Another user's (administrators only).", computed=True, force_new=True),
    )

    @staticmethod
    def _options(state: Properties) -> dict[str, Any]:
        if not state.get("userId"):
            return {}
        return {"microversion": KEYPAIR_OF_USER, "params": {"user_id": state["userId"]}}

    def create(self, client: Cloud, inputs: Properties, operation: Operation) -> str:
        body = {
            "name": inputs["name"],
            **{snake(key): inputs[key] for key in ("publicKey", "userId") if given(inputs, key)},
            **(inputs.get("valueSpecs") or {}),
        }
        microversion = self._options(inputs).get("microversion")
        compute = client.in_region(inputs.get("region")).compute
        made = compute.post("/os-keypairs", {"keypair": body}, microversion=microversion)["keypair"]
        operation.created(made["name"], privateKey=made.get("private_key") or "")
        return str(made["name"])

    def find(self, client: Cloud, inputs: Properties, operation: Operation) -> str | None:
        name: str = inputs["name"]
        answer = client.in_region(inputs.get("region")).compute.find(f"/os-keypairs/{name}", **self._options(inputs))
        if answer is None or not operation.may_have_made(answer["keypair"]["created_at"]):
            return None
        if given(inputs, "publicKey"):
            return name if answer["keypair"]["public_key"].strip() == inputs["publicKey"].strip() else None
        # Nobody has received the private key.
        if operation.began is None and "name" not in operation.defaults:
            raise ProviderError(
                f"the key pair {name} exists, and its private key was returned only when it was created",
                remedy=f"If nobody uses it: `openstack keypair delete {name}`.",
            )
        operation.created(name, **{UNRECOVERABLE: "privateKey"})
        return name

    def read(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> Properties | None:
        cloud = client.in_region(state.get("region"))
        answer = cloud.compute.find(f"/os-keypairs/{id_}", **self._options(state))
        if answer is None:
            return None
        found = answer["keypair"]
        return {
            "name": found["name"],
            "publicKey": found["public_key"],
            "fingerprint": found["fingerprint"],
            "privateKey": state.get("privateKey") or "",
            "userId": state.get("userId") or "",
            "region": cloud.region,
        }

    def delete(self, client: Cloud, id_: str, state: Properties, operation: Operation) -> None:
        client.in_region(state.get("region")).compute.delete(f"/os-keypairs/{id_}", **self._options(state))
