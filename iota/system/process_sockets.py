"""Child processes that share a socket with their parent, which both see closed when the other ends."""

from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from iota.system.processes import own_group

_FROM_STDIN: Final = "-"
"""The argument of a child that reads its socket from its input: Windows passes no file descriptors."""


async def start_with_socket(
    module: str, arguments: Sequence[str] = ()
) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """Run `python -m MODULE SOCKET ARGUMENTS...`, in a process group of its own, `stderr` a pipe.

    Returns the process and the parent's end; the child opens its own by `shared_socket(SOCKET)`.

    Raises:
        OSError: the process cannot be started.
    """
    mine, theirs = socket.socketpair()
    try:
        windows = sys.platform == "win32"
        name = _FROM_STDIN if windows else str(theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, name, *arguments),
            stdin=subprocess.PIPE if windows else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=() if windows else (theirs.fileno(),),
            **own_group(),
        )
        if sys.platform == "win32":
            assert process.stdin is not None
            process.stdin.write(base64.b64encode(theirs.share(process.pid)) + b"\n")
    except BaseException:
        mine.close()
        raise
    finally:
        theirs.close()
    return process, mine


def shared_socket(name: str) -> socket.socket:
    """A child's end of the socket, by the argument that its parent gave. Raises ValueError or OSError."""
    if sys.platform == "win32":
        return socket.fromshare(base64.b64decode(sys.stdin.buffer.readline()))
    return socket.socket(fileno=int(name))
