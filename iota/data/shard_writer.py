"""Writing a stream of token ids as shards with their block indexes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from iota.data.blocks import BLOCK_BYTES, split
from iota.data.manifest import MAX_SHARDS, Shard, shard_name


@dataclass(frozen=True)
class Written:
    """How far a writer has come: whole shards, and the bytes and digest of the one that is open."""

    shards: tuple[Shard, ...]
    open_bytes: int
    open_digest: str


class ShardWriter:
    """Cuts what is appended into shards of exactly `shard_tokens` in `folder`; the last is shorter.

    With `resumed`, goes on from there and cuts off whatever was written after it.

    Raises:
        ValueError: if the files in `folder` are not what `resumed` says.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype[np.unsignedinteger],
        shard_tokens: int,
        resumed: Written | None = None,
    ) -> None:
        self._folder = folder
        self._dtype = dtype
        self._shard_bytes = shard_tokens * dtype.itemsize
        self._shards = list(resumed.shards) if resumed else []
        self._begin(self._kept(resumed) if resumed else b"")

    @property
    def whole_shards(self) -> int:
        return len(self._shards)

    def append(self, tokens: npt.NDArray[np.unsignedinteger]) -> None:
        view = memoryview(tokens.astype(self._dtype).tobytes())
        while view.nbytes:
            taken = view[: self._shard_bytes - self._bytes]
            self._take(taken)
            view = view[taken.nbytes :]
            if self._bytes == self._shard_bytes:
                self.cut()

    def cut(self) -> None:
        """End the open shard here, if it holds anything."""
        if not self._bytes:
            return
        self._file.close()
        if self._tail:
            self._index += blake3(self._tail).digest()
        name = shard_name(len(self._shards))
        (self._folder / f"{name}.idx").write_bytes(self._index)
        self._shards.append(
            Shard(
                name=name,
                tokens=self._bytes // self._dtype.itemsize,
                digest=self._hash.hexdigest(),
                index_digest=blake3(self._index).hexdigest(),
            )
        )
        self._begin()

    def append_shard(self, tokens: npt.NDArray[np.unsignedinteger]) -> None:
        """Write `tokens` as a shard of their own, however many they are."""
        self.cut()
        self._take(memoryview(tokens.astype(self._dtype).tobytes()))
        self.cut()

    def flush(self) -> Written:
        """Hand everything to the operating system, and say how far that is."""
        self._file.flush()
        return Written(tuple(self._shards), self._bytes, self._hash.hexdigest())

    def close(self) -> None:
        """Close the open file without ending its shard."""
        self._file.close()

    def _path(self) -> Path:
        return self._folder / f"{shard_name(len(self._shards))}.bin"

    def _begin(self, kept: bytes = b"") -> None:
        if len(self._shards) >= MAX_SHARDS:
            raise ValueError(f"the data needs more than {MAX_SHARDS} shards: use larger ones")
        # What a checkpoint counts on is never truncated, so that being killed here costs nothing.
        self._file = self._path().open("r+b" if kept else "wb")
        self._file.seek(len(kept))
        self._file.truncate()
        self._bytes = 0
        self._hash = blake3()
        self._tail = bytearray()
        self._index = bytearray()
        self._account(memoryview(kept))

    def _take(self, data: memoryview) -> None:
        self._file.write(data)
        self._account(data)

    def _account(self, data: memoryview) -> None:
        self._hash.update(data)
        self._bytes += data.nbytes
        self._tail += data
        whole = len(self._tail) // BLOCK_BYTES * BLOCK_BYTES
        for block in split(memoryview(bytes(self._tail[:whole]))):
            self._index += blake3(block).digest()
        del self._tail[:whole]

    def _kept(self, resumed: Written) -> bytes:
        """The beginning of the open shard, read back and checked, since hashes cannot be stored."""
        kept = b""
        if resumed.open_bytes and self._path().exists():
            with self._path().open("rb") as file:
                kept = file.read(resumed.open_bytes)
        if blake3(kept).hexdigest() != resumed.open_digest:
            raise ValueError(f"{self._path()} changed since the work stopped: delete {self._folder}")
        return kept
