"""Writes a stream of token ids as shards, each with its block index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from iota.data.blocks import BLOCK_BYTES, split
from iota.data.manifest import MAX_SHARDS, Shard, shard_name
from iota.spec import Count, Frozen


class WriterState(Frozen):
    """Position of a writer: the complete shards, and the size and digest of the open one."""

    shards: tuple[Shard, ...]
    open_bytes: Count
    open_digest: str


class ShardWriter:
    """Cuts the appended tokens into shards of exactly `shard_tokens` in `folder`; the last is shorter.

    `resumed` continues from an earlier position, and discards bytes that were written after it.

    Raises:
        ValueError: if the open shard's file does not match `resumed`.
    """

    def __init__(
        self,
        folder: Path,
        dtype: np.dtype[np.unsignedinteger],
        shard_tokens: int,
        resumed: WriterState | None = None,
    ) -> None:
        self._folder = folder
        self._dtype = dtype
        self._shard_bytes = shard_tokens * dtype.itemsize
        self._shards = list(resumed.shards) if resumed else []
        self._begin(self._verified_prefix(resumed) if resumed else b"")

    @property
    def whole_shards(self) -> int:
        """Number of complete shards."""
        return len(self._shards)

    def append(self, tokens: npt.NDArray[np.unsignedinteger]) -> None:
        """Append `tokens`, shape (length,). They may span shards."""
        view = memoryview(tokens.astype(self._dtype).tobytes())
        while view.nbytes:
            taken = view[: self._shard_bytes - self._bytes]
            self._write(taken)
            view = view[taken.nbytes :]
            if self._bytes == self._shard_bytes:
                self._end_shard()

    def _end_shard(self) -> None:
        """Write the open shard's index and begin the next shard. Does nothing if the open one is empty."""
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
        """Write `tokens` as one shard, regardless of `shard_tokens`."""
        self._end_shard()
        self._write(memoryview(tokens.astype(self._dtype).tobytes()))
        self._end_shard()

    def flush(self) -> WriterState:
        """Hand all bytes to the operating system, and return the position after them."""
        self._file.flush()
        return WriterState(
            shards=tuple(self._shards), open_bytes=self._bytes, open_digest=self._hash.hexdigest()
        )

    def close(self) -> None:
        """Close the open file without ending its shard."""
        self._file.close()

    def _path(self) -> Path:
        return self._folder / f"{shard_name(len(self._shards))}.bin"

    def _begin(self, kept: bytes = b"") -> None:
        if len(self._shards) >= MAX_SHARDS:
            raise ValueError(f"the data needs more than {MAX_SHARDS} shards: use larger ones")
        # Bytes that a checkpoint refers to are never truncated, so that a kill here loses nothing.
        self._file = self._path().open("r+b" if kept else "wb")
        self._file.seek(len(kept))
        self._file.truncate()
        self._bytes = 0
        self._hash = blake3()
        self._tail = bytearray()
        self._index = bytearray()
        self._hash_blocks(memoryview(kept))

    def _write(self, data: memoryview) -> None:
        self._file.write(data)
        self._hash_blocks(data)

    def _hash_blocks(self, data: memoryview) -> None:
        self._hash.update(data)
        self._bytes += data.nbytes
        self._tail += data
        whole = len(self._tail) // BLOCK_BYTES * BLOCK_BYTES
        for block in split(memoryview(bytes(self._tail[:whole]))):
            self._index += blake3(block).digest()
        del self._tail[:whole]

    def _verified_prefix(self, resumed: WriterState) -> bytes:
        """The bytes of the open shard up to `resumed`, read back because a hash state cannot be saved."""
        kept = b""
        if resumed.open_bytes and self._path().exists():
            with self._path().open("rb") as file:
                kept = file.read(resumed.open_bytes)
        if blake3(kept).hexdigest() != resumed.open_digest:
            raise ValueError(f"{self._path()} changed since the work stopped: delete {self._folder}")
        return kept
