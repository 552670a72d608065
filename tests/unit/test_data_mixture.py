"""Mixtures: shares of tokens, where they end, and what the manifest says about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.data import Job, Target, manifest_id, open_sources, open_tokenizer, prepare
from tests.support.data_sets import documents_in, train_tokens, write_jsonl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`few.jsonl`: 200 short documents; `many.jsonl`: 3,000 long ones."""
    write_jsonl(tmp_path / "few.jsonl", [f"few {number} " + "a " * 40 for number in range(200)])
    write_jsonl(tmp_path / "many.jsonl", [f"many {number} " + "b " * 100 for number in range(3000)])
    return tmp_path


def job(folder: Path, few: float, many: float, max_tokens: int | None = None) -> Job:
    sources = open_sources([f"{folder}/few.jsonl={few}", f"{folder}/many.jsonl={many}"])
    return Job(sources, open_tokenizer("bytes"), 100_000, Target.exactly(2000), max_tokens)


def test_a_mixture_has_the_shares_of_tokens_that_were_asked_for(folder: Path) -> None:
    manifest = prepare(job(folder, 0.2, 0.8), folder / "out")
    few, many = manifest.sources
    assert (few.weight, many.weight) == (0.2, 0.8)
    assert few.tokens / (few.tokens + many.tokens) == pytest.approx(0.2, abs=0.005)
    assert manifest.source == "0.2 few.jsonl + 0.8 many.jsonl"


def test_sources_are_interleaved_all_along(folder: Path) -> None:
    manifest = prepare(job(folder, 0.1, 0.9), folder / "out")
    texts = documents_in(train_tokens(folder / "out", manifest))
    quarter = len(texts) // 4
    for start in range(0, 4 * quarter, quarter):
        part = texts[start : start + quarter]
        few = sum(len(text) for text in part if text.startswith("few"))
        assert few / sum(map(len, part)) == pytest.approx(0.1, abs=0.06)


def test_a_mixture_stops_where_its_first_source_ends_and_repeats_nothing(folder: Path) -> None:
    manifest = prepare(job(folder, 0.5, 0.5), folder / "out")
    few, many = manifest.sources
    assert (few.complete, few.documents) == (True, 200)
    assert not many.complete
    assert many.documents < 200
    texts = documents_in(train_tokens(folder / "out", manifest))
    assert len(set(texts)) == len(texts)


def test_other_weights_are_another_data_set(folder: Path) -> None:
    first = prepare(job(folder, 1, 1, 20_000), folder / "out")
    second = prepare(job(folder, 1, 2, 20_000), folder / "out")
    assert manifest_id(first) != manifest_id(second)
    assert manifest_id(prepare(job(folder, 2, 2, 20_000), folder / "out")) == manifest_id(first)
