"""Pseudo-gradients, the merge to the bit, and Nesterov's update."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from iota.model.initial import initial_weights
from iota.objects import part_sizes
from iota.outer import OuterState, open_delta_codec, open_merge_rule, outer_step
from iota.outer.partition import PartError, part_bytes, read_part, split
from iota.outer.pseudo_gradient import flatten, pseudo_gradient, unflatten
from iota.outer.weighted_mean import merge_weights, weighted_mean
from iota.spec import OuterCodec, OuterSpec
from tests.support.small_spec import small_spec


def part(seed: int, n: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def test_flattening_is_in_order_of_name_and_undone_exactly() -> None:
    weights = initial_weights(small_spec(), 0)
    flat = flatten(dict(reversed(weights.items())))
    assert all(torch.equal(w, weights[n]) for n, w in unflatten(flat, weights).items())
    assert torch.equal(flat[: weights["boundary.0.encode.anchor.basis"].numel()], torch.zeros(128))


def test_partitions_cover_the_stage() -> None:
    spec = small_spec(outer={"part_elements": 999})
    vector = flatten(initial_weights(spec, 0)).numpy()
    parts = split(vector, 999)
    assert [p.size for p in parts] == part_sizes(spec, 0)
    assert np.array_equal(np.concatenate([read_part(part_bytes(p), p.size) for p in parts]), vector)


def test_a_partition_of_another_size_or_with_nan_is_refused() -> None:
    data = part_bytes(part(0))
    with pytest.raises(PartError):
        read_part(data[:-1], 1000)
    with pytest.raises(PartError):
        read_part(part_bytes(np.array([1.0, np.nan], np.float32)), 2)


def test_a_pseudo_gradient_without_a_codec_is_its_raw_fp32_values() -> None:
    codec = open_delta_codec(OuterCodec.NONE)
    assert codec.encode(part(0)) == part_bytes(part(0))
    assert np.array_equal(codec.decode(codec.encode(part(0)), 1000), part(0))
    with pytest.raises(PartError):
        codec.decode(codec.encode(part(0)), 999)


def test_a_merge_is_the_weighted_mean_unless_another_is_named() -> None:
    assert open_merge_rule() is weighted_mean


def test_unknown_codecs_and_rules_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'none', 'int8', 'sparse' or 'sparse64'"):
        OuterSpec.model_validate({"codec": "zip"})
    with pytest.raises(ValueError, match="this build has weighted-mean"):
        open_merge_rule("median")


def test_the_merge_does_not_depend_on_the_order_of_arrival() -> None:
    merged = {
        weighted_mean({f"hk{i}": 100 + 7 * i for i in order}, lambda name: part(int(name[2:]))).tobytes()
        for order in itertools.permutations(range(4))
    }
    assert len(merged) == 1


def test_the_merge_is_separate_fp32_products_and_sums() -> None:
    found = weighted_mean({"b": 1, "a": 2}, {"b": part(1), "a": part(0)}.__getitem__)
    wa, wb = np.float32(2 / 3), np.float32(1 / 3)
    for i, value in enumerate(found):
        assert value == np.float32(np.float32(part(0)[i] * wa) + np.float32(part(1)[i] * wb))


def test_weights_are_shares_of_tokens() -> None:
    assert merge_weights({"b": 3, "a": 1}) == {"a": np.float32(0.25), "b": np.float32(0.75)}


def test_who_made_few_steps_makes_no_merge_smaller_and_is_not_enlarged() -> None:
    tokens, steps = {"a": 100, "b": 100, "late": 50}, {"a": 10, "b": 10, "late": 5}
    weights = merge_weights(tokens, steps)
    assert sum(float(weights[h]) * steps[h] for h in tokens) == pytest.approx(10)
    assert weights["a"] == weights["b"] == 2 * weights["late"]
    assert merge_weights({"slow": 1, "quick": 9}, {"slow": 10, "quick": 1})["quick"] == 1
    assert merge_weights(tokens, dict.fromkeys(tokens, 7)) == merge_weights(tokens)


def test_contributions_without_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        weighted_mean({"a": 0}, lambda _: part(0))


def test_contributions_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        weighted_mean({"a": 1, "b": 1}, {"a": part(0), "b": part(1, 10)}.__getitem__)


def test_one_replica_with_eta_1_and_mu_0_merges_to_its_own_weights() -> None:
    base, final = {"w": torch.from_numpy(part(0))}, {"w": torch.from_numpy(part(0) + 0.01 * part(1))}
    delta = pseudo_gradient(base, final).numpy()
    merged = weighted_mean({"a": 5}, lambda _: delta)
    after = outer_step(OuterState(base["w"].numpy(), np.zeros(1000, np.float32)), merged, 1.0, 0.0)
    assert np.allclose(after.weights, final["w"].numpy(), rtol=1e-6, atol=1e-7)


def test_nesterov_follows_its_formula_over_two_steps() -> None:
    w, m = part(0).astype(np.float64), np.zeros(1000)
    state = OuterState(part(0), np.zeros(1000, np.float32))
    for seed in (1, 2):
        m = 0.9 * m + part(seed)
        w = w - 0.7 * (part(seed) + 0.9 * m)
        state = outer_step(state, part(seed), 0.7, 0.9)
    assert np.allclose(state.weights, w, rtol=1e-5, atol=1e-6)
    assert np.allclose(state.momentum, m, rtol=1e-5, atol=1e-6)


def test_the_inputs_of_an_outer_step_stay_as_they_are() -> None:
    state, merged = OuterState(part(0), part(1)), part(2)
    outer_step(state, merged, 0.7, 0.9)
    assert np.array_equal(state.weights, part(0))
    assert np.array_equal(state.momentum, part(1))
    assert np.array_equal(merged, part(2))
    assert math.isfinite(float(state.weights.sum()))
