"""The base of a stage: parts, digest, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from iota.compute.commitment import tensors_root
from iota.outer.base import base_digest, base_parts, base_roots, initial_base, named_weights, read_base
from iota.outer.base_values import BaseRoots, nearest_bf16, next_base, started
from iota.outer.partition import PartError, part_bytes, split
from iota.outer.pseudo_gradient import flatten
from iota.protocol.merkle import EMPTY, merkle_root
from iota.spec import OuterSpec, Pipeline, Precision, RunSpec
from tests.support.virtual_runs import tiny_spec


def _spec(momentum: float) -> RunSpec:
    spec = tiny_spec(
        stages=2, replicas=1, epochs=1, steps=1, microbatches=2, pipeline=Pipeline.SYNC, credit=1
    )
    return spec.model_copy(update={"outer": OuterSpec(eta=0.7, momentum=momentum, part_elements=100)})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_base_comes_back_from_its_parts_with_its_digest(momentum: float) -> None:
    spec = _spec(momentum)
    start = initial_base(spec, 1)
    base = next_base(spec, 20, start, np.full_like(start.weights, 0.25))
    again = read_base(spec, 1, base_parts(spec, base))
    assert base_digest(spec, again) == base_digest(spec, base) != base_digest(spec, start)
    assert np.array_equal(again.momentum, base.momentum)


def test_a_digest_is_the_root_over_the_roots_of_weights_and_momentum_by_parts() -> None:
    spec = _spec(0.9)
    base = next_base(spec, 20, initial_base(spec, 1), np.full_like(initial_base(spec, 1).weights, 0.25))
    weights, momentum = (
        merkle_root([blake3(part_bytes(part)).hexdigest() for part in split(vector, 100)])
        for vector in (base.weights, base.momentum)
    )
    assert base_roots(spec, base) == BaseRoots(weights, momentum)
    assert base_digest(spec, base) == merkle_root([weights, momentum])
    assert weights == tensors_root(named_weights(spec, 1, base.weights), 100)
    assert base_roots(_spec(0.0), base) == BaseRoots(weights, EMPTY)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_digest_of_a_base_shows_the_rounded_weights_that_replicas_start_with(momentum: float) -> None:
    spec = _spec(momentum)
    rounding = spec.model_copy(update={"precision": Precision.BF16_SR})
    base = next_base(spec, 20, initial_base(spec, 1), np.full_like(initial_base(spec, 1).weights, 0.25))
    plain, roots = base_roots(spec, base), base_roots(rounding, base)
    weights = named_weights(rounding, 1, base.weights)
    assert {w.dtype for w in weights.values()} == {torch.bfloat16}
    assert roots == BaseRoots(tensors_root(weights, 100), merkle_root([plain.start, plain.rest]))
    assert base_digest(rounding, base) == merkle_root([roots.start, roots.rest])
    assert np.array_equal(started(rounding, base.weights), flatten(weights).numpy())
    assert started(spec, base.weights) is base.weights


@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=40))
def test_the_nearest_bf16_is_that_of_torch(values: list[float]) -> None:
    given = np.array(values, np.float32)
    expected = torch.from_numpy(given).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(nearest_bf16(given), expected)


def test_a_vector_of_several_blocks_is_rounded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iota.outer.base_values._BLOCK", 7)
    values = np.linspace(-3, 3, 50, dtype=np.float32)
    rounding = _spec(0.0).model_copy(update={"precision": Precision.BF16_SR})
    assert np.array_equal(started(rounding, values), torch.from_numpy(values).bfloat16().float().numpy())


def test_parts_that_are_not_the_stages_are_refused() -> None:
    spec = _spec(0.0)
    base = initial_base(spec, 0)
    parts = base_parts(spec, base)
    with pytest.raises(PartError, match="parts where"):
        read_base(spec, 0, parts[:-1])
    with pytest.raises(PartError, match="not a part of this base"):
        read_base(spec, 0, [b"junk", *parts[1:]])
    bad = dataclasses.replace(base, weights=np.full_like(base.weights, np.nan))
    with pytest.raises(PartError, match="finite"):
        read_base(spec, 0, base_parts(spec, bad))
