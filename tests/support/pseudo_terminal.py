"""Real commands on a pseudo-terminal, for what only a person at a terminal is shown or asked."""

from __future__ import annotations

import os
import pty
import select
import sys
from collections.abc import Mapping


def at_a_terminal(
    arguments: list[str], answers: list[str], environment: Mapping[str, str] = os.environ
) -> tuple[int, str]:
    """Exit code of `python -m ARGUMENTS`, and all that the terminal showed.

    Each answer is typed at a prompt, which ends in a colon and a space.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", *arguments], dict(environment))
    said, asked = b"", 0
    while select.select([terminal], [], [], 60)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux ends a pseudo-terminal
            break
        if not part:
            break
        said += part
        if answers and said[asked:].endswith(b": "):
            asked = len(said)
            os.write(terminal, answers.pop(0).encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode()
