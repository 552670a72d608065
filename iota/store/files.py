"""Objects as plain files below one folder: what the embedded store keeps on disk.

An object is the file `<root>/<key>`, so that a folder of prepared shards can be served as it is.
Uploads grow in `<root>/.iota-store/` and are linked into place when complete: the link is what
creates the key, and it fails if the key exists, so two uploads cannot race and no reader ever sees
half an object. Nothing is fsynced: after a power cut recent objects may be missing or damaged, which
every reader notices by digest; after a killed process nothing is.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from iota.files import FileLock
from iota.objects.grammar import validate_key, validate_prefix
from iota.store.store import ObjectExists, ObjectInfo, ObjectMissing, StoreError, StoreFull

PRIVATE = ".iota-store"
"""No key can name this folder: a key's segments never begin with a dot."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LINK_TRIES = 3


class RootInUse(StoreError):
    """Another server holds this root."""


class ObjectFiles:
    """The objects below `root`, held by this process alone until `close`.

    `reserve` bytes of the disk are left free. Blocking, and short for small objects.

    Raises:
        RootInUse: if another server has the root open.
    """

    def __init__(self, root: Path, reserve: int = 0) -> None:
        self._root = root
        self._private = root / PRIVATE
        self._reserve = reserve
        self._private.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(
            self._private / "lock",
            lambda: RootInUse(
                f"{root} is in use by another store server: stop that one or choose another folder"
            ),
        )
        # Whoever holds the lock owns every unfinished upload; those of a killed server are dead.
        for leftover in self._private.glob("upload-*"):
            leftover.unlink()

    def close(self) -> None:
        self._lock.release()

    def path(self, key: str) -> Path:
        return self._root / validate_key(key)

    def size(self, key: str) -> int | None:
        """Bytes of the object, or None if there is none."""
        try:
            status = os.stat(self.path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open(self, key: str) -> int:
        """A file descriptor to read the object from. Raises `ObjectMissing`."""
        if self.size(key) is None:
            raise ObjectMissing(f"there is no object {key}")
        try:
            return os.open(self.path(key), os.O_RDONLY)
        except FileNotFoundError:
            raise ObjectMissing(f"there is no object {key}") from None

    def upload(self, key: str, size: int) -> Upload:
        """Begin creating `key` with `size` bytes. Raises `StoreFull`, `ObjectExists`."""
        if self.size(key) is not None:
            raise ObjectExists(f"{key} exists: objects are created once")
        disk = os.statvfs(self._private)
        if disk.f_bavail * disk.f_frsize < size + self._reserve:
            raise StoreFull(f"no room for {size} bytes: free some disk space at the store")
        return Upload(self._private, self.path(key), key)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Objects in the folder `prefix`, in order of key."""
        folder = validate_prefix(prefix)
        found: list[ObjectInfo] = []
        for where, folders, names in os.walk(self._root / folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.relpath(where, self._root)
            for name in names:
                key = name if inside == "." else f"{inside}/{name}"
                # Files laid here by hand under names that no key has, and those deleted meanwhile.
                with suppress(ValueError):
                    if (size := self.size(key)) is not None:
                        found.append(ObjectInfo(key, size))
        return sorted(found, key=lambda item: item.key)

    def delete_prefix(self, prefix: str) -> int:
        """Delete the objects in the folder `prefix` and the folders this empties; their number."""
        folder = validate_prefix(prefix)
        if not folder:
            raise ValueError("deleting the whole store is not offered: name a folder")
        count = 0
        for where, _, names in os.walk(self._root / folder, topdown=False):
            for name in names:
                # Two deletions of one folder may meet; each object is counted by whoever removed it.
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(where, name))
                    count += 1
            try:
                os.rmdir(where)
            except OSError as error:
                # An upload put something here meanwhile, or another deletion was faster.
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise
        return count


class Upload:
    """One object on its way in: write its bytes, then `finish`. Leaving without leaves nothing."""

    def __init__(self, private: Path, target: Path, key: str) -> None:
        self._target = target
        self._key = key
        self._fd, self._temporary = tempfile.mkstemp(prefix="upload-", dir=private)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        os.unlink(self._temporary)

    def write(self, data: bytes) -> None:
        """Append `data`. Raises `StoreFull`."""
        view = memoryview(data)
        try:
            while view.nbytes:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _full_or(error) from error

    def finish(self) -> None:
        """Make the object visible, whole. Raises `ObjectExists`, `StoreFull`, `StoreError`."""
        # A deletion may remove the folder between its making and the link.
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
                raise _full_or(error) from error
        raise StoreError(f"the folder of {self._key} is being deleted")

    def _make_folder(self) -> None:
        try:
            os.makedirs(self._target.parent, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StoreError(f"a folder of {self._key} is an object") from None
        except OSError as error:
            raise _full_or(error) from error


def _full_or(error: OSError) -> StoreError:
    if error.errno in _FULL:
        return StoreFull("the store's disk is full: free some space at the store")
    return StoreError(f"the store cannot write: {error.strerror}")
