"""The held-out loss: the same tokens from all over the part, and a standard error that clusters documents."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.compute.evaluate import Evaluation, evaluate_model
from iota.compute.heldout_loss import heldout_loss
from iota.compute.state import StageState
from iota.data import ShardReader, directory_fetch
from iota.data.samples import Samples, drawn_sequences, heldout_sequences
from tests.support.data_sets import prepare_made_up
from tests.support.small_runs import sample, small_run


def measured(losses: list[float], documents: list[int]) -> tuple[float, float | None, int, int | None]:
    """One batch of one sequence."""
    found = heldout_loss([np.array([losses], np.float32)], [np.array([documents])])
    return found.loss, found.standard_error, found.tokens, found.documents


def test_the_error_is_that_of_documents_and_not_of_tokens() -> None:
    alike = measured([1.0, 1.0, 1.0, 3.0, 3.0, 3.0] * 4, [n // 3 for n in range(24)])
    mixed = measured([1.0, 3.0, 2.0, 3.0, 1.0, 2.0] * 4, [n // 3 for n in range(24)])
    assert alike[0] == mixed[0] == 2.0
    assert alike[1] == pytest.approx(math.sqrt(8 / 7 * 8 * 3**2) / 24)
    assert alike[2:] == (24, 8)
    assert mixed[1] == 0.0


def test_few_documents_give_no_standard_error() -> None:
    assert measured([1.0, 2.0], [4, 4]) == (1.5, None, 2, 1)
    assert measured([1.0] * 7, [0, 1, 2, 3, 5, 8, 9]) == (1.0, None, 7, 7)


def test_many_documents_bring_the_error_under_half_a_percent() -> None:
    """Of the size that is found in text: documents differ by 15 %, tokens by more."""
    rng = np.random.default_rng(0)
    losses = rng.normal(3.0, 0.45, (1024, 1)) + rng.normal(0.0, 2.0, (1024, 256))
    found = heldout_loss([losses.astype(np.float32)], [np.repeat(np.arange(1024)[:, None], 256, axis=1)])
    assert found.standard_error is not None
    assert found.standard_error < 0.005 * found.loss
    assert abs(found.loss - 3.0) < 4 * found.standard_error


@given(count=st.integers(0, 500), most=st.integers(0, 4000), sequences=st.integers(1, 8))
def test_held_out_sequences_are_full_batches_from_all_over(count: int, most: int, sequences: int) -> None:
    spec = small_run(data={"sequences": sequences})
    batches = heldout_sequences(spec, count, most)
    chosen = [n for batch in batches for n in batch]
    assert all(len(batch) == sequences for batch in batches)
    assert chosen == sorted(set(chosen))
    assert not chosen or chosen[-1] < count
    assert len(chosen) <= max(sequences, most // spec.data.sequence_length)
    if len(chosen) > 1:
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1
    assert bool(chosen) is (count >= sequences)


async def test_the_tokens_are_those_of_many_documents_and_the_same_each_time(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path, count=3000, heldout_tokens=20_000)
    spec = small_run(data={"sequence_length": 64, "sequences": 4})
    reader = ShardReader(manifest, directory_fetch(tmp_path), tmp_path / "cache", 1 << 20)
    samples = Samples(spec, reader)
    first, second = await samples.heldout(4096), await samples.heldout(4096)
    assert np.array_equal(first.batches, second.batches)
    assert np.size(first.documents) == 4096
    whole = await samples.heldout(1 << 30)
    labels = np.concatenate([batch[:, 1:].ravel() for batch in whole.batches])
    numbers = np.concatenate([batch.ravel() for batch in whole.documents])
    ends = labels == manifest.tokenizer.eos_id
    assert np.array_equal(numbers, np.cumsum(ends) - ends)
    # A measurement on a part of them knows which document each token is of, and takes them from all over.
    chosen = [np.ravel(heldout_sequences(spec, reader.heldout_count(64), most)) for most in (4096, 1 << 30)]
    of_sequence = dict(zip(chosen[1], np.concatenate(whole.documents), strict=True))
    for number, documents in zip(chosen[0], np.concatenate(first.documents), strict=True):
        assert np.array_equal(documents, of_sequence[number])
    assert np.concatenate(first.documents).max() > 0.9 * numbers.max()


def test_losses_of_tokens_average_to_the_loss_of_training() -> None:
    spec = small_run()
    states = [StageState.initial(spec, stage) for stage in range(spec.layout.stages)]
    batches = [sample(spec)(0, 0, index) for index in range(3)]
    evaluation = Evaluation(spec, batches)
    for stage, state in enumerate(states):
        assert list(evaluation.stage(stage, state)) == [0, 1, 2]
    assert [losses.shape for losses in evaluation.losses] == [(2, 12)] * 3
    assert evaluate_model(spec, states, batches) == pytest.approx(evaluation.mean)
    found = heldout_loss(evaluation.losses, [np.zeros((2, 12), np.int64)] * 3)
    assert found.loss == pytest.approx(evaluation.mean, rel=1e-6)


# ---- held-out microbatches --------------------------------------------------------------------------


@given(
    heldout=st.integers(1, 40),
    sequences=st.integers(1, 6),
    spare=st.integers(0, 500),
    epoch=st.integers(0, 1000),
)
def test_held_out_microbatches_are_the_same_each_epoch_and_from_all_over(
    heldout: int, sequences: int, spare: int, epoch: int
) -> None:
    spec = small_run(data={"sequences": sequences}, schedule={"heldout": heldout})
    count = heldout * sequences + spare
    first = spec.schedule.microbatches
    drawn = [
        drawn_sequences(spec, epoch, 0, index, count=1, heldout_count=count)
        for index in range(first, spec.planned(0))
    ]
    assert drawn == [
        drawn_sequences(spec, 0, 0, index, count=999, heldout_count=count)
        for index in range(first, spec.planned(0))
    ]
    assert all(each.heldout and len(each.numbers) == sequences for each in drawn)
    chosen = sorted(number for each in drawn for number in each.numbers)
    assert len(set(chosen)) == len(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < count
    if len(chosen) > 1:
        assert np.diff(chosen).max() - np.diff(chosen).min() <= 1
    for each in drawn:  # those of one microbatch are as far apart as can be
        assert all(b - a >= heldout for a, b in pairwise(each.numbers))


async def test_tokens_of_a_microbatch_are_of_the_part_that_it_is_of(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path, count=3000, heldout_tokens=20_000)
    spec = small_run(data={"sequence_length": 64, "sequences": 4}, schedule={"heldout": 5})
    reader = ShardReader(manifest, directory_fetch(tmp_path), tmp_path / "cache", 1 << 20)
    samples, length = Samples(spec, reader), spec.data.sequence_length
    for index in range(spec.planned(0)):
        counts = {"count": reader.sequence_count(length), "heldout_count": reader.heldout_count(length)}
        drawn = drawn_sequences(spec, 1, 0, index, **counts)
        assert drawn.heldout is (index >= spec.schedule.microbatches)
        read = reader.heldout_tokens if drawn.heldout else reader.tokens
        wanted = [await read(number, length) for number in drawn.numbers]
        assert np.array_equal(await samples.microbatch(1, 0, index), wanted)
    too_many = small_run(data={"sequence_length": 64, "sequences": 4}, schedule={"heldout": 500})
    with pytest.raises(ValueError, match=r"schedule.heldout 500 needs 2000: lower it"):
        Samples(too_many, reader)
