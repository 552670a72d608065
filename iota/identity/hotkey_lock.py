"""One process per hotkey: two writers would overtake each other's nonces and weights.

The lock is the kernel's, on the hotkey file itself, which is only read: nothing is written, so that
read-only wallets will do, and nothing stays behind when the process is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iota.files import FileLock
from iota.identity.keys import DEFAULT_WALLET_PATH, hotkey_path

_LOCKS = Path("/proc/locks")


class HotkeyInUse(ValueError):
    """Another process works with this hotkey."""


class HotkeyNotLockable(ValueError):
    """The file cannot be locked: it is not there, or its file system has no locks."""


@contextmanager
def hold_hotkey(
    wallet_name: str, hotkey_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH
) -> Iterator[None]:
    """Keep every other process that asks from this hotkey, while it lasts.

    It binds processes on one machine that use the same file.

    Raises:
        HotkeyInUse: another process has it.
        HotkeyNotLockable: the file cannot be opened or locked.
    """
    path = hotkey_path(wallet_name, hotkey_name, wallet_path)

    def in_use() -> HotkeyInUse:
        return HotkeyInUse(
            f"hotkey {hotkey_name!r} of wallet {wallet_name!r} is in use by {_holder(path)}:"
            " stop that one, or give this one another hotkey"
        )

    try:
        lock = FileLock(path, in_use, create=False)
    except OSError as error:
        raise HotkeyNotLockable(
            f"cannot lock the hotkey file {path} ({error.strerror}): it must be readable, and on a local disk"
        ) from None
    with lock:
        yield


def _holder(path: Path) -> str:
    """Who holds the lock, as far as this system tells."""
    file = path.stat()
    inode = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        locks = _LOCKS.read_text()
    except OSError:
        return "another process"
    for line in locks.splitlines():
        fields = line.split()
        # 1: FLOCK  ADVISORY  WRITE 1234 08:01:567 0 EOF
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == inode and fields[4] not in ("0", "-1"):
            return f"process {fields[4]}"
    return "another process"
