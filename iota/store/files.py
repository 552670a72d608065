"""The embedded store's disk format: objects as plain files below one folder.

An object is the file `<root>/<key>`, so that a folder of prepared shards can be served unchanged.
Uploads are written to `<root>/.iota-store/` and hard-linked to their key when complete. The link fails
if the key exists: of two concurrent uploads one wins, and readers never see a partial object. Files
are not fsynced. A killed process damages no object; after a power cut recent objects may be missing or
damaged, which readers detect by digest.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from iota.files import FileLock
from iota.objects.grammar import validate_key, validate_prefix
from iota.store.store import ObjectExists, ObjectInfo, ObjectMissing, StoreError, StoreFull
from iota.system.files import open_binary

PRIVATE = ".iota-store"
"""Folder of the lock and of unfinished uploads. Keys cannot name it, since no segment begins with a dot."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LINK_TRIES = 3
"""Each retry needs another deletion of the folder within microseconds."""


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that holds `folder`, for users other than root."""
    return shutil.disk_usage(folder).free


class RootInUse(StoreError):
    """Another server has locked this root."""


class ObjectFiles:
    """The objects below `root`, which this process locks until `close`. All methods block.

    Uploads leave `reserve` bytes of the disk free. What is promised to unfinished uploads counts as used.

    Args:
        free: gives the free bytes of the disk that holds a folder.

    Raises:
        RootInUse: if another server has locked the root.
    """

    def __init__(self, root: Path, reserve: int = 0, free: Callable[[Path], int] = free_bytes) -> None:
        self._root = root
        self._private = root / PRIVATE
        self._reserve, self._free = reserve, free
        self._uploads: set[Upload] = set()
        self._private.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(
            self._private / "lock",
            lambda: RootInUse(
                f"{root} is in use by another store server: stop that one or choose another folder"
            ),
        )
        # With the lock held, unfinished uploads can only be those of a killed server.
        for leftover in self._private.glob("upload-*"):
            leftover.unlink()

    def close(self) -> None:
        """Release the lock on the root."""
        self._lock.release()

    def size(self, key: str) -> int | None:
        """Size of the object in bytes, or None if it does not exist."""
        try:
            status = os.stat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open(self, key: str) -> int:
        """Open the object for reading. The caller closes the file descriptor. Raises `ObjectMissing`."""
        if self.size(key) is None:
            raise ObjectMissing(f"there is no object {key}")
        try:
            return open_binary(self._path(key))
        except FileNotFoundError:
            raise ObjectMissing(f"there is no object {key}") from None

    def upload(self, key: str, size: int) -> Upload:
        """Start an upload of `size` bytes to `key`. Raises `StoreFull`, `ObjectExists`."""
        if self.size(key) is not None:
            raise ObjectExists(f"{key} exists: objects are created once")
        promised = sum(upload.missing for upload in self._uploads)
        if self._free(self._private) < size + promised + self._reserve:
            raise StoreFull(f"no room for {size} bytes: free some disk space at the store")
        return Upload(self._private, self._path(key), key, size, self._uploads)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Objects in the folder `prefix`, in order of key."""
        folder = validate_prefix(prefix)
        found: list[ObjectInfo] = []
        for where, folders, names in os.walk(self._root / folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.relpath(where, self._root)
            for name in names:
                key = name if inside == "." else f"{inside}/{name}"
                # Skips files with names that are not keys, and files that are deleted meanwhile.
                with suppress(ValueError):
                    if (size := self.size(key)) is not None:
                        found.append(ObjectInfo(key, size))
        return sorted(found, key=lambda item: item.key)

    def delete_prefix(self, prefix: str) -> int:
        """Delete the objects in the folder `prefix`, and its empty folders. Returns the number of objects."""
        folder = validate_prefix(prefix)
        if not folder:
            raise ValueError("deleting the whole store is not offered: name a folder")
        count = 0
        for where, _, names in os.walk(self._root / folder, topdown=False):
            for name in names:
                # Of two concurrent deletions of a folder, each counts the objects that it removed.
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(where, name))
                    count += 1
            try:
                os.rmdir(where)
            except OSError as error:
                # A concurrent upload has added an object, or a concurrent deletion removed the folder.
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise
        return count

    def _path(self, key: str) -> Path:
        return self._root / validate_key(key)


class Upload:
    """An object of exactly `size` bytes being created. Leaving the context without `finish` discards it.

    It is a member of `open_uploads` for as long as its context is open.
    """

    def __init__(self, private: Path, target: Path, key: str, size: int, open_uploads: set[Upload]) -> None:
        self._target = target
        self._key = key
        self.missing = size
        """Bytes that have not been written yet."""
        self._open_uploads = open_uploads
        try:
            self._fd, self._temporary = tempfile.mkstemp(prefix="upload-", dir=private)
        except OSError as error:
            raise _write_error(error) from error

    def __enter__(self) -> Self:
        self._open_uploads.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._open_uploads.discard(self)
        os.close(self._fd)
        os.unlink(self._temporary)

    def write(self, data: bytes) -> None:
        """Append `data`. Raises `StoreFull`, and `StoreError` for more bytes than the object has."""
        view = memoryview(data)
        if view.nbytes > self.missing:
            raise StoreError(f"{view.nbytes - self.missing} bytes more than {self._key} was to have")
        self.missing -= view.nbytes
        try:
            while view.nbytes:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _write_error(error) from error

    def finish(self) -> None:
        """Make the complete object visible. Raises `ObjectExists`, `StoreFull`, `StoreError`."""
        if self.missing:
            raise StoreError(f"{self.missing} bytes of {self._key} are missing")
        # A concurrent deletion may remove the folder between its creation and the link.
        for _ in range(_LINK_TRIES):
            try:
                os.link(self._temporary, self._target)
                return
            except FileNotFoundError:
                self._make_folder()
            except FileExistsError:
                if self._target.is_dir():
                    raise StoreError(f"{self._key} is a folder of other objects") from None
                raise ObjectExists(f"{self._key} exists: objects are created once") from None
            except NotADirectoryError:
                raise StoreError(f"a folder of {self._key} is an object") from None
            except OSError as error:
                raise _write_error(error) from error
        raise StoreError(f"the folder of {self._key} is being deleted")

    def _make_folder(self) -> None:
        try:
            os.makedirs(self._target.parent, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StoreError(f"a folder of {self._key} is an object") from None
        except OSError as error:
            raise _write_error(error) from error


def _write_error(error: OSError) -> StoreError:
    if error.errno in _FULL:
        return StoreFull("the store's disk is full: free some space at the store")
    return StoreError(f"the store cannot write: {error.strerror}")
