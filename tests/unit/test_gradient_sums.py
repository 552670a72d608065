"""Gradient sums of open steps, and the weight versions that they share memory with."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref

import pytest
import torch

from iota.codec.finite_payload import MAX_MAGNITUDE
from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute import (
    Microbatch,
    VersionError,
)
from iota.compute.accumulate import OpenStep
from iota.compute.clip import LARGEST_MEAN, largest_of, mean_and_clip
from iota.compute.errors import BadValueError
from iota.compute.gradient_scale import scaled
from iota.compute.precision import operand_dtypes
from iota.compute.state import StageState, load_state, state_bytes
from iota.compute.versions import Versions
from iota.model.lookup import look_up
from tests.support.small_engines import loaded, read, tensor, tokens
from tests.support.small_spec import small_spec

CPU = torch.device("cpu")
MB = Microbatch(epoch=0, step=0, index=0)


def test_a_backward_holds_one_parameters_gradient_at_a_time() -> None:
    opened = OpenStep(0, {name: torch.ones(4, 4) for name in ("a", "b", "c")})
    held: list[list[str]] = []
    for leaf in opened.leaves.values():
        leaf.register_hook(lambda _: held.append([n for n, w in opened.leaves.items() if w.grad is not None]))  # type: ignore[no-untyped-call]
    for index in (0, 1):
        entry = torch.ones(4, 4, requires_grad=True)
        output = entry
        for leaf in opened.leaves.values():
            output = output @ leaf
        opened.backward(output.sum(), None, entry, dataclasses.replace(MB, index=index))
    assert held == [[]] * 6, "none waits for another one"
    assert torch.equal(opened.sums["a"], torch.full((4, 4), 2 * 64.0))


def test_very_many_microbatches_near_the_bound_do_not_end_a_state_whose_sums_are_rounded() -> None:
    opened = OpenStep(0, {"a": torch.ones(2)}, rounded_by=1)
    for index in range(1300):
        entry = torch.ones(2, requires_grad=True)
        output = (opened.leaves["a"] * entry).sum() * (1.6e32 * (1 if index % 2 else -1))
        opened.backward(output, None, entry, dataclasses.replace(MB, index=index))
    assert 0 < opened.bound < 1e35


@pytest.mark.parametrize("threshold", [1.0, math.inf])
@pytest.mark.parametrize("exponent", [70, 126])
def test_a_gradient_whose_squares_overflow_is_clipped_as_a_smaller_one(
    exponent: int, threshold: float
) -> None:
    small = {"a": torch.randn(5, 7), "b": torch.ones(3)}
    small = {name: each / 8 for name, each in small.items()}
    huge = {name: each * 2.0**exponent for name, each in small.items()}
    whole = {name: each.clone() for name, each in huge.items()}
    norm = mean_and_clip(huge, 2, threshold, largest_of(huge.values())).norm
    small_mean = mean_and_clip(small, 2, threshold, largest_of(small.values())).norm
    assert norm == 2.0**exponent * small_mean
    for name, each in huge.items():
        unclipped = whole[name] / 2 * min(1.0, LARGEST_MEAN / float(norm))
        expected = unclipped if threshold == math.inf else small[name] / small_norm(small)
        torch.testing.assert_close(each, expected)


def small_norm(clipped: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.flatten() for each in clipped.values()]).norm()


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_with_bad_values_is_refused_and_left_as_it_is(bad: float) -> None:
    sums = {"a": torch.full((2,), 1e30), "b": torch.tensor([1.0, bad])}
    before = {name: each.clone() for name, each in sums.items()}
    with pytest.raises(BadValueError):
        mean_and_clip(sums, 1, 1.0, largest_of(sums.values()))
    for name, each in sums.items():
        torch.testing.assert_close(each, before[name], equal_nan=True, rtol=0, atol=0)


def added(opened: OpenStep, gradients: list[torch.Tensor]) -> torch.Tensor:
    """The sum of these gradients of the one leaf `a`."""
    for index, gradient in enumerate(gradients):
        entry = torch.ones((), requires_grad=True)
        output = (opened.leaves["a"] * gradient).sum() * entry
        opened.backward(output, None, entry, dataclasses.replace(MB, index=index))
    return opened.sums["a"]


def test_bf16_sums_are_rounded_by_the_place_of_each_microbatch_and_repeat() -> None:
    gradients = [torch.full((4096,), 1.0 + 2**-9), torch.full((4096,), 2**-9)]
    leaf = {"a": torch.zeros(4096)}
    first, again, other = (added(OpenStep(0, leaf, rounded_by=seed), gradients) for seed in (7, 7, 8))
    assert first.dtype is torch.bfloat16
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.float().mean()) == pytest.approx(1 + 2**-8, abs=4e-4), "without bias"
    opened = OpenStep(0, leaf, rounded_by=7)
    added(opened, gradients[::-1])
    opened.clear()
    assert torch.equal(added(opened, gradients), first), "summed again after it was discarded"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bf16_sum_that_is_not_finite_is_noticed(bad: float) -> None:
    opened = OpenStep(0, {"a": torch.zeros(300)}, rounded_by=7)
    good, wrong = torch.ones(300), torch.ones(300)
    wrong[5] = bad
    added(opened, [good, wrong, good])
    with pytest.raises(BadValueError):
        mean_and_clip(opened.sums, 3, 1.0, opened.bound)


@pytest.mark.parametrize("threshold", [1.0, math.inf])
def test_the_mean_of_bf16_sums_is_left_to_who_reads_them(threshold: float) -> None:
    exact = {"a": torch.randn(50, 7).bfloat16().float(), "b": torch.ones(3)}
    kept = {name: each.bfloat16() for name, each in exact.items()}
    before = {name: each.clone() for name, each in kept.items()}
    largest = largest_of(exact.values())
    norm, scale = mean_and_clip(kept, 3, threshold, largest)
    assert all(torch.equal(each, before[name]) for name, each in kept.items()), "they are not rounded again"
    assert norm == mean_and_clip(exact, 3, threshold, largest).norm
    assert all(torch.equal(scaled(kept[name], scale), each) for name, each in exact.items())


def test_an_applied_steps_sums_are_freed_at_once() -> None:
    opened = OpenStep(0, {"a": torch.ones(2)})
    entry = torch.ones(2, requires_grad=True)
    opened.backward((entry * opened.leaves["a"]).sum(), None, entry, MB)
    sums = weakref.ref(opened.sums["a"])
    gc.disable()
    try:
        del opened
        assert sums() is None, "without a garbage collection"
    finally:
        gc.enable()


def test_graphs_of_one_version_share_its_bf16_weights() -> None:
    spec = small_spec(precision="bf16-master")
    engine = loaded(spec)
    weights = engine.state().weights
    matrices = [name for name in operand_dtypes(spec, 0) if weights[name].dim() == 2]
    storages: list[set[int]] = []

    def pack(saved: torch.Tensor) -> torch.Tensor:
        if saved.dtype == torch.bfloat16:
            storages[-1].add(saved.untyped_storage().data_ptr())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        for index in (0, 1):
            storages.append(set())
            engine.forward(dataclasses.replace(MB, index=index), 0, None, tokens(spec))
    assert len(matrices) > 7, "those of the layer, and the codec's"
    assert len(storages[0] & storages[1]) == len(matrices)


def test_the_bf16_weights_of_a_version_follow_its_update() -> None:
    versions = Versions({"w": torch.ones(2), "norm": torch.ones(2)}, 0, CPU, {"w": torch.bfloat16})
    first = versions.operands(0)
    assert (first["w"].dtype, first["norm"].dtype) == (torch.bfloat16, torch.float32)
    assert versions.operands(0)["w"] is first["w"]
    versions.advance(keep=False, changed=True)["w"].fill_(2)
    assert versions.operands(1)["w"].tolist() == [2, 2]
    with pytest.raises(VersionError):
        versions.operands(0)


def test_bf16_weights_are_their_own_operands_but_for_norms_and_small_tables() -> None:
    spec = small_spec(precision="bf16-sr")
    weights = StageState.initial(spec, 0).weights
    versions = Versions(weights, 0, CPU, operand_dtypes(spec, 0))
    held, used = versions.get(0), versions.operands(0)
    own = {name for name, w in used.items() if w.data_ptr() == held[name].data_ptr()}
    assert own >= {"embed.weight", "layers.0.mlp.up_proj.weight", "boundary.0.encode.inner.bias"}
    assert {used[name].dtype for name in own} == {torch.bfloat16}
    others = used.keys() - own
    assert all(name.endswith("norm.weight") or ".anchor.tokens" in name for name in others)
    assert {used[name].dtype for name in others} == {torch.float32}
    assert OpenStep(0, used).leaves["embed.weight"].dtype is torch.bfloat16


def test_rows_of_a_bf16_table_sum_their_gradients_in_fp32() -> None:
    """A sum of ones in bf16 stands still at 256."""
    table = torch.ones(3, 4, dtype=torch.bfloat16, requires_grad=True)
    rows = look_up(table, torch.tensor([[0] * 1000 + [2]]))
    assert rows.dtype is torch.float32
    rows.sum().backward()
    assert table.grad is not None
    assert table.grad.dtype is torch.bfloat16
    assert table.grad[:, 0].tolist() == [1000, 0, 1]


def test_open_steps_share_the_memory_of_their_version_and_sum_apart() -> None:
    weights = {"w": torch.ones(3)}
    first, second = OpenStep(0, weights), OpenStep(0, weights)
    for step, times in ((first, 1), (second, 2)):
        assert step.leaves["w"].data_ptr() == weights["w"].data_ptr()
        entry = torch.ones(3, requires_grad=True)
        for _ in range(times):
            step.backward((entry * step.leaves["w"]).sum(), None, entry, MB)
    assert torch.equal(2 * first.sums["w"], second.sums["w"])


def test_versions_follow_the_pipeline() -> None:
    spec = small_spec(schedule={"pipeline": "delayed"})
    engine = loaded(spec)
    held = []
    for step in range(4):
        mb = Microbatch(0, step, 0)
        engine.forward(mb, spec.weight_version(step), None, tokens(spec, step))
        engine.backward(mb, spec.weight_version(step), tensor())
        engine.step(step, 1, 0.1)
        held.append(engine.versions)
    assert held == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_an_empty_step_shares_memory_and_later_steps_do_not_disturb_it() -> None:
    spec = small_spec(schedule={"pipeline": "delayed"})
    engine = loaded(spec)
    engine.step(0, 0, 0.1)
    ahead = Microbatch(0, 2, 0)
    engine.forward(Microbatch(0, 1, 0), 0, None, tokens(spec))
    engine.backward(Microbatch(0, 1, 0), 0, tensor())
    engine.forward(ahead, 1, None, tokens(spec))
    engine.step(1, 1, 0.1)
    early = read(engine.backward(ahead, 1, tensor()))
    base = loaded(spec)
    base.load(StageState.initial(spec, 0), version=1)
    base.forward(ahead, 1, None, tokens(spec))
    assert read(base.backward(ahead, 1, tensor())) == early


def test_a_version_that_is_gone_is_refused() -> None:
    spec = small_spec()
    engine = loaded(spec)
    engine.step(0, 0, 0.1)
    with pytest.raises(VersionError):
        engine.forward(Microbatch(0, 0, 5), 0, None, tokens(spec))


def test_an_open_step_keeps_to_one_version() -> None:
    spec = small_spec(schedule={"pipeline": "delayed"})
    engine = loaded(spec)
    engine.forward(Microbatch(0, 1, 0), 0, None, tokens(spec))
    engine.step(0, 0, 0.1)
    with pytest.raises(VersionError, match="uses weight version 0"):
        engine.forward(Microbatch(0, 1, 1), 1, None, tokens(spec))


def test_clipping_bounds_the_change_of_a_plain_gradient_step() -> None:
    spec = small_spec(optimizer={"kind": "sgd", "lr": 1.0, "clip": 0.01})
    engine = loaded(spec)
    engine.forward(MB, 0, None, tokens(spec))
    engine.backward(MB, 0, tensor(5.0))
    before = engine.state().weights
    out = read(engine.step(0, 1, 1.0))
    after = engine.state().weights
    change = torch.cat([(after[n] - before[n]).flatten() for n in after]).norm()
    assert out.gradient_norm > 0.01
    assert float(change) < 0.01


@pytest.mark.parametrize("moments", ["fp32", "bf16", "int8"])
def test_a_run_that_does_not_clip_has_states_that_can_be_read_whatever_neighbours_send(moments: str) -> None:
    optimizer = {"kind": "adamw", "lr": 0.01, "clip": None, "moments": moments}
    spec = small_spec(layout={"cuts": [1, 1, 1]}, optimizer=optimizer)
    engine, sign = loaded(spec, 1), torch.where(torch.arange(payload_shape(spec)[2]) % 3 == 0, -1.0, 1.0)
    sent = [
        encode_wire((size * sign).expand(payload_shape(spec)), spec.boundary.wire)
        for size in (1e5, 0.9 * MAX_MAGNITUDE)
    ]
    engine.forward(MB, 0, sent[0], tokens(spec))
    read(engine.backward(MB, 0, sent[1]))
    assert read(engine.step(0, 1, 0.01)).gradient_norm > 1e20
    load_state(state_bytes(engine.state()), spec, 1)
