"""Commands on a terminal of a given size, in a pipe, and as a service: what each is shown."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Callable, Mapping

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def on_terminal(
    arguments: list[str],
    size: tuple[int, int],
    environment: Mapping[str, str],
    said: Callable[[str], object] = lambda text: None,
) -> tuple[int, str]:
    """Exit code of `python -m ARGUMENTS` on a terminal of (columns, lines), and all that it wrote.

    `said` is called with everything so far after each piece.
    """
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdin=terminal, stdout=terminal, stderr=terminal,
        env=dict(environment), start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    os.set_blocking(master, False)
    loop, pieces, ended = asyncio.get_running_loop(), [b""], asyncio.Event()

    def read() -> None:
        try:
            piece = os.read(master, 65536)
        except OSError:  # how Linux ends a pseudo-terminal
            piece = b""
        if not piece:
            loop.remove_reader(master)
            ended.set()
            return
        pieces.append(piece)
        said(b"".join(pieces).decode(errors="replace"))

    loop.add_reader(master, read)
    try:
        async with asyncio.timeout(240):
            await ended.wait()
            code = await process.wait()
    finally:
        loop.remove_reader(master)
        os.close(master)
        if process.returncode is None:
            process.kill()
            await process.wait()
    return code, b"".join(pieces).decode(errors="replace")


async def in_a_pipe(
    arguments: list[str], environment: Mapping[str, str], *, closed_stdin: bool = False
) -> tuple[int, str]:
    """Exit code of `python -m ARGUMENTS` in a pipe, and its output and errors."""
    command = [sys.executable, "-m", *arguments]
    if closed_stdin:
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env=dict(environment),
    )  # fmt: skip
    async with asyncio.timeout(240):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def frames(written: str) -> list[list[str]]:
    """The dashboards that were drawn in place, as lines of text: one ends where the cursor goes up."""
    pages = re.split(r"(?:\x1b\[1A\x1b\[2K)+|\x1b\[2J", written)
    rows = [_CONTROL.sub("", page).replace("\r", "").splitlines() for page in pages]
    starts = [next((n for n, row in enumerate(page) if row.startswith("iota ")), None) for page in rows]
    return [page[start:] for page, start in zip(rows, starts, strict=True) if start is not None]


def as_a_service(**more: str) -> dict[str, str]:
    """The environment that systemd gives a system service: no HOME, no TERM, no language."""
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path), **more}
