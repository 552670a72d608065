"""Ports for the servers of a swarm on this machine."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"
"""Loopback: the servers of a local swarm are reachable from this machine alone."""


def is_free(port: int) -> bool:
    """Whether a server on this machine could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_ports(
    names: tuple[str, ...], kept: dict[str, int], asked: dict[str, int | None]
) -> dict[str, int]:
    """A port for each name: the one asked for, else the kept one if it is free, else any free one.

    A resumed run keeps its ports, so that the URLs noted in its folder stay right.
    """
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []
    try:
        for name in names:
            port = asked.get(name)
            if port is None and name in kept and kept[name] not in chosen.values() and is_free(kept[name]):
                port = kept[name]
            if port is None:
                # Held until all are chosen, so that no two names get the same port.
                probe = socket.socket()
                held.append(probe)
                probe.bind((HOST, 0))
                port = int(probe.getsockname()[1])
            chosen[name] = port
    finally:
        for probe in held:
            probe.close()
    return chosen
