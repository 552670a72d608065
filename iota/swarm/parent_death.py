"""Child processes of `iota up` exit when it exits (PR_SET_PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


def exit_with_parent(parent: int) -> None:
    """Have the kernel kill this process with SIGKILL when its parent process `parent` ends.

    SIGKILL because a process without a supervisor must not hang, and all state on disk survives it. Linux
    only: elsewhere the processes of a killed `iota up` have to be stopped by hand.

    Raises:
        OSError: the kernel refuses the request.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        # The parent ended before the call above, so no signal will come.
        sys.exit(1)
