"""A lock that lets one process at a time use a key; two would conflict in nonces, receipts and weights.

It is the kernel's lock on the key's file itself (`iota.system.locks`). The file is opened only for reading,
so read-only wallets work, and the lock ends with the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iota.files import FileLock
from iota.identity.keys import DEFAULT_WALLET_PATH, hotkey_path
from iota.system.locks import holder


class HotkeyInUse(ValueError):
    """Another process holds this hotkey."""


class HotkeyNotLockable(ValueError):
    """The file cannot be locked: it is missing, unreadable, or on a file system without locks."""


@contextmanager
def hold_hotkey(
    wallet_name: str, hotkey_name: str, wallet_path: str | Path = DEFAULT_WALLET_PATH
) -> Iterator[None]:
    """Hold the hotkey while the context is open, against other processes that lock the same file.

    Raises HotkeyInUse or HotkeyNotLockable.
    """
    path = hotkey_path(wallet_name, hotkey_name, wallet_path)
    with hold_key_file(
        path, f"hotkey {hotkey_name!r} of wallet {wallet_name!r}", "give this one another hotkey"
    ):
        yield


@contextmanager
def hold_key_file(path: Path, name: str, remedy: str) -> Iterator[None]:
    """Hold the file of a key, as `hold_hotkey` does; `name` and `remedy` are for the message."""

    def in_use() -> HotkeyInUse:
        return HotkeyInUse(f"{name} is in use by {_holder(path)}: stop that one, or {remedy}")

    try:
        lock = FileLock(path, in_use, create=False)
    except OSError as error:
        raise HotkeyNotLockable(
            f"cannot lock the key file {path} ({error.strerror}): it must be readable, and on a local disk"
        ) from None
    with lock:
        yield


def _holder(path: Path) -> str:
    found = holder(path)
    return "another process" if found is None else f"process {found}"
