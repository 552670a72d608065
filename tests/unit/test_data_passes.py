"""How often a run reads its data."""

from __future__ import annotations

import pytest

from iota.data import passes
from tests.support.sample_specs import tiny_spec
from tests.support.samples import MANIFEST


def test_a_runs_passes_are_the_sequences_it_reads_over_those_there_are() -> None:
    # 2 epochs x 2 steps x 2 microbatches x 1 sequence, of the 333 that 1000 tokens hold.
    assert passes(tiny_spec(), MANIFEST) == pytest.approx(8 / 333)


def test_many_passes_over_little_data_are_seen() -> None:
    spec = tiny_spec()
    longer = spec.model_copy(update={"schedule": spec.schedule.model_copy(update={"epochs": 333_000})})
    assert passes(longer, MANIFEST) == pytest.approx(4000)


def test_data_without_one_sequence_is_refused() -> None:
    spec = tiny_spec()
    longer = spec.model_copy(update={"data": spec.data.model_copy(update={"sequence_length": 1000})})
    with pytest.raises(ValueError, match="sequence_length 1000 is longer"):
        passes(longer, MANIFEST)
