"""Files and folders that appear under their names whole or not at all, whenever the process is killed.

The content grows in a sibling, `.<name>.<random>.part`, which then takes the name in one step. A process that
is killed before leaves that sibling behind, and under the name what was there before.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(
    path: Path, data: bytes, *, durable: bool = False, mode: int = 0o666, replace: bool = True
) -> None:
    """Write `data` to the file `path`; arguments and errors are those of `whole_file`."""
    with whole_file(path, durable=durable, mode=mode, replace=replace) as part:
        part.write_bytes(data)


@contextmanager
def whole_file(
    path: Path, *, durable: bool = False, mode: int = 0o666, replace: bool = True
) -> Iterator[Path]:
    """An empty file to write to, which becomes `path` when the block ends without an error.

    Args:
        durable: the content is on the disk before it has the name, so that a power cut tears nothing either.
        mode: permissions of the file, of which the process's umask takes some away.
        replace: whether it may take the place of a file that is there.

    Raises:
        FileExistsError: `path` is there, and `replace` is False.
        OSError: it cannot be written; `path` is as before.
    """
    part = _sibling(path)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield part
        if durable:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        if replace:
            part.replace(path)
        else:
            os.link(part, path)  # unlike a rename, it fails where the name is taken
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `path` when the block ends without an error.

    Raises:
        OSError: it cannot be made, or `path` is there and is not an empty folder.
    """
    part = _sibling(path)
    part.mkdir()
    try:
        yield part
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written in `folder`; for the only process that writes there."""
    for part in folder.glob(".*.part"):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
