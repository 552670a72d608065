"""Preparing data: what the shards hold, and that being killed changes no byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from iota.data import Document, Manifest, manifest_id, open_source, open_tokenizer, prepare, publish
from iota.store import EmbeddedStore, ObjectExists
from tests.support.data_sets import MadeUp, data_folder, made_up_text, prepare_made_up
from tests.support.store_servers import embedded

EOS = 256


def tokens_of(out: Path, manifest: Manifest, number: int) -> np.ndarray:
    path = data_folder(out, manifest) / f"{manifest.shards[number].name}.bin"
    return np.frombuffer(path.read_bytes(), manifest.dtype.numpy)


def documents_in(tokens: np.ndarray) -> list[str]:
    """The documents in a stream of ids, each of which an EOS ends."""
    assert tokens[-1] == EOS
    pieces = np.split(tokens, np.flatnonzero(tokens == EOS) + 1)[:-1]
    return [piece[:-1].astype(np.uint8).tobytes().decode() for piece in pieces]


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / "data").rglob("*") if p.is_file()}


def test_every_document_is_in_the_shards_exactly_once(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path)
    train = np.concatenate([tokens_of(tmp_path, manifest, i) for i in range(len(manifest.train))])
    held = documents_in(tokens_of(tmp_path, manifest, -1))
    assert sorted(documents_in(train) + held) == [made_up_text(i) for i in range(3000)]


def test_shards_have_the_size_asked_for_and_the_digests_they_name(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path)
    assert len(manifest.train) > 2
    for shard in manifest.shards:
        data = (data_folder(tmp_path, manifest) / f"{shard.name}.bin").read_bytes()
        index = (data_folder(tmp_path, manifest) / f"{shard.name}.idx").read_bytes()
        blocks = [data[i : i + 65536] for i in range(0, len(data), 65536)]
        assert len(data) == 2 * shard.tokens
        assert blake3(data).hexdigest() == shard.digest
        assert blake3(index).hexdigest() == shard.index_digest
        assert index == b"".join(blake3(block).digest() for block in blocks)
    assert {shard.tokens for shard in manifest.train[:-1]} == {100_000}


def test_the_held_out_documents_come_from_all_over_the_source(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path)
    numbers = [int(text[:6]) for text in documents_in(tokens_of(tmp_path, manifest, -1))]
    assert 20_000 <= manifest.heldout.tokens < 25_000
    assert numbers == sorted(numbers)
    assert all(any(lo <= n < lo + 600 for n in numbers) for lo in range(0, 3000, 600))


def test_neighbouring_shards_are_alike_although_the_source_is_sorted(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path, count=1000, shard_tokens=30_000, heldout_tokens=1000)
    train = np.concatenate([tokens_of(tmp_path, manifest, i) for i in range(len(manifest.train))])
    numbers = [int(text[:6]) for text in documents_in(train)]
    first, second = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    assert abs(np.mean(first) - np.mean(second)) < 100


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    assert prepare_made_up(tmp_path / "a") == prepare_made_up(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_preparing_again_reads_nothing(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Once(MadeUp):
        def documents(self, start: int = 0) -> Iterator[Document]:
            raise AssertionError("read again")

    first = prepare_made_up(tmp_path)
    again = prepare(Once(3000), open_tokenizer("bytes"), tmp_path, 100_000, 20_000)
    assert again == first


def test_nothing_but_the_data_and_its_record_is_left(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path)
    names = {p.name.split("-")[0] for p in tmp_path.iterdir()}
    assert names == {"data", ".prepared", ".lock"}
    shard_files = {f"{s.name}.{kind}" for s in manifest.shards for kind in ("bin", "idx")}
    assert {p.name for p in data_folder(tmp_path, manifest).iterdir()} == shard_files | {
        "manifest.json",
        "tokenizer",
    }


KILLED = """
import itertools, sys, time
from pathlib import Path
from iota.data import open_tokenizer, prepare
from tests.support.data_sets import MadeUp

class Stuck(MadeUp):
    def documents(self, start=0):
        for document in super().documents(start):
            if document.index == int(sys.argv[2]):
                print("stuck", start, flush=True)
                time.sleep(600)
            yield document

ticks = itertools.count(0, 1000)
prepare(Stuck(9000), open_tokenizer("bytes"), Path(sys.argv[1]), 100_000, 20_000, clock=lambda: next(ticks))
"""


def run_until_stuck(out: Path, document: int) -> int:
    """Prepare in another process, kill it at `document`; the document at which it had begun."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out), str(document)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    return int(line.split()[1])


def test_a_killed_preparation_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    assert run_until_stuck(tmp_path / "killed", 3000) == 0
    assert run_until_stuck(tmp_path / "killed", 3500) == 2048
    assert run_until_stuck(tmp_path / "killed", 8000) == 3072
    killed = prepare_made_up(tmp_path / "killed", count=9000)
    whole = prepare_made_up(tmp_path / "whole", count=9000)
    assert manifest_id(killed) == manifest_id(whole)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["shard-*.bin", "heldout-*.npz", "state.json"])
def test_a_damaged_checkpoint_is_refused_with_a_remedy(tmp_path: Path, kind: str) -> None:
    run_until_stuck(tmp_path, 3000)
    (work,) = tmp_path.glob(".prepare-*")
    path = sorted(work.glob(kind))[-1]
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(ValueError, match="delete"):
        prepare_made_up(tmp_path, count=9000)


def test_a_source_may_be_cut_short(tmp_path: Path) -> None:
    manifest = prepare(MadeUp(3000), open_tokenizer("bytes"), tmp_path, 100_000, 2000, max_tokens=50_000)
    assert 50_000 <= manifest.tokens + manifest.heldout.tokens < 50_300


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[int] = []
    prepare(
        MadeUp(3000),
        open_tokenizer("bytes"),
        tmp_path,
        100_000,
        2000,
        lambda progress: seen.append(progress.documents),
    )
    assert seen == [1024, 2048, 3000]


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no text"):
        prepare(MadeUp(0), open_tokenizer("bytes"), tmp_path)


def test_a_source_too_small_to_hold_anything_out_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer held-out tokens"):
        prepare(MadeUp(20), open_tokenizer("bytes"), tmp_path, 1000, 5000)


def test_two_processes_do_not_prepare_the_same_data_at_once(tmp_path: Path) -> None:
    class Meeting(MadeUp):
        def documents(self, start: int = 0) -> Iterator[Document]:
            with pytest.raises(ValueError, match="another process"):
                prepare_made_up(tmp_path)
            return super().documents(start)

    prepare(Meeting(3000), open_tokenizer("bytes"), tmp_path, 100_000, 20_000)


def test_the_standard_library_makes_a_data_set(tmp_path: Path) -> None:
    manifest = prepare(open_source("stdlib"), open_tokenizer("bytes"), tmp_path)
    assert manifest.tokens > 5_000_000
    held = documents_in(tokens_of(tmp_path, manifest, -1))
    assert manifest.heldout.tokens >= 1 << 16
    assert len(held) >= 8
    assert sum("import " in text for text in held) > len(held) / 2


async def test_published_data_is_what_was_prepared_with_the_manifest_last(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path / "out")
    async with embedded(tmp_path / "store") as store:
        calls: list[str] = []
        await publish(manifest, tmp_path / "out", _Noting(store, calls), lambda done, total: None)
        stored = {item.key: await store.get(item.key) for item in await store.list("")}
    assert stored == files(tmp_path / "out")
    assert calls[-1].endswith("/manifest.json")


async def test_publishing_again_sends_only_what_is_missing(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path / "out")
    async with embedded(tmp_path / "store") as store:
        key = f"data/{manifest_id(manifest)}/shard-00000.bin"
        await store.put(key, files(tmp_path / "out")[key])
        calls: list[str] = []
        await publish(manifest, tmp_path / "out", _Noting(store, calls))
        assert key not in calls
        assert len(calls) == 2 * len(manifest.shards) + 1  # not the shard, but tokenizer and manifest


async def test_a_foreign_manifest_in_the_store_is_not_overwritten(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path / "out")
    async with embedded(tmp_path / "store") as store:
        await store.put(f"data/{manifest_id(manifest)}/manifest.json", b"other")
        with pytest.raises(ObjectExists):
            await publish(manifest, tmp_path / "out", store)


class _Noting(EmbeddedStore):
    """The same store, noting which keys are put."""

    def __init__(self, store: EmbeddedStore, calls: list[str]) -> None:
        self.__dict__.update(store.__dict__)
        self._calls = calls

    async def put(self, key: str, data: bytes) -> None:
        self._calls.append(key)
        await super().put(key, data)
