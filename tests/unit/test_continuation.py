"""The values of a run that goes on from another one's base."""

from __future__ import annotations

from typing import Any

import pytest

from iota.model.proposal import make_spec
from iota.spec import RunSpec
from iota.spec.continuation import continued, rolled_back
from iota.spec.draft import all_values, from_assignments
from tests.support.sample_specs import full_spec, tiny_spec
from tests.support.small_runs import small_run

MANIFEST = "0" * 64
OLD = make_spec(
    from_assignments(
        [
            "model.preset=tiny",
            "schedule.epochs=6",
            "schedule.steps=10",
            "schedule.microbatches=8",
            "data.sequences=2",
            "optimizer.decay=cosine",
            "optimizer.lr=0.002",
            "audit.burn=0.25",
            "seed=5",
        ]
    ),
    MANIFEST,
    257,
)


def after(epoch: int, *assignments: str, same_data: bool = True, of: RunSpec = OLD) -> RunSpec:
    """The spec of a run from a base of `of`."""
    draft = continued(of, epoch, from_assignments(assignments), same_data=same_data)
    return make_spec(draft, MANIFEST, 257)


def but(spec: RunSpec, *names: str) -> dict[str, Any]:
    """All values of a spec, but for some."""
    values = all_values(spec)
    for name in names:
        section, _, field = name.partition(".")
        del values[section][field]
    return values


def test_without_other_values_a_run_does_what_is_left_of_the_earlier_one() -> None:
    spec = after(2)
    moved = ("schedule.epochs", "optimizer.first_step", "data.first_sequence")
    assert but(spec, *moved) == but(OLD, *moved)
    assert (spec.schedule.epochs, spec.optimizer.first_step, spec.data.first_sequence) == (4, 20, 320)


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_the_learning_rate_goes_on_where_the_earlier_run_was(epoch: int) -> None:
    spec = after(epoch)
    for later in range(spec.schedule.epochs):
        for step in range(10):
            assert spec.learning_rate(later, step) == OLD.learning_rate(epoch + later, step)


def test_other_steps_an_epoch_go_on_at_the_same_step_and_the_same_sample() -> None:
    spec = after(3, "schedule.steps=4", "schedule.microbatches=16")
    assert spec.schedule.epochs == 8  # 30 steps are left, rounded up to whole epochs
    assert spec.optimizer.first_step == 30
    assert spec.data.first_sequence == 3 * 10 * 8 * 2
    assert spec.optimizer.warmup_steps == OLD.optimizer.warmup_steps


def test_a_second_continuation_counts_all_runs_before_it() -> None:
    first = after(2, "schedule.steps=4")
    second = after(3, "schedule.steps=5", of=first)
    assert second.optimizer.first_step == 20 + 12
    assert second.data.first_sequence == first.data.first_sequence + 3 * 4 * 8 * 2
    assert second.steps_before(second.schedule.epochs) >= 60


@pytest.mark.parametrize(
    ("given", "path", "value"),
    [
        ("layout.stages=2", "layout.cuts", (2, 2)),
        ("layout.stages=3", "layout.cuts", (2, 1, 1)),
        ("layout.stages=4", "schedule.credit", 5),
        ("layout.replicas=2", "outer.momentum", 0.9),
        ("optimizer.kind=adamw", "optimizer.lr", 0.001),
        ("optimizer.lr=0.1", "optimizer.lr", 0.1),
        ("schedule.epochs=9", "schedule.epochs", 9),
        ("optimizer.first_step=0", "optimizer.first_step", 0),
        ("data.first_sequence=7", "data.first_sequence", 7),
        ("audit.ops=5", "audit.burn", 0.25),
    ],
)
def test_what_is_given_counts_and_what_followed_from_its_old_value_is_proposed_anew(
    given: str, path: str, value: object
) -> None:
    section, _, name = path.partition(".")
    assert getattr(getattr(after(2, given), section), name) == value


def test_a_value_without_an_effect_in_the_earlier_run_does_not_contradict_the_new_one() -> None:
    old = make_spec(from_assignments(["boundary.codec=identity", "model.preset=nano-20m"]), MANIFEST, 257)
    assert after(1, "schedule.epochs=2", of=old).boundary.codec == "identity"
    assert after(1, "boundary.codec=identity").boundary.codec == "identity"


def test_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.layers is 5, and the base of --from fixes the model"):
        after(1, "model.layers=5")
    with pytest.raises(ValueError, match=r"model\.preset is small"):
        after(1, "model.preset=small")


def test_the_same_values_as_before_change_nothing() -> None:
    given = [
        *("model.rope_theta=500000", "model.depth_scaled_init=true", "layout.cuts=2,1,1", "layout.stages=3"),
        *(
            "optimizer.lr=2e-3",
            "optimizer.kind=muon",
            "schedule.steps=10",
            "data.sequence_length=256",
            "seed=5",
        ),
    ]
    assert after(2, *given).id == after(2).id


@pytest.mark.parametrize("given", ["data.sequence_length=64", "seed=6"])
def test_samples_whose_reading_cannot_be_told_are_refused_unless_their_place_is_given(given: str) -> None:
    with pytest.raises(ValueError, match="which of them were read cannot be told"):
        after(1, given)
    assert after(1, given, "data.first_sequence=0").data.first_sequence == 0
    assert after(1, given, same_data=False).data.first_sequence == 0


def test_a_run_that_has_ended_goes_on_only_for_epochs_that_are_given() -> None:
    with pytest.raises(ValueError, match=r"no epoch left after base 6, of 6: give --epochs"):
        after(6)
    spec = after(6, "schedule.epochs=2")
    assert spec.optimizer.first_step == 60
    assert spec.learning_rate(1, 9) == pytest.approx(OLD.optimizer.lr * OLD.optimizer.final_lr)


def test_a_rollback_has_all_values_of_the_run_but_its_start() -> None:
    for old in (OLD, full_spec(), small_run()):
        spec = rolled_back(old, 1)
        moved = ("schedule.epochs", "optimizer.first_step", "data.first_sequence")
        assert but(spec, *moved) == {**but(old, *moved), "init": None}
        assert spec.schedule.epochs == old.schedule.epochs - 1
        assert spec.sequences_before(0) == old.sequences_before(1)
        assert spec.learning_rate(0, 0) == old.learning_rate(1, 0)
        assert spec.id != old.id


def test_a_rollback_can_leave_out_the_samples_that_were_read_since() -> None:
    spec = rolled_back(OLD, 2, skip_to=5)
    assert spec.data.first_sequence == OLD.sequences_before(5)
    assert spec.optimizer.first_step == OLD.steps_before(2)
    assert rolled_back(OLD, 2, skip_to=1).data.first_sequence == OLD.sequences_before(2)


def test_a_rollback_of_an_older_specs_run_computes_what_it_did() -> None:
    old = tiny_spec()
    assert old.version == 6
    spec = rolled_back(old, 1)
    assert spec.version == RunSpec.newest()
    assert spec.model.depth_scaled_init == old.model.depth_scaled_init
    assert spec.optimizer.moments == old.optimizer.moments
