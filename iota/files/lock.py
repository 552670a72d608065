"""An exclusive lock on a file, held by one process at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from iota.system.locks import hold


class FileLock:
    """The lock of the file `path`, from creation until `release` or the end of the process.

    It holds on one machine. The file's content is not touched, so any file can be locked, and a killed
    process leaves nothing to clean up.
    """

    def __init__(self, path: Path, in_use: Callable[[], Exception], *, create: bool = True) -> None:
        """Take the lock without waiting.

        Args:
            path: the file, in a folder that exists.
            in_use: makes the error to raise if another process holds the lock.
            create: create a missing file (mode 600); False opens it for reading only.

        Raises:
            OSError: the file cannot be opened, or its file system has no locks.
        """
        try:
            self._release = hold(path, create=create)
        except BlockingIOError:
            raise in_use() from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lock back; the file stays."""
        self._release()
