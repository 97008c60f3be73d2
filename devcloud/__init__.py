"""A real OpenStack on this machine, inside namespaces of its own: the default cloud of the `dev` stack.

`rootfs` makes a Debian tree with OpenStack's packages; `init` and `supervisor` (in `inside/`) run it in private mount,
network, process, host name, IPC and cgroup namespaces; `config` and `services` say what runs in it; `seed` fills it.
When the last process of the namespaces ends, the kernel takes back every interface, mount and network namespace.
"""

from pathlib import Path

DEFAULT_STATE = Path("/var/lib/ml-cluster/devcloud")
