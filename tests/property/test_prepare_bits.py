"""Any number of workers, and any interruptions, give the same shards and the same manifest."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iota.data import Document, Job, RowRules, Source, Target, Weighted, open_sources, open_tokenizer, prepare
from iota.data.documents import Cursor
from tests.support.data_sets import data_files, write_jsonl
from tests.unit.test_data_tokenizers import train_bpe

RULES = RowRules(skip_bad=True)


class Interrupted(Exception):
    """Stands for a kill: nothing handles it, so that only checkpoints outlive it."""


@dataclass
class Interruptible:
    """A source that is interrupted after each number of documents in `after`, in turn."""

    source: Source
    after: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def read(self, start: Cursor, skipped: Counter[str]) -> Iterator[Document]:
        limit = self.after.pop() if self.after else None
        for number, document in enumerate(self.source.read(start, skipped)):
            if number == limit:
                raise Interrupted
            yield document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources: rows, among them duplicates and bad ones, and long text."""
    made = tmp_path_factory.mktemp("sources")
    words = "the cat sat on the mat and the dog sat on the log "
    rows = [f"{number % 2900} {words * (number % 11)}" for number in range(3000)]
    write_jsonl(made / "a.jsonl", [*rows, ""])
    with (made / "a.jsonl").open("a") as file:
        file.write('{"text": null}\n{"text": 5}\n{\n')
    for number in range(3):
        path = made / "texts" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{number} {line} {words}\n" for line in range(6000)))
    train_bpe(made / "bpe")
    return made


def job(folder: Path, tokenizer: str, interrupted: tuple[list[int], list[int]] = ([], [])) -> Job:
    opened = open_sources([f"{folder}/a.jsonl=0.4", f"{folder}/texts=0.6"], RULES)
    sources = [
        Weighted(Interruptible(weighted.source, after), weighted.weight)  # type: ignore[arg-type]
        for weighted, after in zip(opened, interrupted, strict=True)
    ]
    return Job(sources, open_tokenizer(tokenizer), 100_000, Target.exactly(20_000))


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_any_number_of_workers_gives_the_same_bytes(folder: Path, tmp_path: Path, tokenizer: str) -> None:
    name = tokenizer if tokenizer == "bytes" else str(folder / tokenizer)
    for workers in (1, 2, 3):
        prepare(job(folder, name), tmp_path / str(workers), workers=workers)
    first = data_files(tmp_path / "1")
    assert len(first) > 6
    assert data_files(tmp_path / "2") == data_files(tmp_path / "3") == first


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    prepare(job(folder, "bytes"), out)
    return data_files(out)


@given(first=st.lists(st.integers(0, 3000), max_size=4), second=st.lists(st.integers(0, 40), max_size=2))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_interruptions_give_the_same_bytes(
    folder: Path, tmp_path: Path, uninterrupted: dict[str, bytes], first: list[int], second: list[int]
) -> None:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    left = (list(first), list(second))
    ticks = itertools.count(0, 1000)  # a checkpoint after every group
    for _ in range(len(first) + len(second) + 1):
        try:
            prepare(job(folder, "bytes", left), out, clock=lambda: next(ticks))
        except Interrupted:
            continue
        break
    assert data_files(out) == uninterrupted
