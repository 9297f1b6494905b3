"""Free ports on the loopback address."""

from __future__ import annotations

import socket


def free_ports(count):
    """Ports that nobody listens on, all different."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def free_port():
    """One of them."""
    return free_ports(1)[0]
