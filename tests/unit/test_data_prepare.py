"""Preparing data: what the shards hold, and that being killed changes no byte."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from blake3 import blake3

from iota.console.conditions import Condition
from iota.console.watch import ConditionStands, Watch
from iota.data import (
    Document,
    Job,
    Target,
    manifest_id,
    open_source,
    open_sources,
    open_tokenizer,
    prepare,
    publish,
)
from iota.data.documents import Cursor
from iota.store import EmbeddedStore, ObjectExists, UrlRefused
from iota.store.embedded_server import make_app
from tests.support.data_sets import (
    EOS,
    MadeUp,
    bytes_job,
    data_files,
    data_folder,
    documents_in,
    made_up_job,
    made_up_text,
    prepare_made_up,
    tokens_of,
    train_tokens,
    write_jsonl,
)
from tests.support.fault_proxies import fault_proxy, page
from tests.support.orchestrators import until
from tests.support.store_servers import SECRET, embedded, serving
from tests.unit.test_data_tokenizers import train_bpe


def test_every_document_is_in_the_shards_exactly_once(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path)
    train, held = train_tokens(tmp_path, manifest), tokens_of(tmp_path, manifest, -1)
    *whole, cut = documents_in(held)
    rest = [text for text in documents_in(train) if made_up_text(int(cut[:6])) == cut + text]
    assert len(rest) == (0 if held[-1] == EOS else 1)
    texts = documents_in(train) + whole + [cut]
    joined = [text for text in texts if text not in (cut, *rest)] + [cut + "".join(rest)]
    assert sorted(joined) == [made_up_text(i) for i in range(3000)]


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
    assert manifest.heldout.tokens == 20_000
    assert all(any(lo <= n < lo + 600 for n in numbers) for lo in range(0, 3000, 600))


def test_the_first_held_out_documents_come_from_all_over_the_source(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path)
    numbers = [int(text[:6]) for text in documents_in(tokens_of(tmp_path, manifest, -1))[:20]]
    assert min(numbers) < 600
    assert max(numbers) > 2400


def test_neighbouring_shards_are_alike_although_the_source_is_sorted(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path, count=1000, shard_tokens=30_000, heldout_tokens=1000)
    train = train_tokens(tmp_path, manifest)
    # The remainder of the document that was cut for the held-out shard is the last one.
    numbers = [int(text[:6]) for text in documents_in(train)[:-1]]
    first, second = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    assert abs(np.mean(first) - np.mean(second)) < 100


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    assert prepare_made_up(tmp_path / "a") == prepare_made_up(tmp_path / "b")
    assert data_files(tmp_path / "a") == data_files(tmp_path / "b")


def test_preparing_again_reads_nothing(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Once(MadeUp):
        def read(self, start: Cursor, skipped: Counter[str]) -> Iterator[Document]:
            raise AssertionError("read again")

    first = prepare_made_up(tmp_path)
    again = prepare(made_up_job(Once(3000)), tmp_path)
    assert again == first


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [made_up_text(i) for i in range(500)])
    job = bytes_job(open_source(str(path)))
    with pytest.raises(ValueError, match="changed while it was read"):
        prepare(job, tmp_path / "out", lambda _: os.utime(path, ns=(1, 1)))
    assert not list(tmp_path.glob("out/data/*"))


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_changed_source_is_prepared_anew_and_not_served_from_the_old_manifest(
    tmp_path: Path, prefix: str
) -> None:
    path = write_jsonl(tmp_path / "set" / "train.jsonl", [made_up_text(i) for i in range(500)])
    spec, out = f"{prefix}{path.parent}", tmp_path / "out"

    def prepared() -> str:
        return manifest_id(prepare(bytes_job(open_source(spec)), out))

    before = prepared()
    assert prepared() == before
    write_jsonl(path, [made_up_text(i) for i in range(100, 600)])
    assert prepared() != before


def test_a_changed_tokenizer_folder_is_prepared_anew(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl", ["the cat sat on the mat "] * 100 + [f"cat {i} " * 30 for i in range(99)]
    )
    folder = train_bpe(tmp_path / "bpe")

    def prepared() -> str:
        sources = open_sources([str(path)])
        job = Job(sources, open_tokenizer(str(folder)), heldout=Target.exactly(100))
        return manifest_id(prepare(job, tmp_path / "out"))

    before = prepared()
    assert prepared() == before
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["normalizer"] = {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    assert prepared() != before


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
from iota.data import prepare
from tests.support.data_sets import MadeUp, made_up_job

class Stuck(MadeUp):
    def read(self, start, skipped):
        for document in super().read(start, skipped):
            if document.name == f"doc-{sys.argv[2]}":
                print("stuck", start or 0, flush=True)
                time.sleep(600)
            yield document

if __name__ == "__main__":
    ticks = itertools.count(0, 1000)
    prepare(
        made_up_job(Stuck(9000)), Path(sys.argv[1]), workers=int(sys.argv[3]), clock=lambda: next(ticks)
    )
"""


def run_until_stuck(out: Path, document: int, workers: int = 1) -> int:
    """Prepare in another process, kill it at `document`; the document at which it had begun."""
    arguments = [sys.executable, "-c", KILLED, str(out), str(document), str(workers)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= (workers if workers > 1 else 0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    _, left = psutil.wait_procs(children, 20)
    assert not left, "the workers of a killed preparation end too"
    return int(line.split()[1])


def test_a_killed_preparation_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    assert run_until_stuck(tmp_path / "killed", 3000) == 0
    assert run_until_stuck(tmp_path / "killed", 3500) == 1024
    assert run_until_stuck(tmp_path / "killed", 8000) == 2048
    killed = prepare_made_up(tmp_path / "killed", count=9000)
    whole = prepare_made_up(tmp_path / "whole", count=9000)
    assert manifest_id(killed) == manifest_id(whole)
    assert data_files(tmp_path / "killed") == data_files(tmp_path / "whole")


def test_a_killed_preparation_with_workers_goes_on_with_any_number_of_them(tmp_path: Path) -> None:
    assert run_until_stuck(tmp_path / "killed", 7000, workers=2) == 0
    assert run_until_stuck(tmp_path / "killed", 8500, workers=2) > 0
    prepare(made_up_job(MadeUp(9000)), tmp_path / "killed")
    prepare(made_up_job(MadeUp(9000)), tmp_path / "whole", workers=3)
    assert data_files(tmp_path / "killed") == data_files(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["shard-*.bin", "heldout-*.npz", "state.json"])
def test_a_damaged_checkpoint_is_refused_with_a_remedy(tmp_path: Path, kind: str) -> None:
    run_until_stuck(tmp_path, 3000)
    (work,) = tmp_path.glob(".prepare-*")
    path = sorted(work.glob(kind))[-1]
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(ValueError, match="delete"):
        prepare_made_up(tmp_path, count=9000)


MEASURED = """
import re, sys
from pathlib import Path
from tests.support.data_sets import bytes_job
from iota.data import open_source, prepare
prepare(bytes_job(open_source(sys.argv[1])), Path(sys.argv[2]))
# Not `getrusage`: its maximum counts the process that this one was forked from.
print(re.search(r"VmHWM:[^0-9]+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize("name", ["line.txt", "line.jsonl"])
def test_a_long_line_is_read_in_bounded_memory(tmp_path: Path, name: str) -> None:
    text = "some words on one line " * 1_000_000  # 23 MB, which took gigabytes
    path = tmp_path / name
    path.write_text(text if name == "line.txt" else json.dumps({"text": text}) + "\n")
    arguments = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "out")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300 << 10, "KiB"


def test_a_source_may_be_cut_short(tmp_path: Path) -> None:
    job = replace(made_up_job(MadeUp(3000), heldout_tokens=2000), max_tokens=50_000)
    manifest = prepare(job, tmp_path)
    assert not manifest.sources[0].complete
    assert 50_000 <= manifest.tokens + manifest.heldout.tokens < 50_300


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[int] = []
    prepare(made_up_job(MadeUp(3000)), tmp_path, lambda progress: seen.append(progress.documents))
    assert seen == [1024, 2048, 3000]


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no text"):
        prepare(made_up_job(MadeUp(0)), tmp_path)


def test_a_source_too_small_to_hold_anything_out_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most --heldout-tokens 1"):
        prepare(made_up_job(MadeUp(20), 1000, 5000), tmp_path)


def test_two_processes_do_not_prepare_the_same_data_at_once(tmp_path: Path) -> None:
    class Meeting(MadeUp):
        def read(self, start: Cursor, skipped: Counter[str]) -> Iterator[Document]:
            with pytest.raises(ValueError, match="another process"):
                prepare_made_up(tmp_path)
            return super().read(start, skipped)

    prepare(made_up_job(Meeting(3000)), tmp_path)


def test_the_standard_library_makes_a_data_set(tmp_path: Path) -> None:
    manifest = prepare(bytes_job(open_source("stdlib")), tmp_path)
    assert manifest.tokens > 5_000_000
    held = documents_in(tokens_of(tmp_path, manifest, -1))
    assert manifest.heldout.tokens >= 1 << 16
    assert len(held) >= 250  # for a held-out loss with a standard error under 1 %
    assert sum("self" in text or "def " in text for text in held) > len(held) / 2


async def test_published_data_is_what_was_prepared_with_the_manifest_last(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path / "out")
    async with embedded(tmp_path / "store") as store:
        calls: list[str] = []
        await publish(manifest, tmp_path / "out", _Noting(store, calls), lambda done, total: None)
        stored = {item.key: await store.get(item.key) for item in await store.list("")}
    assert stored == data_files(tmp_path / "out")
    assert calls[-1].endswith("/manifest.json")


async def test_publishing_again_sends_only_what_is_missing(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path / "out")
    async with embedded(tmp_path / "store") as store:
        key = f"data/{manifest_id(manifest)}/shard-00000.bin"
        await store.put(key, data_files(tmp_path / "out")[key])
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


async def test_an_upload_outlasts_a_store_that_is_away_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    manifest = prepare_made_up(tmp_path / "out")
    async with serving(make_app(tmp_path / "store", SECRET)) as url, fault_proxy(url) as proxy:
        await proxy.set_fault(page(503))
        store = EmbeddedStore(proxy.url, SECRET)
        uploading = asyncio.create_task(
            publish(manifest, tmp_path / "out", store, watch=Watch("the upload", scale=0.01))
        )
        await until(lambda: Condition.STORE_AWAY.text in caplog.text or uploading.done(), 30)
        await proxy.set_fault(None)
        await uploading
        await store.close()
    assert f"if it lasts: {Condition.STORE_AWAY.remedy}" in caplog.text
    assert data_files(tmp_path / "store") == data_files(tmp_path / "out")


async def test_an_upload_gives_up_at_its_stated_end_and_a_refusal_is_not_waited_for(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path / "out")
    async with serving(make_app(tmp_path / "store", SECRET)) as url, fault_proxy(url) as proxy:
        store = EmbeddedStore(proxy.url, SECRET)
        await proxy.set_fault(page(503))
        with pytest.raises(ConditionStands, match=r"the upload: the object store does .* check this"):
            await publish(manifest, tmp_path / "out", store, watch=Watch("the upload", scale=1e-6))
        await proxy.set_fault(page(403))
        with pytest.raises(UrlRefused):
            await publish(manifest, tmp_path / "out", store)
        await store.close()


class _Noting(EmbeddedStore):
    """The same store, noting which keys are put."""

    def __init__(self, store: EmbeddedStore, calls: list[str]) -> None:
        self.__dict__.update(store.__dict__)
        self._calls = calls

    async def put(self, key: str, data: bytes) -> None:
        self._calls.append(key)
        await super().put(key, data)
