"""Child processes: they end with their parent, are signalled as a group, and have a name of their own."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

import psutil

CAN_FORK: Final = sys.platform == "linux"
"""Whether a process with torch may be forked: Apple's libraries break in forks, and Windows has none."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
"""From <linux/prctl.h>."""
_LOOK_S: Final = 0.5


def exit_with_parent(parent: int) -> None:
    """Have this process end at once, without a clean-up, when its parent process `parent` ends.

    At once, because a process without a supervisor must not hang, and all state on disk survives it. On Linux
    the kernel sends SIGKILL; elsewhere a thread looks for the parent twice a second.

    Raises:
        OSError: the kernel refuses the request.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    else:
        threading.Thread(target=_exit_after, args=(parent,), name="parent", daemon=True).start()
    if os.getppid() != parent:
        # The parent ended before the call above, so no signal will come.
        sys.exit(1)


def name_process(name: str) -> None:
    """Give this process a name for `ps -e`, `top` and `pgrep`, which show 15 characters of it. Linux only.

    Forked nodes would otherwise all have the name and the arguments of the parent that imports for them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def own_group() -> dict[str, Any]:
    """Arguments of `subprocess.Popen` that make a child the leader of a process group of its own."""
    if sys.platform == "win32":
        import subprocess

        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def ask_group_to_stop(leader: int) -> None:
    """Send SIGTERM to a group, on Windows Ctrl-Break; nothing where it has ended."""
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            os.kill(leader, signal.CTRL_BREAK_EVENT)
        else:
            os.killpg(leader, signal.SIGTERM)


def kill_group(leader: int) -> None:
    """End a group at once, on Windows the leader and its descendants; nothing where it has ended."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        return
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(leader)
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _exit_after(parent: int) -> None:
    if sys.platform == "win32":  # there a process keeps the id of a parent that has ended
        with suppress(psutil.NoSuchProcess):
            psutil.Process(parent).wait()
    else:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
    os._exit(1)
