"""Options of `ssh` for a stack's nodes. Does not import Pulumi, because `lab ssh` uses them too."""

import os
from pathlib import Path


def host_options(server_id: str) -> list[str]:
    """Options of ssh for a node.

    The host key is stored by server id, so a new server at an old address causes no warning. A connection to a node
    that no longer answers ends after a minute.
    """
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    known = home / "ml-cluster" / "known_hosts"
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = (f"HostKeyAlias={server_id}", f"UserKnownHostsFile={known}", "StrictHostKeyChecking=accept-new")
    alive = ("ServerAliveInterval=15", "ServerAliveCountMax=4")
    return [word for option in (*identity, *alive, "LogLevel=ERROR") for word in ("-o", option)]
