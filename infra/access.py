"""The key pair that logs in to the nodes."""

import pulumi
import pulumi_openstack as openstack
from pulumi import Output, ResourceOptions

from infra.configuration import stack_file
from infra.naming import KEYPAIR_PART, PROJECT, resource_name
from infra.settings import Settings, public_key


class Access(pulumi.ComponentResource):
    """The stack's key pair: of a given public key, or made by the cloud."""

    private_key: Output[str] | None
    """The private half, a secret; None where it stays in a file of the user's."""

    def __init__(self, settings: Settings, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Access", "access", None, opts)
        given = public_key(settings, stack_file().parent)
        keypair = openstack.compute.Keypair(
            "key",
            name=resource_name(pulumi.get_stack(), KEYPAIR_PART),
            public_key=given,
            # Nova has one keypair of a name.
            opts=ResourceOptions(parent=self, delete_before_replace=True, additional_secret_outputs=["private_key"]),
        )
        self.keypair = keypair.name
        self.public_key = keypair.public_key
        if given is None:
            self.private_key = Output.secret(keypair.private_key)
        elif settings.private_key is not None:
            self.private_key = Output.secret(settings.private_key.get_secret_value())
        else:
            self.private_key = None
        self.register_outputs({"keypair": self.keypair, "privateKey": self.private_key})
