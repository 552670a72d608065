"""Blocks: shards are verified in pieces of 64 KiB, against an index of their digests."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from blake3 import blake3

from iota.data.manifest import DataError, Shard

BLOCK_BYTES = 1 << 16
"""Part of the data format: an index holds one digest for each 64 KiB."""
DIGEST_BYTES = 32
"""Size of a BLAKE3 digest."""


class DamagedShard(DataError):
    """Bytes of a shard do not have the digest that the manifest gives; `block` is None for the index."""

    def __init__(self, shard: str, block: int | None) -> None:
        what = "index" if block is None else f"block {block}"
        super().__init__(f"{what} of {shard} is damaged: its bytes do not have the manifest's digest")
        self.shard = shard
        self.block = block


class BlockIndex:
    """The digests of one shard's blocks, verified against the manifest.

    Args:
        raw: content of the .idx file.
        itemsize: bytes of a token.

    Raises:
        DamagedShard: if `raw` does not have the manifest's digest.
    """

    def __init__(self, shard: Shard, raw: bytes, itemsize: int) -> None:
        self._shard = shard
        self._raw = raw
        self._size = shard.tokens * itemsize
        digest = blake3(raw).hexdigest()
        if len(raw) != index_bytes(shard, itemsize) or not hmac.compare_digest(digest, shard.index_digest):
            raise DamagedShard(shard.name, None)

    def extent(self, block: int) -> tuple[int, int]:
        """Half-open byte range of `block` in the shard. The last block may be short."""
        start = block * BLOCK_BYTES
        return start, min(start + BLOCK_BYTES, self._size)

    def check(self, block: int, data: bytes) -> bytes:
        """Return `data` if it has the digest and size of `block`. Raises `DamagedShard`."""
        start, stop = self.extent(block)
        wanted = self._raw[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]
        if len(data) != stop - start or blake3(data).digest() != wanted:
            raise DamagedShard(self._shard.name, block)
        return data


def index_bytes(shard: Shard, itemsize: int) -> int:
    """Size of the shard's .idx file: one digest for each block."""
    return -(-shard.tokens * itemsize // BLOCK_BYTES) * DIGEST_BYTES


def covering(start: int, stop: int) -> range:
    """Numbers of the blocks that contain the bytes [start, stop) of a shard."""
    return range(start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES + 1)


def split(data: memoryview) -> Iterator[memoryview]:
    """Cut `data` into blocks. The last one may be short."""
    for start in range(0, data.nbytes, BLOCK_BYTES):
        yield data[start : start + BLOCK_BYTES]
