"""The held-out loss: the same tokens from all over the part, and a standard error that clusters documents."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.compute.evaluate import Evaluation, evaluate_model
from iota.compute.heldout_loss import LEAST_TOKENS, MOST_TOKENS, heldout_loss, validator_tokens
from iota.compute.state import StageState
from iota.data import ShardReader, directory_fetch
from iota.data.samples import Samples, heldout_sequences
from tests.support.data_sets import prepare_made_up
from tests.support.small_runs import sample, small_run

EOS = 0


def measured(losses: list[float], tokens: list[int]) -> tuple[float, float | None, int, int | None]:
    """One batch of one sequence, whose labels are `tokens`."""
    found = heldout_loss([np.array([losses], np.float32)], [np.array([[9, *tokens]])], EOS)
    return found.loss, found.standard_error, found.tokens, found.documents


def test_the_error_is_that_of_documents_and_not_of_tokens() -> None:
    alike = measured([1.0, 1.0, 1.0, 3.0, 3.0, 3.0] * 4, [5, 5, EOS] * 8)
    mixed = measured([1.0, 3.0, 2.0, 3.0, 1.0, 2.0] * 4, [5, 5, EOS] * 8)
    assert alike[0] == mixed[0] == 2.0
    assert alike[1] == pytest.approx(math.sqrt(8 / 7 * 8 * 3**2) / 24)
    assert alike[2:] == (24, 8)
    assert mixed[1] == 0.0


def test_few_documents_give_no_standard_error() -> None:
    assert measured([1.0, 2.0], [5, 5]) == (1.5, None, 2, 1)
    assert measured([1.0] * 7, [EOS] * 7) == (1.0, None, 7, 7)


def test_a_document_goes_on_in_the_next_sequence() -> None:
    batches = [np.array([[9, 5, 5], [5, EOS, 5]]), np.array([[5, 5, 5], [5, 5, EOS]])]
    found = heldout_loss([np.ones((2, 2), np.float32)] * 2, batches, EOS)
    assert found.documents == 2


def test_many_documents_bring_the_error_under_half_a_percent() -> None:
    """Of the size that is found in text: documents differ by 15 %, tokens by more."""
    rng = np.random.default_rng(0)
    labels = np.full((1024, 256), 5)
    labels[:, -1] = EOS
    losses = rng.normal(3.0, 0.45, (1024, 1)) + rng.normal(0.0, 2.0, (1024, 256))
    tokens = np.concatenate([np.full((1024, 1), 9), labels], axis=1)
    found = heldout_loss([losses.astype(np.float32)], [tokens], EOS)
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
    assert np.array_equal(first, second)
    assert np.size(np.array(first)[..., 1:]) == 4096
    # The first 4096 tokens of the part would be those of a fifth of its documents.
    all_of_it = np.concatenate([b.ravel() for b in await samples.heldout(1 << 30)])
    assert (np.array(first) == manifest.tokenizer.eos_id).sum() > 10
    assert all_of_it.size > 4 * 4096


def test_losses_of_tokens_average_to_the_loss_of_training() -> None:
    spec = small_run()
    states = [StageState.initial(spec, stage) for stage in range(spec.layout.stages)]
    batches = [sample(spec)(0, 0, index) for index in range(3)]
    evaluation = Evaluation(spec, batches)
    for stage, state in enumerate(states):
        assert list(evaluation.stage(stage, state)) == [0, 1, 2]
    assert [losses.shape for losses in evaluation.losses] == [(2, 12)] * 3
    assert evaluate_model(spec, states, batches) == pytest.approx(evaluation.mean)
    found = heldout_loss(evaluation.losses, batches, 0)
    assert found.loss == pytest.approx(evaluation.mean, rel=1e-6)


def test_a_validators_measurement_is_bounded_by_an_epochs_cost() -> None:
    def cap(steps: int, microbatches: int) -> int:
        sizes = {"steps": steps, "microbatches": microbatches, "epochs": 1}
        return validator_tokens(small_run(schedule=sizes, data={"sequence_length": 256, "sequences": 4}))

    assert cap(1, 3) == LEAST_TOKENS
    assert cap(20, 8) == 20 * 8 * 1024 // 32
    assert cap(1000, 512) == MOST_TOKENS
