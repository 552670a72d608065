"""When a replay agrees with a receipt."""

from __future__ import annotations

from typing import Any

import pytest

from iota.compute.determinism import device_class
from iota.compute.names import Output, StepOutput
from iota.protocol.receipts import OpKind, Receipt, StepState
from tests.support.small_runs import small_run
from validator.audits.replay import ReplayOptions
from validator.audits.tolerance import compare_output, compare_step, profile_for, sketch_distance
from validator.core.results import Profile

EXACT = Profile("exact", exact=True)
NEAR = Profile("sketch/0.01", exact=False, error=0.01, cosine=0.99)
SKETCH = tuple(float(n % 5 - 2) for n in range(16))
A, B = "aa" * 32, "bb" * 32


def receipt(**fields: Any) -> Receipt:
    return Receipt(
        seq=1, epoch=0, step=0, stage=0, version=0, started=0, ended=0, device="cpu",
        **{"kind": OpKind.FORWARD, "output": A, "sketch": SKETCH, **fields},
    )  # fmt: skip


def step(**fields: Any) -> tuple[Receipt, StepOutput]:
    values = {"weights": A, "moments": A, "change_sketch": SKETCH, "moments_sketch": SKETCH}
    told = {"counted": A, "learning_rate": 1e-3}
    state = StepState(**{**values, **told, "gradient_norm": 1.0, **fields})
    given = receipt(kind=OpKind.STEP, output=state.weights, sketch=(), state=state)
    return given, StepOutput(1, 1.0, A, A, SKETCH, SKETCH)


def scaled(factor: float) -> tuple[float, ...]:
    return tuple(value * factor for value in SKETCH)


def test_one_device_class_has_no_tolerance() -> None:
    assert profile_for(small_run(), "cpu/x", "cpu/x") == EXACT


def test_two_device_classes_have_the_runs_tolerance() -> None:
    assert profile_for(small_run(), "cpu/x", "cuda/y") == NEAR


def test_equal_digests_agree() -> None:
    assert compare_output(EXACT, receipt(), Output(b"", A, SKETCH, 1)) is None


def test_another_digest_fails_however_near_the_sketch() -> None:
    off = compare_output(EXACT, receipt(output=B), Output(b"", A, SKETCH, 1))
    assert off is not None
    assert (off.expected, off.found) == (A, B)


def test_a_sketch_that_is_not_the_outputs_fails_on_one_class_too() -> None:
    assert compare_output(EXACT, receipt(sketch=scaled(-1)), Output(b"", A, SKETCH, 1)) is not None


def test_across_classes_the_sketch_decides_and_not_the_digest() -> None:
    assert compare_output(NEAR, receipt(output=B, sketch=scaled(1.009)), Output(b"", A, SKETCH, 1)) is None
    assert (
        compare_output(NEAR, receipt(output=B, sketch=scaled(1.011)), Output(b"", A, SKETCH, 1)) is not None
    )


@pytest.mark.parametrize(("profile", "loss", "agrees"), [(EXACT, 2.0, True), (EXACT, 2.0000001, False),
    (NEAR, 2.01, True), (NEAR, 2.03, False), (NEAR, None, False)])  # fmt: skip
def test_a_loss_is_held_to_the_profile(profile: Profile, loss: float | None, agrees: bool) -> None:
    replayed = Output(b"", A, SKETCH, 1, 2.0)
    given = receipt(kind=OpKind.LOSS, loss=loss)
    assert (compare_output(profile, given, replayed) is None) is agrees


@pytest.mark.parametrize("fields", [{}, {"gradient_norm": 1.0}])
def test_an_equal_step_agrees(fields: dict[str, Any]) -> None:
    assert compare_step(EXACT, *step(**fields)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"weights": B},
        {"moments": B},
        {"gradient_norm": 1.1},
        {"change_sketch": scaled(2)},
        {"moments_sketch": ()},
    ],
)
def test_a_step_fails_by_each_of_its_commitments(fields: dict[str, Any]) -> None:
    assert compare_step(EXACT, *step(**fields)) is not None


def test_a_step_without_a_state_fails() -> None:
    assert compare_step(EXACT, receipt(kind=OpKind.STEP), step()[1]) is not None


@pytest.mark.parametrize("theirs", [(), scaled(0), (float("nan"),) * 16, scaled(-1)])
def test_what_is_no_sketch_of_it_does_not_agree(theirs: tuple[float, ...]) -> None:
    assert sketch_distance(NEAR, theirs, SKETCH) is not None


def test_a_zero_gradient_agrees_with_itself() -> None:
    assert sketch_distance(NEAR, scaled(0), scaled(0)) is None


def test_a_replay_takes_the_miners_thread_count_where_that_makes_the_classes_equal() -> None:
    own = ReplayOptions(threads=1, max_threads=4)
    assert own.matching(device_class("cpu", 2)).threads == 2
    assert own.matching(device_class("cpu", 8)) == own
    assert own.matching("cuda/Some GPU/cuda13/torch2") == own
