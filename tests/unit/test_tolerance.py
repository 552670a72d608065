"""When a replay agrees with what was sent, said and committed to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute.names import Output
from iota.compute.state import StageState
from iota.protocol.receipts import OpKind, Receipt, StepUpdate
from iota.spec import OptimizerKind, Precision, RunSpec, WireDtype
from tests.support.small_runs import small_run
from validator.audits.declared import MAX_BOUND, declared_bounds
from validator.audits.tolerance import EXACT, compare_norm, compare_output, compare_state, profile_for
from validator.core.results import Profile, Quantity

SPEC = small_run(boundary={"wire": "fp32"})
NEAR = profile_for(SPEC, "cpu/x", "cuda/y", ())
A, B = "aa" * 32, "bb" * 32
LATER = 2
"""A depth at which replays have drifted apart."""


def noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def payload(x_BTK: Tensor, spec: RunSpec = SPEC) -> bytes:
    return encode_wire(x_BTK, spec.boundary.wire).numpy().tobytes()


X_BTK = noise(0, payload_shape(SPEC))


def receipt(**fields: Any) -> Receipt:
    return Receipt(
        seq=1, epoch=0, step=0, stage=1, version=0, started=0, ended=0, device="cpu",
        **{"kind": OpKind.FORWARD, "output": A, **fields},
    )  # fmt: skip


def replayed(x_BTK: Tensor | None = X_BTK, loss: float | None = None) -> Output:
    return Output(None if x_BTK is None else payload(x_BTK), A, 1, loss)


@pytest.mark.parametrize("theirs", ["cpu/x", "cuda/y"])
def test_a_device_class_that_was_shown_has_no_tolerance_whatever_it_is_called(theirs: str) -> None:
    assert profile_for(SPEC, "cpu/x", theirs, shown=True) is EXACT


def test_a_device_class_of_this_name_that_was_not_shown_has_the_declared_bounds() -> None:
    profile = profile_for(SPEC, "cpu/x", "cpu/x")
    assert profile == replace(NEAR, name=f"class not shown/{NEAR.name}")


def test_two_device_classes_without_a_measured_profile_have_the_declared_one() -> None:
    assert NEAR.depths == tuple(declared_bounds(SPEC, depth) for depth in (1, 2, 3))
    assert (NEAR.exact, NEAR.name) == (False, "declared/0.01/fp32/adamw")


# ---- outputs ------------------------------------------------------------------------------------


def test_on_one_class_the_digest_decides() -> None:
    assert compare_output(EXACT, receipt(), replayed(), payload(X_BTK), LATER) is None
    off = compare_output(EXACT, receipt(output=B), replayed(), payload(X_BTK), LATER)
    assert off is not None
    assert (off.expected, off.found) == (A, B)


def test_across_classes_the_tensor_decides_and_not_the_digest() -> None:
    near, far = X_BTK * 1.009, X_BTK * 1.011
    assert compare_output(NEAR, receipt(output=B), replayed(), payload(near), LATER) is None
    off = compare_output(NEAR, receipt(), replayed(), payload(far), LATER)
    assert off is not None
    assert off.reason == "forward's error is off by 0.011, and 0.01 is allowed"


def test_a_lie_in_one_token_is_named() -> None:
    small = small_run(data={"sequence_length": 4000}, boundary={"wire": "fp32"})
    profile, x_BTK = profile_for(small, "cpu/x", "cuda/y", ()), noise(1, payload_shape(small))
    lie_BTK = x_BTK.clone()
    lie_BTK[1, 70] *= 1.3
    off = compare_output(profile, receipt(), replayed(x_BTK), payload(lie_BTK), LATER)
    assert off is not None
    assert off.reason.startswith("forward's token is off by 0.")
    assert "at token 4070" in off.reason


def test_what_is_left_of_a_frame_is_measured_by_what_was_read_too() -> None:
    little = X_BTK * 1e-4
    rounded = little + noise(7, little.shape) * 1e-4
    assert compare_output(NEAR, receipt(), replayed(little), payload(rounded), LATER) is not None
    assert compare_output(NEAR, receipt(), replayed(little), payload(rounded), LATER, payload(X_BTK)) is None
    lie = little + noise(7, little.shape) * 1e-2
    assert compare_output(NEAR, receipt(), replayed(little), payload(lie), LATER, payload(X_BTK)) is not None
    one = little.clone()
    one[0, 0] += 0.1
    off = compare_output(NEAR, receipt(), replayed(little), payload(one), LATER, payload(X_BTK))
    assert off is not None


@pytest.mark.parametrize("wire", WireDtype)
def test_every_wire_dtype_is_compared_as_what_it_decodes_to(wire: WireDtype) -> None:
    spec = small_run(boundary={"wire": wire})
    profile = profile_for(spec, "cpu/x", "cuda/y", ())
    mine = Output(payload(X_BTK, spec), A, 1)
    assert compare_output(profile, receipt(output=B), mine, payload(X_BTK * 1.002, spec), LATER) is None
    assert compare_output(profile, receipt(output=B), mine, payload(X_BTK * 1.05, spec), LATER) is not None


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x00", payload(X_BTK) + b"\x00", payload(X_BTK)[:-4], payload(X_BTK * 0), payload(-X_BTK),
     payload(X_BTK * math.nan), payload(X_BTK * math.inf), b"\xff" * len(payload(X_BTK))],
)  # fmt: skip
def test_what_is_no_output_of_the_op_does_not_agree(sent: bytes) -> None:
    assert compare_output(NEAR, receipt(), replayed(), sent, LATER) is not None


def test_an_op_that_sends_nothing_is_not_compared_across_classes() -> None:
    assert compare_output(NEAR, receipt(kind=OpKind.BACKWARD, output=B), replayed(None), None, LATER) is None
    assert (
        compare_output(EXACT, receipt(kind=OpKind.BACKWARD, output=B), replayed(None), None, LATER)
        is not None
    )


def test_a_payload_that_the_caller_left_out_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="the payload of receipt 1 is needed"):
        compare_output(NEAR, receipt(), replayed(), None, LATER)


@pytest.mark.parametrize(("profile", "loss", "agrees"), [(EXACT, 2.0, True), (EXACT, 2.0000001, False),
    (NEAR, 2.01, True), (NEAR, 2.03, False), (NEAR, None, False)])  # fmt: skip
def test_a_loss_is_held_to_the_profile(profile: Profile, loss: float | None, agrees: bool) -> None:
    given = receipt(kind=OpKind.LOSS, loss=loss)
    assert (compare_output(profile, given, replayed(loss=2.0), payload(X_BTK), LATER) is None) is agrees


# ---- STEPs and states -------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "norm", "agrees"), [(EXACT, 1.0, True), (EXACT, 1.0000001, False),
    (NEAR, 1.009, True), (NEAR, 1.011, False), (NEAR, 0.0, False)])  # fmt: skip
def test_a_gradient_norm_is_held_to_the_profile(profile: Profile, norm: float, agrees: bool) -> None:
    update = StepUpdate(gradient_norm=norm, counted=A, learning_rate=1e-3)
    assert (compare_norm(profile, receipt(kind=OpKind.STEP, update=update), 1.0, LATER) is None) is agrees


def test_a_step_that_names_no_norm_does_not_agree() -> None:
    assert compare_norm(NEAR, receipt(kind=OpKind.STEP), 1.0, LATER) is not None


START = StageState({"w": noise(1, (30,))})
MINE = StageState({"w": noise(2, (30,))}, {"exp_avg.w": noise(3, (30,))})


def moved(share: float) -> StageState:
    """A state whose change is longer by a share."""
    change = MINE.weights["w"] - START.weights["w"]
    return StageState({"w": MINE.weights["w"] + share * change}, MINE.moments)


def test_a_change_is_held_to_the_profile() -> None:
    assert compare_state(NEAR, 7, START, moved(0.01), MINE, LATER) is None
    off = compare_state(NEAR, 7, START, moved(0.6), MINE, LATER)
    assert off is not None
    assert (off.seq, "commit's" in off.reason) == (7, True)


def test_a_lie_in_the_moments_names_its_tensor() -> None:
    theirs = StageState(MINE.weights, {"exp_avg.w": MINE.moments["exp_avg.w"] * 2})
    off = compare_state(NEAR, 7, START, theirs, MINE, LATER)
    assert off is not None
    assert off.reason == "commit's moments is off by 1 at exp_avg, and 0.01 is allowed"


# ---- declared bounds --------------------------------------------------------------------------


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("kind", OptimizerKind)
@pytest.mark.parametrize("tolerance", [1e-6, 1e-2, 0.3, 1e9])
def test_no_declared_bound_lets_zeros_pass(
    tolerance: float, kind: OptimizerKind, precision: Precision
) -> None:
    run = small_run(optimizer={"kind": kind}, precision=precision).model_dump()
    spec = RunSpec.model_validate({**run, "audit": {"tolerance": tolerance}})
    for depth in (1, LATER):
        for (_, quantity), bound in declared_bounds(spec, depth).values.items():
            change = quantity in (Quantity.CHANGE, Quantity.CHANGE_TENSOR)
            wide = change and kind is OptimizerKind.MUON and precision is Precision.BF16_SR
            assert 0 < bound <= (0.75 if wide else MAX_BOUND)


def test_the_change_of_sgd_is_held_like_moments() -> None:
    bounds = declared_bounds(small_run(optimizer={"kind": "sgd"}), LATER)
    assert bounds.of(OpKind.COMMIT, Quantity.CHANGE) == bounds.of(OpKind.COMMIT, Quantity.MOMENTS)
    adamw = declared_bounds(SPEC, LATER)
    assert adamw.of(OpKind.COMMIT, Quantity.CHANGE) > adamw.of(OpKind.COMMIT, Quantity.MOMENTS)


def test_the_change_of_sgd_is_held_as_that_of_others_where_its_roundings_are_stochastic() -> None:
    sgd, adamw = (
        declared_bounds(small_run(optimizer={"kind": kind}, precision="bf16-sr"), LATER)
        for kind in ("sgd", "adamw")
    )
    assert sgd == adamw


def test_what_has_no_bound_must_be_equal() -> None:
    assert EXACT.bounds(1).of(OpKind.FORWARD, Quantity.ERROR) == 0


@pytest.mark.parametrize("kind", OptimizerKind)
def test_where_weights_are_equal_to_the_bit_fp32_has_narrow_bounds(
    kind: OptimizerKind,
) -> None:
    spec = small_run(optimizer={"kind": kind}, boundary={"wire": "fp32"})
    first, later = declared_bounds(spec, 1), declared_bounds(spec, LATER)
    assert first.of(OpKind.FORWARD, Quantity.ERROR) == spec.audit.tolerance / 20
    assert later.of(OpKind.FORWARD, Quantity.ERROR) >= spec.audit.tolerance
    assert all(first.values[key] <= bound for key, bound in later.values.items())
    spec = RunSpec.model_validate({**spec.model_dump(), "precision": Precision.BF16_MASTER})
    assert declared_bounds(spec, 1) == declared_bounds(spec, LATER)


@pytest.mark.parametrize("wire", WireDtype)
def test_a_value_that_the_wire_rounds_the_other_way_is_within_the_bounds(wire: WireDtype) -> None:
    spec = small_run(boundary={"wire": wire}, data={"sequence_length": 2, "sequences": 1})
    near = profile_for(spec, "cpu/x", "cuda/y", ())
    x_BTK = noise(3, payload_shape(spec))
    sent_N = encode_wire(x_BTK, wire)
    other_N = sent_N.clone()
    other_N[0] ^= 1
    replay = Output(sent_N.numpy().tobytes(), A, 1)
    assert compare_output(near, receipt(), replay, other_N.numpy().tobytes(), 1) is None
