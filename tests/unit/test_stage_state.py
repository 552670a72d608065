"""States of a stage: digests, files, optimizer round trips, and files from strangers."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from iota.compute import StateError
from iota.compute.commitment import commitment
from iota.compute.moments import decoded_moment, is_scale
from iota.compute.optim import InnerOptimizer
from iota.compute.rounding import rounding_of
from iota.compute.state import StageState, check_intact, load_state, save_state, state_bytes, tensors_digest
from iota.model.initial import initial_weights
from iota.objects import snapshot_bytes
from iota.protocol.receipts import Commitment
from iota.spec import RunSpec
from tests.support.damage import DAMAGES, Damage
from tests.support.small_spec import small_spec

PART = small_spec().outer.part_elements


def stepped(spec: RunSpec, steps: int, state: StageState | None = None) -> StageState:
    """Stage 1 after so many updates by gradients that follow from the step count."""
    state = state or StageState.initial(spec, 1)
    weights = {name: w.clone() for name, w in state.weights.items()}
    optimizer = InnerOptimizer(spec.optimizer, weights)
    optimizer.load(state.moments)
    generator = torch.Generator().manual_seed(3)
    for step in range(steps):
        gradients = {n: torch.randn(w.shape, generator=generator) for n, w in weights.items()}
        optimizer.update(weights, gradients, 1e-2, rounding_of(spec, 0, step))
    return StageState(weights, {n: m.clone() for n, m in optimizer.moments().items()})


def same(a: StageState, b: StageState) -> bool:
    return roots(a) == roots(b)


def roots(state: StageState) -> Commitment:
    return commitment(state, PART)


@pytest.mark.parametrize("precision", ["fp32", "bf16-sr"])
@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_optimizer_goes_on_from_its_saved_state_to_the_bit(kind: str, precision: str) -> None:
    spec = small_spec(optimizer={"kind": kind, "lr": 1e-2, "weight_decay": 0.1}, precision=precision)
    first = stepped(spec, 2)
    loaded = load_state(state_bytes(first), spec, 1)
    on, again = stepped(spec, 1, first), stepped(spec, 1, loaded)
    assert same(on, again)
    assert kind == "sgd" or not same(on, stepped(spec, 1, StageState(first.weights)))


def test_muon_leaves_embeddings_head_anchors_and_vectors_to_adamw() -> None:
    spec = small_spec(optimizer={"kind": "muon", "lr": 1e-2})
    moments = stepped(spec, 1).moments
    assert "momentum_buffer.layers.2.mlp.up_proj.weight" in moments
    assert "momentum_buffer.boundary.0.decode.inner.weight" in moments
    adam = {"head.weight", "norm.weight", "boundary.0.decode.anchor.tokens", "boundary.0.decode.inner.bias"}
    assert all(f"exp_avg.{name}" in moments for name in adam)


@pytest.mark.parametrize("precision", ["fp32", "bf16-sr"])
def test_a_file_holds_the_state(tmp_path: Path, precision: str) -> None:
    spec = small_spec(precision=precision)
    state = stepped(spec, 1)
    state = replace(state, before=StageState.initial(spec, 1).weights)
    path = tmp_path / "deep" / "state"
    save_state(state, path, roots(state))
    loaded = load_state(path, spec, 1)
    assert same(loaded, state)
    check_intact(path.read_bytes(), spec, 1)
    assert path.stat().st_size < snapshot_bytes(spec, 1)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["state"]


@pytest.mark.parametrize("precision", ["fp32", "bf16-sr"])
def test_a_file_on_disk_is_read_by_safetensors_and_has_the_bits(tmp_path: Path, precision: str) -> None:
    state = stepped(small_spec(precision=precision), 1)
    save_state(state, tmp_path / "state", roots(state))
    found = safetensors.torch.load_file(tmp_path / "state")
    assert found.keys() == safetensors.torch.load(state_bytes(state)).keys()
    assert all(torch.equal(found[f"weights.{name}"], weight) for name, weight in state.weights.items())


def test_a_file_with_the_roots_of_another_state_is_damaged(tmp_path: Path) -> None:
    spec, path = small_spec(), tmp_path / "state"
    save_state(stepped(spec, 1), path, roots(stepped(spec, 2)))
    with pytest.raises(StateError, match="roots"):
        load_state(path, spec, 1)
    with pytest.raises(StateError, match="roots"):
        check_intact(path.read_bytes(), spec, 1)


SMALL = {"kind": "adamw", "lr": 1e-2, "moments": "int8"}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("moments", ["bf16", "int8"])
def test_a_state_with_small_moments_goes_on_from_its_file_to_the_bit(
    tmp_path: Path, moments: str, kind: str
) -> None:
    spec = small_spec(optimizer=SMALL | {"kind": kind, "moments": moments}, precision="bf16-sr")
    first, path = stepped(spec, 2), tmp_path / "state"
    save_state(first, path, roots(first))
    check_intact(path.read_bytes(), spec, 1)
    loaded = load_state(path, spec, 1)
    assert same(loaded, first)
    assert same(stepped(spec, 1, first), stepped(spec, 1, loaded))
    assert not same(stepped(spec, 1, first), stepped(spec, 1, StageState(first.weights)))
    assert path.stat().st_size < snapshot_bytes(spec, 1)


@pytest.mark.parametrize(("written", "read"), [("fp32", "int8"), ("bf16", "int8"), ("int8", "fp32")])
def test_a_state_with_moments_of_another_format_is_refused(written: str, read: str) -> None:
    data = state_bytes(stepped(small_spec(optimizer=SMALL | {"moments": written}), 1))
    with pytest.raises(StateError, match=r"other tensors|is not"):
        load_state(data, small_spec(optimizer=SMALL | {"moments": read}), 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, -1e-30, 3e38])
def test_scales_that_are_not_in_order_are_refused(bad: float) -> None:
    """The last one gives values beyond fp32."""
    spec = small_spec(optimizer=SMALL)
    state = stepped(spec, 1)
    state.moments["exp_avg_sq_scale.head.weight"][0] = bad
    with pytest.raises(StateError, match=r"exp_avg_sq_scale\.head"):
        load_state(state_bytes(state), spec, 1)


def test_any_codes_of_a_strangers_state_are_values() -> None:
    spec = small_spec(optimizer=SMALL)
    state = stepped(spec, 1)
    for name, moment in state.moments.items():
        if moment.element_size() == 1:
            moment.view(torch.uint8).random_(0, 256)
        elif "_scale." in name:
            moment.fill_(1.7e38)
    for name in load_state(state_bytes(state), spec, 1).moments:
        if not is_scale(name):
            values = decoded_moment(state.moments, name)
            assert bool(values.isfinite().all())
            assert not name.startswith("exp_avg_sq.") or bool((values >= 0).all())


@pytest.mark.parametrize(("written", "read"), [("fp32", "bf16-sr"), ("bf16-sr", "fp32")])
def test_a_state_in_another_precision_is_refused(written: str, read: str) -> None:
    data = state_bytes(StageState.initial(small_spec(precision=written), 1))
    kind = "bf16" if read == "bf16-sr" else "fp32"
    with pytest.raises(StateError, match=f"is not {kind} of shape"):
        load_state(data, small_spec(precision=read), 1)


def test_bf16_weights_have_fp32_moments_and_take_half_the_bytes() -> None:
    state = stepped(small_spec(precision="bf16-sr"), 1)
    assert {w.dtype for w in state.weights.values()} == {torch.bfloat16}
    assert {m.dtype for m in state.moments.values()} == {torch.float32}
    schedule = {"pipeline": "delayed"}  # with the weights of the version before
    whole, half = (
        snapshot_bytes(small_spec(precision=precision, schedule=schedule), 1)
        for precision in ("fp32", "bf16-sr")
    )
    assert whole - half == 2 * 2 * sum(w.numel() for w in state.weights.values())


def test_a_state_without_moments_is_a_fresh_start() -> None:
    spec = small_spec()
    loaded = load_state(state_bytes(StageState.initial(spec, 1)), spec, 1)
    assert loaded.moments == {}


def test_digest_depends_on_names_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3)}
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": torch.ones(2, 3)}, {}]
    assert len({tensors_digest(t) for t in [base, *others]}) == 5


def test_initial_weights_follow_from_seed_and_name_alone() -> None:
    whole = initial_weights(small_spec(layout={"cuts": [3]}), 0)
    parts = initial_weights(small_spec(), 0) | initial_weights(small_spec(), 1)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    other = initial_weights(small_spec(seed=1), 0)
    assert not torch.equal(other["embed.weight"], whole["embed.weight"])


# ---- files from strangers ---------------------------------------------------------------------


def altered(data: bytes, change: Any) -> bytes:
    """The file with its header passed through `change`."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def rename(header: dict[str, Any]) -> None:
    header["weights.other"] = header.pop("weights.norm.weight")


def retype(header: dict[str, Any]) -> None:
    header["weights.norm.weight"]["dtype"] = "I32"


def reshape(header: dict[str, Any]) -> None:
    header["weights.head.weight"]["shape"].reverse()


def overlap(header: dict[str, Any]) -> None:
    header["weights.norm.weight"]["data_offsets"] = [0, 128]


@pytest.mark.parametrize("change", [rename, retype, reshape, overlap])
def test_a_header_that_is_not_this_stages_is_refused(change: Any) -> None:
    spec = small_spec()
    with pytest.raises(StateError):
        load_state(altered(state_bytes(StageState.initial(spec, 1)), change), spec, 1)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, b"\xff" * 100, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 3) + b"abc"],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(StateError):
        load_state(data, small_spec(), 1)


def test_a_deeply_nested_header_is_refused() -> None:
    text = b"[" * 200_000
    with pytest.raises(StateError):
        load_state(struct.pack("<Q", len(text)) + text, small_spec(), 1)


@pytest.mark.parametrize("cut", [1, 4, 1000])
def test_a_truncated_file_is_refused(cut: int) -> None:
    spec = small_spec()
    with pytest.raises(StateError):
        load_state(state_bytes(StageState.initial(spec, 1))[:-cut], spec, 1)


def test_another_stages_state_is_refused() -> None:
    spec = small_spec()
    with pytest.raises(StateError, match="other tensors"):
        load_state(state_bytes(StageState.initial(spec, 0)), spec, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    spec = small_spec()
    state = stepped(spec, 1)
    state.weights["norm.weight"][0] = bad
    with pytest.raises(StateError, match="NaN or Inf"):
        load_state(state_bytes(state), spec, 1)


def test_a_negative_second_moment_is_refused() -> None:
    spec = small_spec()
    state = stepped(spec, 1)
    state.moments["exp_avg_sq.norm.weight"][0] = -1.0
    with pytest.raises(StateError, match="negative"):
        load_state(state_bytes(state), spec, 1)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_state_that_was_damaged_on_disk_is_noticed(tmp_path: Path, damage: Damage) -> None:
    spec, path = small_spec(), tmp_path / "state"
    state = replace(stepped(spec, 1), before=StageState.initial(spec, 1).weights)
    save_state(state, path, roots(state))
    check_intact(path.read_bytes(), spec, 1)
    damage(path)
    with pytest.raises(StateError):
        load_state(path, spec, 1)
    if path.exists():
        with pytest.raises(StateError):
            check_intact(path.read_bytes(), spec, 1)


def test_a_missing_file_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        load_state(tmp_path / "none", small_spec(), 1)
