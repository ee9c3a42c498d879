"""Where a server listens: its socket, and whether that is this machine only."""

from __future__ import annotations

import ipaddress
import socket

from binsight.errors import BadSettings, CannotBeDone

_BACKLOG = 2048  # connections that the system keeps until they are taken up


def listening(host: str, port: int) -> socket.socket:
    """A bound socket, so that a port that is taken is told before the model is loaded.

    Its protocol is named: of a socket of protocol 0 asyncio does not know that it is TCP, leaves Nagle's algorithm on, and each
    answer waits 40 ms for the client's acknowledgement of its headers.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise BadSettings(f"want a host to listen on, got {host!r}: {error.strerror}") from error
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise CannotBeDone(f"cannot listen on {host} port {port}: {error}; choose another with --port") from error
    return listener


def is_loopback(host: str) -> bool:
    """Whether a host, as an option or a Host header names it, is this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1:8000", "localhost", "[::1]:80", "0.0.0.0", "parts.example")]
    [True, True, True, False, False]
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host if host.count(":") > 1 else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
