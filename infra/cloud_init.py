"""What cloud-init does at a node's first boot. Little: a change of it replaces the nodes."""

import json


def user_data(host_name: str) -> str:
    """Cloud-config for the node `host_name`; the same text for the same name, always."""
    config = {
        "hostname": host_name,
        "manage_etc_hosts": True,
        # The images carry their locale and packages; neither is worth a download by every node at once.
        "locale": False,
        "package_update": False,
        "ssh_pwauth": False,
    }
    return f"#cloud-config\n{json.dumps(config, indent=2)}\n"
