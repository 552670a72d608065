"""Dying with one's parent: no process of a swarm outlives the `iota up` that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, its parent, ends, by whatever cause.

    Linux only; elsewhere a killed `iota up` leaves its processes to be stopped by hand. SIGKILL,
    since a process that no longer has anybody to stop it must not be able to hang, and since all
    state on disk is made to survive it.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        # It died before the kernel was asked.
        sys.exit(1)
