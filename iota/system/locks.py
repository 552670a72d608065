"""An exclusive lock on a file, which ends with its process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

_LOCKS = Path("/proc/locks")

if sys.platform == "win32":
    from filelock import FileLock, Timeout
else:
    import fcntl


def hold(path: Path, *, create: bool) -> Callable[[], None]:
    """Lock a file without waiting; the call that is returned gives the lock back.

    It is the kernel's own (flock) on the file itself, advisory, on one machine. On Windows a lock keeps
    others from reading, so that a file beside it is locked, `.<name>.lock`.

    Args:
        path: the file, in a folder that exists.
        create: create a missing file (mode 600); False opens it for reading only.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file cannot be opened, or its file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o600)
    if sys.platform == "win32":
        os.close(handle)
        lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(f"{path} is locked") from None
        return lock.release
    else:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            error.filename = str(path)
            raise
        return lambda: os.close(handle)


def holder(path: Path) -> int | None:
    """The process that holds the lock of a file, by Linux's /proc/locks; None where that does not say."""
    if sys.platform != "linux":
        return None
    try:
        locks = _LOCKS.read_text()
    except OSError:
        return None
    file = path.stat()
    inode = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in locks.splitlines():
        fields = line.split()
        # 1: FLOCK  ADVISORY  WRITE 1234 08:01:567 0 EOF
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == inode and fields[4] not in ("0", "-1"):
            return int(fields[4])
    return None
