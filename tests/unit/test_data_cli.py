"""`iota data prepare`: what it writes, and one sentence with a remedy where it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from iota.cli.data_report import Pace
from iota.cli.main import main
from iota.data import PackProgress, manifest_id, read_manifest
from iota.store import open_store
from tests.support.data_sets import made_up_text, write_jsonl
from tests.support.store_servers import moto_s3

SIZES = ["--shard-tokens", "20000", "--heldout-tokens", "2000"]


@dataclass(frozen=True)
class Done:
    code: object
    out: str
    err: str


Prepare = Callable[..., Done]


@pytest.fixture
def prepare(capfd: pytest.CaptureFixture[str]) -> Prepare:
    """`iota data prepare`, run as the console command runs it."""

    def run(*arguments: str | Path) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["data", "prepare", *map(str, arguments)])
        return Done(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", [made_up_text(i) for i in range(500)])


def test_the_printed_id_names_what_was_written(prepare: Prepare, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = prepare(corpus, "--out", out, *SIZES)
    assert done.code == 0
    manifest = read_manifest(out, done.out.strip())
    assert manifest.source == "corpus.jsonl"
    assert manifest.tokenizer.name == "bytes"
    assert manifest.train[0].tokens == 20_000


def test_data_can_go_to_s3(prepare: Prepare, corpus: Path, tmp_path: Path) -> None:
    with moto_s3("bucket") as url:
        target = f"s3://bucket/sets?endpoint={url}&region=us-east-1"
        work = tmp_path / "work"
        done = prepare(corpus, "--out", target, "--work", work, *SIZES)
        assert done.code == 0
        identity = done.out.strip()

        async def stored() -> bytes:
            store = open_store(target)
            try:
                return await store.get(f"data/{identity}/manifest.json")
            finally:
                await store.close()

        assert asyncio.run(stored()) == read_manifest(work, identity).canonical()
        assert manifest_id(read_manifest(work, identity)) == identity


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["/no/such/file"], "give 'stdlib'"),
        (["stdlib", "--tokenizer", "./no/tokenizer"], "give 'bytes'"),
        (["stdlib", "--max-tokens", "5000"], "choose a larger source, or at most --heldout-tokens 260"),
        (["hf:"], "hf:DATASET"),
    ],
)
def test_a_mistake_gets_one_sentence_with_a_remedy(
    prepare: Prepare, tmp_path: Path, arguments: list[str], remedy: str
) -> None:
    done = prepare(*arguments, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert remedy in done.err
    assert "Traceback" not in done.err


def test_a_mixture_is_said_source_by_source(prepare: Prepare, tmp_path: Path) -> None:
    for name, count in (("a", 300), ("b", 100)):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"{name} {made_up_text(i)}" for i in range(count)])
    done = prepare(f"{tmp_path}/a.jsonl=0.5", f"{tmp_path}/b.jsonl=0.5", "--out", tmp_path / "out", *SIZES)
    assert done.code == 0
    first, second, _ = done.err.splitlines()
    assert first.startswith("a.jsonl: weight 0.5, ")
    assert "read and not to its end" in first
    assert "b.jsonl: weight 0.5, 100 documents" in second
    assert "read to its end" in second


def test_prepared_data_is_shown_with_sources_fingerprints_and_skipped_rows(
    prepare: Prepare, corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with corpus.open("a") as file:
        file.write('{"text": null}\n')
    identity = prepare(corpus, "--out", tmp_path / "out", *SIZES).out.strip()
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["data", "show", str(tmp_path / "out")])
    assert ended.value.code == 0
    shown = capfd.readouterr().out
    fingerprint = read_manifest(tmp_path / "out", identity).sources[0].fingerprint
    for part in (
        identity,
        "corpus.jsonl",
        "500 documents",
        "1 (1 null) skipped",
        fingerprint,
        "tokenizer bytes",
    ):
        assert part in shown


def test_a_folder_without_data_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "show", str(tmp_path)])
    assert ended.value.code == 2
    assert "holds no prepared data" in capfd.readouterr().err


def test_progress_has_a_rate_and_an_estimate() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.line(PackProgress(100, 1000, 0, 0.1)) == "100 documents, 1,000 tokens, 0 shards; 10% read"
    now[0] = 60.0
    line = pace.line(PackProgress(700, 61_000, 2, 0.4))
    assert line == "700 documents, 61,000 tokens, 2 shards; 1,000 tokens/s; 40% read, about 2 min left"
    assert "left" not in pace.line(PackProgress(700, 61_000, 2, None))


def test_a_line_of_progress_is_due_every_half_minute() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    due = []
    for second in range(120):
        now[0] = float(second)
        due += [second] if pace.due() else []
    assert due == [30, 60, 90]


def test_an_output_that_cannot_be_written_is_named(prepare: Prepare, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = prepare(corpus, "--out", tmp_path / "file", *SIZES)
    assert done.code == 2
    assert "file" in done.err
