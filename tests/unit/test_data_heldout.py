"""Held-out text: how much, which, and that training sees no copy of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.data import RowRules, Target, open_source, prepare
from iota.data.heldout import HeldOut, rank
from iota.data.text_parts import PART_CHARACTERS
from tests.support.data_sets import (
    EOS,
    MadeUp,
    bytes_job,
    documents_in,
    made_up_job,
    text_of,
    tokens_of,
    train_tokens,
    write_jsonl,
)


def selected(texts: list[str], target: Target) -> tuple[HeldOut, Counter[str]]:
    """The selection from `texts`, one token a character, and what went into training."""
    held, trained = HeldOut(target), Counter[str]()
    for text in texts:
        for _, out in held.offer(rank(text), np.frombuffer(text.encode(), np.uint8)):
            trained[out.tokens.tobytes().decode()] += out.copies
    return held, trained


@given(
    texts=st.lists(st.text("abc", min_size=1, max_size=4), max_size=60),
    target=st.builds(
        Target,
        least=st.integers(1, 20),
        most=st.integers(20, 60),
        share=st.sampled_from([0.05, 0.5, 1.0]),
    ),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_what_is_held_out_does_not_depend_on_the_order_and_no_copy_is_trained_on(
    texts: list[str], target: Target, data: st.DataObject
) -> None:
    held, trained = selected(texts, target)
    other, _ = selected(data.draw(st.permutations(texts)), target)
    kept = [tokens.tobytes().decode() for tokens in held.documents()]
    assert kept == [tokens.tobytes().decode() for tokens in other.documents()]
    assert not set(kept) & set(trained)
    assert trained + Counter(kept) + Counter(dict.fromkeys(kept, 0)) == Counter(
        {text: 1 if text in kept else count for text, count in Counter(texts).items()}
    )
    assert held.duplicates == sum(Counter(texts)[text] - 1 for text in kept)


def test_copies_of_held_out_documents_are_kept_out_of_training_and_counted(tmp_path: Path) -> None:
    texts = [f"text {number} " * 30 for number in range(400)]
    path = write_jsonl(tmp_path / "a.jsonl", [*texts, *texts, *texts[:100]])
    manifest = prepare(bytes_job(open_source(str(path), RowRules())), tmp_path / "out")
    *held, _cut = documents_in(tokens_of(tmp_path / "out", manifest, -1))
    train = documents_in(train_tokens(tmp_path / "out", manifest))
    assert len(held) > 5
    assert not set(held) & set(train)
    counts = Counter([*texts, *texts, *texts[:100]])
    assert manifest.duplicates >= sum(counts[text] - 1 for text in held)
    assert all(counts[text] == count for text, count in Counter(train).items() if text in counts)


def test_a_twentieth_is_held_out_of_little_data_and_as_much_as_asked_for(tmp_path: Path) -> None:
    job = made_up_job(MadeUp(3000))
    small = prepare(replace(job, heldout=Target()), tmp_path)
    total = small.sources[0].tokens
    assert 0.03 * total < small.heldout.tokens < 0.07 * total
    asked = prepare(replace(job, heldout=Target.exactly(100_000)), tmp_path)
    assert asked.heldout.tokens == 100_000


def test_long_documents_stay_whole_but_for_the_parts_that_are_held_out(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(60_000)]
    (tmp_path / "long.txt").write_text(" ".join(words))
    (tmp_path / "short.txt").write_text("another document")
    source = open_source(str(tmp_path), RowRules())
    manifest = prepare(bytes_job(source), tmp_path / "out")
    train = train_tokens(tmp_path / "out", manifest)
    assert (train == EOS).sum() < 10, "parts of a document have no EOS between them"
    held = text_of(tokens_of(tmp_path / "out", manifest, -1)[:-1])
    assert " ".join(words).count(held.split("\0")[0][:1000]) == 1
    pieces = documents_in(train) + documents_in(tokens_of(tmp_path / "out", manifest, -1))
    assert sum(map(len, pieces)) == len(" ".join(words)) + len("another document")
    assert max(map(len, pieces)) > 2 * PART_CHARACTERS


def test_a_document_that_fills_several_groups_stays_one(tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(900_000))  # more than two blocks and groups
    (tmp_path / "long.txt").write_text(text)
    manifest = prepare(
        bytes_job(open_source(str(tmp_path / "long.txt"), RowRules()), heldout=Target.exactly(1)),
        tmp_path / "out",
    )
    train = train_tokens(tmp_path / "out", manifest)
    assert len(train) > 9_000_000
    # At the end, and around the few parts that were held out until another took their place.
    assert (train == EOS).sum() < 30
