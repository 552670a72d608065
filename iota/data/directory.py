"""Prepared data in a local folder: a `Fetch` for `ShardReader`, and a synchronous reader."""

from __future__ import annotations

import asyncio
from pathlib import Path

from iota.data.blocks import BLOCK_BYTES, BlockIndex, covering
from iota.data.manifest import MANIFEST_NAME, DataError, Manifest, Shard, parse_manifest
from iota.data.reader import Fetch, Tokens, decode
from iota.data.sequences import SequenceMap, Span
from iota.objects import manifest_folder
from iota.system.files import read_at


def read_manifest(out: Path, identity: str) -> Manifest:
    """The manifest with id `identity` from the folder `out` of a preparation.

    Raises `DataError` if it cannot be read or has another id.
    """
    path = out / manifest_folder(identity) / MANIFEST_NAME
    try:
        return parse_manifest(path.read_bytes(), identity)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def prepared_ids(out: Path) -> list[str]:
    """Ids of the data sets in the folder `out` of preparations. Raises `ValueError` if there are none."""
    if not out.is_dir():
        raise ValueError(
            f"there is no folder {out}: give the one that `iota data prepare` wrote to; where --out was a"
            " store, that is --work (iota-data)"
        )
    found = sorted(path.parent.name for path in out.glob(f"data/*/{MANIFEST_NAME}"))
    if not found:
        raise ValueError(f"{out} holds no prepared data: run `iota data prepare SOURCE --out {out}` first")
    return found


def directory_fetch(out: Path) -> Fetch:
    """A `Fetch` that reads from `out`, the folder of a preparation. It raises `DataError`."""

    async def fetch(key: str, start: int, stop: int) -> bytes:
        return await asyncio.to_thread(_read_range, out / key, start, stop)

    return fetch


class DirectoryReader:
    """Synchronous counterpart of `ShardReader` for local data: no store, cache or event loop.

    Each block is verified on its first use.
    """

    def __init__(self, out: Path, identity: str) -> None:
        self.manifest = read_manifest(out, identity)
        self._folder = out / manifest_folder(identity)
        self._itemsize = self.manifest.dtype.numpy.itemsize
        self._indexes: dict[str, BlockIndex] = {}
        self._verified: set[tuple[str, int]] = set()

    def sequence_count(self, length: int) -> int:
        """Training sequences of `length` tokens."""
        return SequenceMap(self.manifest.train, length).count

    def heldout_count(self, length: int) -> int:
        """Held-out sequences of `length` tokens."""
        return SequenceMap([self.manifest.heldout], length).count

    def tokens(self, sequence_index: int, length: int) -> Tokens:
        """Training sequence `sequence_index`, int64 (length + 1,). Raises `DamagedShard`, `ValueError`."""
        return self._read(SequenceMap(self.manifest.train, length).locate(sequence_index))

    def heldout_tokens(self, sequence_index: int, length: int) -> Tokens:
        """Like `tokens`, from the held-out shard."""
        return self._read(SequenceMap([self.manifest.heldout], length).locate(sequence_index))

    def _read(self, span: Span) -> Tokens:
        numbers = covering(span.start * self._itemsize, span.stop * self._itemsize)
        data = b"".join(self._block(span.shard, number) for number in numbers)
        return decode(self.manifest, span, data, numbers[0] * BLOCK_BYTES)

    def _block(self, shard: Shard, number: int) -> bytes:
        index = self._index(shard)
        start, stop = index.extent(number)
        data = _read_range(self._folder / f"{shard.name}.bin", start, stop)
        if (shard.name, number) not in self._verified:
            index.check(number, data)
            self._verified.add((shard.name, number))
        return data

    def _index(self, shard: Shard) -> BlockIndex:
        if shard.name not in self._indexes:
            path = self._folder / f"{shard.name}.idx"
            raw = _read_range(path, 0, path.stat().st_size if path.exists() else 0)
            self._indexes[shard.name] = BlockIndex(shard, raw, self._itemsize)
        return self._indexes[shard.name]


def _read_range(path: Path, start: int, stop: int) -> bytes:
    try:
        with path.open("rb") as file:
            return read_at(file.fileno(), stop - start, start)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
