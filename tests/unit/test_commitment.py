"""Commitments: leaves are parts of the flat state, and each value counts in its group's root alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blake3 import blake3

from iota.compute.commitment import commitment, moments_leaves, tensors_leaves, tensors_root
from iota.compute.state import StageState, zero_moments
from iota.outer.partition import split
from iota.outer.pseudo_gradient import flatten
from iota.protocol.merkle import EMPTY, merkle_root
from iota.spec import Moments
from tests.support.small_spec import small_spec
from validator.core.receipt_checks import zero_moments_root

SPEC = small_spec()


def state() -> StageState:
    first = StageState.initial(SPEC, 0)
    return replace(first, moments=zero_moments(SPEC, 0), before=first.weights)


@pytest.mark.parametrize("part", [1000, 1 << 20])
def test_leaves_are_the_parts_of_the_flat_weights(part: int) -> None:
    weights = state().weights
    parts = split(flatten(weights).numpy(), part)
    assert tensors_leaves(weights, part) == [blake3(each.tobytes()).hexdigest() for each in parts]
    assert tensors_root(weights, part) == merkle_root(tensors_leaves(weights, part))


@pytest.mark.parametrize("group", ["weights", "moments", "before"])
def test_one_bit_changes_the_root_of_its_group_alone(group: str) -> None:
    first, other = state(), state()
    tensors = {name: tensor.clone() for name, tensor in getattr(other, group).items()}
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    changed = commitment(replace(other, **{group: tensors}), 1000)
    whole = commitment(first, 1000)
    groups = ("weights", "moments", "before")
    assert [name for name in groups if getattr(changed, name) != getattr(whole, name)] == [group]
    assert changed.root != whole.root


@pytest.mark.parametrize("part", [10, 1000, 1 << 20])
@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("moments", Moments)
def test_the_root_of_zero_moments_is_known_without_making_them(
    moments: Moments, kind: str, part: int
) -> None:
    optimizer = {"kind": kind, "lr": 0.01, "moments": moments}
    spec = small_spec(optimizer=optimizer, outer={"part_elements": part})
    for stage in range(spec.layout.stages):
        assert zero_moments_root(spec, stage) == merkle_root(moments_leaves(zero_moments(spec, stage), part))


def test_leaves_of_bf16_weights_are_of_the_same_elements() -> None:
    weights = StageState.initial(small_spec(precision="bf16-sr"), 0).weights
    raw = torch.cat([weights[name].reshape(-1) for name in sorted(weights)]).view(torch.int16).numpy()
    expected = [
        blake3(each.tobytes()).hexdigest() for each in (raw[n : n + 1000] for n in range(0, raw.size, 1000))
    ]
    assert tensors_leaves(weights, 1000) == expected
    assert len(expected) == len(tensors_leaves(state().weights, 1000))
    with pytest.raises(TypeError, match="several dtypes"):
        tensors_root({"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.bfloat16)}, 1000)


def test_a_group_without_tensors_has_the_empty_root_and_another_dtype_is_refused() -> None:
    assert commitment(StageState.initial(SPEC, 0), 1000).before == EMPTY
    with pytest.raises(TypeError, match="float64"):
        tensors_root({"a": torch.zeros(2, dtype=torch.float64)}, 1000)


def test_a_tensor_that_is_not_contiguous_counts_in_row_major_order() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    assert tensors_root({"a": matrix.T}, 4) == tensors_root({"a": matrix.T.contiguous()}, 4)
