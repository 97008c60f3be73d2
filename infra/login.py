"""How `ssh` knows a stack's nodes. Free of Pulumi: `lab ssh` logs in the same way as the playbooks."""

import os
from pathlib import Path


def host_options(server_id: str) -> list[str]:
    """Options of ssh for a node.

    One made anew at an old address is another host: known by its id, it is no alarm. A connection to a node that is
    gone ends by itself, a minute later.
    """
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    known = home / "ml-cluster" / "known_hosts"
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = (f"HostKeyAlias={server_id}", f"UserKnownHostsFile={known}", "StrictHostKeyChecking=accept-new")
    alive = ("ServerAliveInterval=15", "ServerAliveCountMax=4")
    return [word for option in (*identity, *alive, "LogLevel=ERROR") for word in ("-o", option)]
