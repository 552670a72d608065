"""An exclusive lock on a file, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self


class FileLock:
    """The kernel's lock on the file `path`, from creation until `release` or the end of the process.

    It binds the processes of one machine that ask for it. The file's content is left alone, so any file can
    be locked, and nothing that would have to be cleaned up stays behind a killed process.
    """

    def __init__(self, path: Path, in_use: Callable[[], Exception], *, create: bool = True) -> None:
        """Take the lock without waiting.

        Args:
            path: the file, in a folder that exists.
            in_use: makes the error that is raised where another process holds the lock.
            create: make the file (mode 600) if it is missing; False only reads it.

        Raises:
            OSError: the file cannot be opened, or its file system has no locks.
        """
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            if isinstance(error, BlockingIOError):
                raise in_use() from None
            error.filename = str(path)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        os.close(self._handle)
