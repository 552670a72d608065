"""The file of a bundle: a zip whose members are stored as they are, so that nothing is unpacked to be read.

A file from a stranger is bounded before it is read: its size, its directory, the number of its members, and
their sizes together. A file below 2 GiB has one form of directory; any other is refused.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from blake3 import blake3

from iota.console.counts import counted
from validator.bundles.form import MANIFEST, MAX_MEMBERS, MAX_NAME, Member

MAX_BUNDLE_BYTES: Final = (1 << 31) - 1
"""Largest file of a bundle."""
MAX_MANIFEST_BYTES: Final = 32 << 20
_END: Final = struct.Struct("<4s4H2LH")
"""The end of a zip's directory: its mark, and its fields."""
_END_MARK: Final = b"PK\x05\x06"
_LOCATOR_MARK: Final = b"PK\x06\x07"
"""Mark of the 20 bytes before the end that lead to another form of the directory."""
_LOCATOR_BYTES: Final = 20
_ENTRY_BYTES: Final = 46
"""Of a member in the directory, without its name."""
_CHUNK: Final = 1 << 20


class BundleRefused(ValueError):
    """The file is no bundle, is above a bound, or a member is not there or of another size."""


class BundleTooLarge(Exception):
    """What an audit read does not fit into a bundle."""


class BundleWriter:
    """Writes members to a new file. `limit`: bytes of all members."""

    def __init__(self, path: Path, limit: int) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=False)
        self._left = limit
        self.members: dict[str, Member] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def check_room(self, size: int) -> None:
        """Raise BundleTooLarge unless a member of `size` bytes has room."""
        if size > self._left or len(self.members) + 2 > MAX_MEMBERS:
            raise BundleTooLarge(f"{size} bytes more are above the bound of a bundle")

    def add(self, name: str, data: bytes) -> None:
        """Write a member; one of a name that is there already stays. Raises BundleTooLarge."""
        if name in self.members:
            return
        self.check_room(len(data))
        self._left -= len(data)
        self._zip.writestr(zipfile.ZipInfo(name), data)
        self.members[name] = Member(name=name, digest=blake3(data).hexdigest(), size=len(data))

    def finish(self, manifest: bytes) -> None:
        """Write the manifest, which comes last since it has the digests of the others."""
        self.check_room(len(manifest))
        self._zip.writestr(zipfile.ZipInfo(MANIFEST), manifest)


class BundleReader:
    """The members of a file. Raises BundleRefused for a file that is no bundle."""

    def __init__(self, path: Path) -> None:
        _check_directory(path)
        try:
            self._zip = zipfile.ZipFile(path)
            self._entries = {entry.filename: entry for entry in self._zip.infolist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise BundleRefused(f"{path} is no bundle: {error}") from None
        entries = self._zip.infolist()
        plain = all(
            e.compress_type == zipfile.ZIP_STORED and e.compress_size == e.file_size and not e.flag_bits & 1
            for e in entries
        )
        if not plain or len(self._entries) != len(entries):
            self.close()
            raise BundleRefused(f"{path} is no bundle: a member is compressed or encrypted, or comes twice")
        if sum(e.file_size for e in entries) > path.stat().st_size:
            self.close()
            raise BundleRefused(f"{path} is no bundle: its members are larger than it")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def names(self) -> set[str]:
        """Names of all members."""
        return set(self._entries)

    def read(self, name: str, max_bytes: int) -> bytes:
        """A member. Raises BundleRefused where it is not there, too large or damaged."""
        entry = self._entries.get(name)
        if entry is None:
            raise BundleRefused(f"{name} is not in the bundle")
        if entry.file_size > max_bytes:
            raise BundleRefused(f"{name} has {entry.file_size} bytes, at most {max_bytes} may be")
        try:
            return self._zip.read(entry)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as error:
            raise BundleRefused(f"{name} is damaged: {error}") from None

    def is_intact(self, member: Member) -> bool:
        """Whether a member has the size and digest that the manifest names; reads it piece by piece."""
        entry = self._entries.get(member.name)
        if entry is None or entry.file_size != member.size:
            return False
        found = blake3()
        try:
            with self._zip.open(entry) as file:
                while piece := file.read(_CHUNK):
                    found.update(piece)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error):
            return False
        return found.hexdigest() == member.digest


def _check_directory(path: Path) -> None:
    """Raise BundleRefused unless the file's directory is small enough to be read at once."""
    size = path.stat().st_size
    if not path.is_file() or not _END.size <= size <= MAX_BUNDLE_BYTES:
        raise BundleRefused(f"{path} is no bundle, or is larger than {MAX_BUNDLE_BYTES} bytes")
    with path.open("rb") as file:
        file.seek(max(0, size - _END.size - _LOCATOR_BYTES))
        tail = file.read()
    end = tail[-_END.size :]
    mark, _, _, _, count, directory, _, comment = _END.unpack(end)
    if mark != _END_MARK or comment or tail[: -_END.size].startswith(_LOCATOR_MARK):
        raise BundleRefused(f"{path} is no bundle")
    if count > MAX_MEMBERS or directory > count * (_ENTRY_BYTES + MAX_NAME):
        raise BundleRefused(f"{path} has a directory of {directory} bytes for {counted(count, 'member')}")
