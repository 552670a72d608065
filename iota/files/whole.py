"""Atomic writes: a file or folder appears under its name complete or not at all, even after a kill.

The content is written to a sibling, `.<name>.<random>.part`, which is then renamed. A process that is killed
before leaves the sibling, and the old content under the name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iota.system.files import sync_file, sync_names


def write_whole(
    path: Path, data: bytes | bytearray, *, durable: bool = False, mode: int = 0o666, replace: bool = True
) -> None:
    """Write `data` to the file `path`; arguments and errors are those of `whole_file`."""
    with whole_file(path, durable=durable, mode=mode, replace=replace) as part:
        part.write_bytes(data)


@contextmanager
def whole_file(
    path: Path, *, durable: bool = False, mode: int = 0o666, replace: bool = True
) -> Iterator[Path]:
    """Yields an empty file to write to, which becomes `path` when the block ends without an error.

    Args:
        durable: sync the content to the disk before the renaming, and the name after it, so that both also
            survive a power cut.
        mode: permissions of the file, less the process's umask.
        replace: whether an existing file may be replaced.

    Raises:
        FileExistsError: `path` exists, and `replace` is False.
        OSError: it cannot be written; `path` is unchanged.
    """
    part = _sibling(path)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield part
        if durable:
            sync_file(part)
        if replace:
            part.replace(path)
        else:
            os.link(part, path)  # unlike a rename, a link fails if the name exists
        if durable:
            sync_names(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields an empty folder to fill with files, which becomes `path` when the block ends without an error.

    Args:
        durable: as for `whole_file`, of each file.

    Raises:
        OSError: it cannot be created, or `path` exists and is not an empty folder.
    """
    part = _sibling(path)
    part.mkdir()
    try:
        yield part
        if durable:
            for file in part.iterdir():
                sync_file(file)
            sync_names(part)
        part.rename(path)
        if durable:
            sync_names(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the siblings that killed processes left in `folder`; no other process may write there."""
    for part in folder.glob(".*.part"):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
