"""Ports for a SeaweedFS server of the tests' own."""

import os
import socket
from contextlib import closing

GRPC_OFFSET = 10_000
"""SeaweedFS listens for gRPC this far above each port."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor on those for gRPC above them."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() * 16 % 20_000, 55_000):
        if len(found) == count:
            break
        if all(_is_free(each) for each in (port, port + GRPC_OFFSET)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
