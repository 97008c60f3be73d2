"""The nodes' cloud-init configuration. It is short, because a change of it replaces the nodes."""

import json


def user_data(host_name: str) -> str:
    """Cloud-config for the node `host_name`; always the same text for the same name."""
    config = {
        "hostname": host_name,
        "manage_etc_hosts": True,
        # The images have locales and packages; every node would download them otherwise.
        "locale": False,
        "package_update": False,
        "ssh_pwauth": False,
    }
    return f"#cloud-config\n{json.dumps(config, indent=2)}\n"
