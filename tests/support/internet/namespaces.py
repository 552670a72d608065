"""Network namespaces without names, each with one TUN device. Linux, as root alone.

They vanish with the last process that uses them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

MISSING = None if os.geteuid() == 0 and os.path.exists("/dev/net/tun") else "needs root and /dev/net/tun"
"""Why there can be no namespaces here; None if there can."""
DEVICE = "tun0"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_CSUM, _TSO4, _TSO_ECN, _USO4, _USO6 = 0x01, 0x02, 0x08, 0x20, 0x40
"""From <linux/sched.h> and <linux/if_tun.h>."""
_QUEUE = 4000
"""Packets that wait for the router."""
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def entered(namespace: int | str) -> Iterator[None]:
    """This thread in a namespace (a file or path), with all that runs on it meanwhile.

    Sockets that it makes belong there, also afterwards.
    """
    home = os.open(_own(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(namespace)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def enter(namespace: int | str) -> None:
    """Move this thread into a namespace for good, and the threads and processes that it starts."""
    opened = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC) if isinstance(namespace, str) else namespace
    try:
        if _libc.setns(opened, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {namespace} failed")
    finally:
        if isinstance(namespace, str):
            os.close(opened)


def make(address: IPv4Address, mtu: int, congestion: str) -> tuple[int, int]:
    """A namespace in which everything leaves by a TUN device with `address`: its file, and the device's.

    `congestion` is TCP's congestion control there. Raises OSError, CalledProcessError.
    """
    home = os.open(_own(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare of the network failed")
        try:
            namespace = os.open(_own(), os.O_RDONLY | os.O_CLOEXEC)
            device = _open_device()
            _configure(address, mtu, congestion)
        finally:
            enter(home)
    finally:
        os.close(home)
    return namespace, device


def _open_device() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    request = struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
    fcntl.ioctl(device, _TUNSETIFF, request)
    segments = _CSUM | _TSO4 | _TSO_ECN
    try:
        fcntl.ioctl(device, _TUNSETOFFLOAD, segments | _USO4 | _USO6)
    except OSError:  # before Linux 6.2: many datagrams in one packet come one by one
        fcntl.ioctl(device, _TUNSETOFFLOAD, segments)
    return device


def _configure(address: IPv4Address, mtu: int, congestion: str) -> None:
    lines = (
        "link set lo up",
        f"link set {DEVICE} mtu {mtu} txqueuelen {_QUEUE} up",
        f"addr add {address}/32 dev {DEVICE}",
        # by the route, because a namespace may not choose what its machine does not allow everyone
        f"route add default dev {DEVICE} congctl {congestion}",
    )
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True, capture_output=True)


def _own() -> str:
    return f"/proc/self/task/{threading.get_native_id()}/ns/net"
