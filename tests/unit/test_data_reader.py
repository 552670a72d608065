"""Reading sequences: the right tokens, verified, fetched once, in bounded space."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from iota.data import (
    DamagedShard,
    DataError,
    DirectoryReader,
    Manifest,
    ShardReader,
    directory_fetch,
    manifest_id,
)
from iota.data.blocks import BLOCK_BYTES
from iota.store import ObjectClient
from tests.support.data_sets import data_folder, prepare_made_up
from tests.support.store_servers import embedded

LENGTH = 64


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return prepare_made_up(tmp_path / "out")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


class Counting:
    """A `fetch` from a folder that notes what it was asked and can be held up."""

    def __init__(self, out: Path) -> None:
        self._fetch = directory_fetch(out)
        self.asked: list[tuple[str, int, int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, key: str, start: int, stop: int) -> bytes:
        self.asked.append((key.rpartition("/")[2], start, stop))
        await self.open.wait()
        return await self._fetch(key, start, stop)


def shard_tokens(out: Path, manifest: Manifest, number: int) -> np.ndarray:
    path = data_folder(out, manifest) / f"{manifest.shards[number].name}.bin"
    return np.frombuffer(path.read_bytes(), manifest.dtype.numpy)


async def test_every_sequence_is_its_shards_tokens_and_one_more(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    wanted = []
    for number in range(len(manifest.train)):
        tokens = shard_tokens(out, manifest, number)
        wanted += [tokens[i : i + LENGTH + 1] for i in range(0, len(tokens) - LENGTH, LENGTH)]
    assert reader.sequence_count(LENGTH) == len(wanted)
    for index, expected in enumerate(wanted):
        got = await reader.tokens(index, LENGTH)
        assert got.dtype == np.int64
        assert np.array_equal(got, expected)


async def test_held_out_sequences_come_from_the_last_shard(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    tokens = shard_tokens(out, manifest, -1)
    assert reader.heldout_count(LENGTH) == (len(tokens) - 1) // LENGTH
    assert np.array_equal(await reader.heldout_tokens(3, LENGTH), tokens[3 * LENGTH : 4 * LENGTH + 1])


async def test_a_sequence_over_several_blocks_is_joined(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    assert np.array_equal(await reader.tokens(0, 99_999), shard_tokens(out, manifest, 0))


@pytest.mark.parametrize("index", [-1, 10**9])
async def test_a_sequence_that_is_not_there_is_refused(
    manifest: Manifest, out: Path, tmp_path: Path, index: int
) -> None:
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    with pytest.raises(ValueError, match="shorter sequences or prepare more data"):
        await reader.tokens(index, LENGTH)


async def test_a_length_beyond_every_shard_has_no_sequences(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    assert reader.sequence_count(100_000) == 0
    with pytest.raises(ValueError, match="no sequence"):
        await reader.tokens(0, 100_000)


async def test_a_block_is_fetched_once_for_all_who_wait(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    fetch = Counting(out)
    fetch.open.clear()
    reader = ShardReader(manifest, fetch, tmp_path / "cache", 1 << 24)
    async with asyncio.TaskGroup() as tasks:
        for index in range(20):
            tasks.create_task(reader.tokens(index, LENGTH))
        fetch.open.set()
    assert fetch.asked == [("shard-00000.idx", 0, 128), ("shard-00000.bin", 0, BLOCK_BYTES)]


async def test_a_later_process_finds_the_blocks_on_disk(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    first = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    wanted = await first.tokens(5, LENGTH)
    fetch = Counting(out)
    second = ShardReader(manifest, fetch, tmp_path / "cache", 1 << 24)
    assert np.array_equal(await second.tokens(5, LENGTH), wanted)
    assert fetch.asked == []


async def test_a_damaged_block_is_named_and_never_used(manifest: Manifest, out: Path, tmp_path: Path) -> None:
    path = data_folder(out, manifest) / "shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[BLOCK_BYTES + 10] ^= 1
    path.write_bytes(data)
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    count = reader.sequence_count(LENGTH)
    index = next(i for i in range(count) if _block_of(manifest, i) == ("shard-00001", 1))
    for _ in range(2):
        with pytest.raises(DamagedShard, match="block 1 of shard-00001") as caught:
            await reader.tokens(index, LENGTH)
        assert (caught.value.shard, caught.value.block) == ("shard-00001", 1)
    assert np.array_equal(await reader.tokens(0, LENGTH), shard_tokens(out, manifest, 0)[: LENGTH + 1])


def _block_of(manifest: Manifest, index: int) -> tuple[str, int]:
    from iota.data.sequences import SequenceMap

    span = SequenceMap(manifest.train, LENGTH).locate(index)
    return span.shard.name, span.start * 2 // BLOCK_BYTES


async def test_a_damaged_index_is_named(manifest: Manifest, out: Path, tmp_path: Path) -> None:
    path = data_folder(out, manifest) / "shard-00000.idx"
    path.write_bytes(bytes(len(path.read_bytes())))
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    with pytest.raises(DamagedShard, match="index of shard-00000"):
        await reader.tokens(0, LENGTH)


@pytest.mark.parametrize("cut", [0, 1000])
async def test_a_short_answer_is_damage(manifest: Manifest, out: Path, tmp_path: Path, cut: int) -> None:
    whole = directory_fetch(out)

    async def short(key: str, start: int, stop: int) -> bytes:
        data = await whole(key, start, stop)
        return data if key.endswith(".idx") else data[:cut]

    reader = ShardReader(manifest, short, tmp_path / "cache", 1 << 24)
    with pytest.raises(DamagedShard, match="block 0"):
        await reader.tokens(0, LENGTH)


async def test_a_damaged_cache_is_fetched_again(manifest: Manifest, out: Path, tmp_path: Path) -> None:
    wanted = await ShardReader(manifest, directory_fetch(out), tmp_path / "c", 1 << 24).tokens(0, LENGTH)
    for path in (tmp_path / "c").rglob("*.block"):
        path.write_bytes(b"damaged")
    fetch = Counting(out)
    reader = ShardReader(manifest, fetch, tmp_path / "c", 1 << 24)
    assert np.array_equal(await reader.tokens(0, LENGTH), wanted)
    assert len(fetch.asked) == 2


async def test_the_cache_stays_within_its_bytes_and_keeps_what_was_used_last(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    fetch = Counting(out)
    bound = 3 * BLOCK_BYTES
    reader = ShardReader(manifest, fetch, tmp_path / "cache", bound, memory_bytes=0)
    for index in range(0, reader.sequence_count(LENGTH), 100):
        await reader.tokens(index, LENGTH)
        used = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.block"))
        assert used <= bound
    before = len(fetch.asked)
    await reader.tokens(index, LENGTH)
    assert len(fetch.asked) == before
    await reader.tokens(0, LENGTH)
    assert len(fetch.asked) > before


def test_a_cache_too_small_for_a_block_is_refused(manifest: Manifest, out: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no block"):
        ShardReader(manifest, directory_fetch(out), tmp_path / "cache", BLOCK_BYTES - 1)


async def test_a_missing_shard_is_the_fetchs_error(manifest: Manifest, out: Path, tmp_path: Path) -> None:
    (data_folder(out, manifest) / "shard-00000.bin").unlink()
    reader = ShardReader(manifest, directory_fetch(out), tmp_path / "cache", 1 << 24)
    with pytest.raises(DataError, match=r"shard-00000\.bin cannot be read"):
        await reader.tokens(0, LENGTH)


async def test_an_id_outside_the_vocabulary_is_refused(manifest: Manifest, out: Path, tmp_path: Path) -> None:
    # A run owner's manifest is believed about bytes, and still not about what the model can index.
    tokenizer = manifest.tokenizer.model_copy(update={"vocab_size": 100, "eos_id": 99})
    wrong = manifest.model_copy(update={"tokenizer": tokenizer})
    (out / "data" / manifest_id(manifest)).rename(out / "data" / manifest_id(wrong))
    reader = ShardReader(wrong, directory_fetch(out), tmp_path / "cache", 1 << 24)
    with pytest.raises(DataError, match="outside its vocabulary"):
        await reader.tokens(0, LENGTH)


def test_the_directory_reader_reads_the_same_and_verifies(manifest: Manifest, out: Path) -> None:
    reader = DirectoryReader(out, manifest_id(manifest))
    tokens = shard_tokens(out, manifest, 0)
    assert reader.sequence_count(LENGTH) > 0
    assert np.array_equal(reader.tokens(7, LENGTH), tokens[7 * LENGTH : 8 * LENGTH + 1])
    held = shard_tokens(out, manifest, -1)
    last = reader.heldout_count(LENGTH) - 1
    assert np.array_equal(reader.heldout_tokens(last, LENGTH), held[last * LENGTH : (last + 1) * LENGTH + 1])
    (data_folder(out, manifest) / "shard-00001.bin").write_bytes(b"")
    with pytest.raises(DamagedShard):
        reader.tokens(reader.sequence_count(LENGTH) // 2, LENGTH)


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        DirectoryReader(tmp_path, "0" * 64)


async def test_sequences_are_read_through_presigned_ranges(
    manifest: Manifest, out: Path, tmp_path: Path
) -> None:
    async with embedded(out) as store, ObjectClient() as client:

        async def fetch(key: str, start: int, stop: int) -> bytes:
            return await client.get(store.presign_get(key, 60), stop - start, 20, (start, stop))

        reader = ShardReader(manifest, fetch, tmp_path / "cache", 1 << 24)
        assert np.array_equal(await reader.tokens(0, 999), shard_tokens(out, manifest, 0)[:1000])
