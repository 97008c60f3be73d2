"""The SSH key pair for the nodes."""

import pulumi
import pulumi_openstack as openstack
from pulumi import Output, ResourceOptions

from infra.configuration import stack_file
from infra.naming import KEYPAIR_PART, PROJECT, resource_name
from infra.settings import Settings, public_key


class Access(pulumi.ComponentResource):
    """The stack's key pair: from a public key in the settings, or created by the cloud."""

    private_key: Output[str] | None
    """The private key, a secret; None if it is in a file of the user's."""

    def __init__(self, settings: Settings, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Access", "access", None, opts)
        key = public_key(settings, stack_file().parent)
        keypair = openstack.compute.Keypair(
            "key",
            name=resource_name(pulumi.get_stack(), KEYPAIR_PART),
            public_key=key,
            # Names of key pairs are unique in Nova.
            opts=ResourceOptions(parent=self, delete_before_replace=True, additional_secret_outputs=["private_key"]),
        )
        self.keypair = keypair.name
        self.public_key = keypair.public_key
        if key is None:
            self.private_key = Output.secret(keypair.private_key)
        elif settings.private_key is not None:
            self.private_key = Output.secret(settings.private_key.get_secret_value())
        else:
            self.private_key = None
        self.register_outputs({"keypair": self.keypair, "privateKey": self.private_key})
