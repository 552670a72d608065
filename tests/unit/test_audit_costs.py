"""What audits cost follows from the spec, and keeps its budget at full size with any number of validators."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.cli.main import main
from iota.model import audit_rates
from iota.model.audit_rates import COMPUTE_BUDGET, rates_within
from iota.model.proposal import make_spec
from iota.objects import snapshot_bytes
from iota.planning import audit_costs, plan_table
from iota.spec import AuditSpec, RunSpec
from iota.spec.draft import from_assignments
from tests.support.small_spec import small_spec


def proposed(model: str, *assignments: str) -> RunSpec:
    return make_spec(from_assignments([f"model.preset={model}", *assignments]), "0" * 64, 2)


def compute(spec: RunSpec) -> float:
    return audit_rates.public_compute(spec) + audit_rates.own_compute(spec) + audit_rates.op_compute(spec)


@pytest.mark.parametrize("steps", [10, 100])
@pytest.mark.parametrize("model", ["llama-1b", "llama-8b", "orion-100b"])
def test_at_full_size_audits_keep_the_budget_with_one_segment_of_every_miner_in_a_window(
    model: str, steps: int
) -> None:
    spec = proposed(model, f"schedule.steps={steps}")
    costs = plan_table(spec).audits
    assert 0.025 < costs.rates.compute == compute(spec) <= COMPUTE_BUDGET
    assert costs.rates.turn_steps <= (400 if steps == 10 else 600)
    assert costs.within == costs.rates  # no smaller windows would do
    assert spec.audit.window * steps >= 2 * costs.rates.turn_steps
    assert spec.commitments <= 11


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
def test_what_is_kept_stored_and_written_is_of_segments_alone(pipeline: str) -> None:
    spec = small_spec(optimizer={"lr": 1e-2}, schedule={"pipeline": pipeline, "steps": 10})
    largest = max(snapshot_bytes(spec, stage) for stage in range(2))
    costs = audit_costs(spec, 8.64)  # 1,000 epochs a day
    assert (costs.snapshot, costs.kept) == (largest, 2 * (3 + 1) * largest)  # one is being written
    assert costs.written_day == pytest.approx(3000 * largest)
    assert costs.stored == pytest.approx(costs.segments * 3 * largest)
    more = spec.model_copy(update={"audit": spec.audit.model_copy(update={"ops": 50})})
    dearer = audit_costs(more, 8.64)
    assert replace(dearer, rates=costs.rates, within=costs.within, fetched=costs.fetched) == costs
    assert dearer.fetched > costs.fetched
    assert dearer.rates.op_compute == pytest.approx(25 * costs.rates.op_compute)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 30),
    st.integers(0, 4),
    st.integers(1, 500),
    st.floats(0.005, 0.3),
)
def test_the_rates_within_a_budget_are_the_smallest(
    steps: int, every: int, ops: int, microbatches: int, budget: float
) -> None:
    spec = small_spec(
        optimizer={"lr": 1e-2},
        schedule={"steps": steps, "microbatches": microbatches},
        audit={"commit_every": every, "ops": ops},
    )
    found = rates_within(spec, budget)
    if found is None:
        assert audit_rates.op_compute(spec) >= budget
        return

    def with_rates(**values: int) -> RunSpec:
        return spec.model_copy(update={"audit": found.model_copy(update=values)})

    made = with_rates()
    assert compute(made) <= budget * (1 + 1e-9)
    windows, epochs = made.epoch_windows, made.window_epochs
    smaller = steps // (windows + 1) if epochs == 1 else steps * (epochs - 1)
    if smaller:
        assert compute(with_rates(window_steps=smaller)) > budget * (1 - 1e-9)


def test_given_rates_stay_and_the_score_window_holds_two_windows_of_audits() -> None:
    given = proposed("orion-100b", "audit.window_steps=50", "audit.extra_every=7", "audit.window=3")
    assert (given.audit.window_steps, given.audit.extra_every, given.audit.window) == (50, 7, 3)
    assert proposed("small", "schedule.steps=2").audit.window == 2 * 20
    assert proposed("small").audit.window == AuditSpec().window


def test_a_plan_says_what_audits_cost_and_the_rates_that_keep_the_budget(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")

    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            main(["plan", *arguments])
        return capsys.readouterr().out

    whole = said("--model", "orion-100b")
    assert "These are the smallest windows within 3% of the compute." in whole
    assert "GB a day are written to it" in whole
    dear = said("--model", "orion-100b", "--set", "audit.window_steps=40", "--set", "audit.window=5")
    assert "That is above 3% of the compute: audit.window_steps 310, audit.extra_every " in dear
    assert "leaves work out of scores before it is audited: 8 epochs would count it." in dear
    short = said("--model", "tiny", "--set", "schedule.steps=1", "--set", "schedule.microbatches=8")
    assert "single ops alone are" in short
