"""A run's id names it; nothing that is computed depends on it."""

from __future__ import annotations

from tests.support.small_runs import EnginePipeline, assert_same_bits, small_run


def test_runs_that_differ_in_name_alone_have_other_ids_and_the_same_losses_and_weights() -> None:
    first, second = EnginePipeline(small_run(name="one")), EnginePipeline(small_run(name="two"))
    for pipeline in (first, second):
        pipeline.run_steps(0)
    assert first.spec.id != second.spec.id
    assert first.losses == second.losses
    assert_same_bits(first.states(), second.states())
