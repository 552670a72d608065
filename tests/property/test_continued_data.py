"""Runs that go on from each other read each sequence as often as one run would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from iota.data.sample import sample_index
from iota.data.samples import drawn_sequences
from iota.model.proposal import make_spec
from iota.spec import RunSpec
from iota.spec.continuation import continued, rolled_back
from iota.spec.draft import Draft
from tests.support.small_runs import small_run

schedules = st.fixed_dictionaries(
    {
        "schedule": st.fixed_dictionaries(
            {
                "epochs": st.integers(1, 4),
                "steps": st.integers(1, 4),
                "microbatches": st.integers(2, 5),
                "heldout": st.just(0),
            }
        ),
        "data": st.fixed_dictionaries({"sequences": st.integers(1, 3)}),
        "layout": st.fixed_dictionaries({"replicas": st.integers(1, 2)}),
    }
)


def read(spec: RunSpec, count: int, epochs: int) -> Iterator[int]:
    """The sequences that the first epochs of a run train on, in order."""
    for epoch in range(epochs):
        for step in range(spec.schedule.steps):
            for index in range(spec.schedule.microbatches):
                drawn = drawn_sequences(spec, epoch, step, index, count=count, heldout_count=0)
                yield from drawn.numbers


def after(spec: RunSpec, epoch: int, draft: Draft) -> RunSpec:
    return make_spec(continued(spec, epoch, draft, same_data=True), "0" * 64, 2)


@given(
    runs=st.lists(st.tuples(schedules, st.integers(0, 4)), min_size=1, max_size=3), count=st.integers(1, 90)
)
@settings(max_examples=60, deadline=None)
def test_continued_runs_read_every_sequence_once_a_pass(runs: list[tuple[Draft, int]], count: int) -> None:
    spec = small_run(seed=3)
    whole = list(read(spec, count, 1))
    epoch = 1
    for draft, further in runs:
        spec = after(spec, epoch, draft)
        epoch = min(further, spec.schedule.epochs)
        whole += read(spec, count, epoch)
    assert whole == [sample_index(spec.seed, place, count) for place in range(len(whole))]
    often = Counter(whole)
    assert max(often.values()) - min((often[n] for n in range(count)), default=0) <= 1


@given(steps=st.integers(1, 4), epoch=st.integers(0, 3), begun=st.integers(0, 4), count=st.integers(1, 90))
@settings(max_examples=60, deadline=None)
def test_a_rollback_reads_what_its_base_has_not_and_with_skip_nothing_that_the_run_has(
    steps: int, epoch: int, begun: int, count: int
) -> None:
    old = small_run(schedule={"epochs": 4, "steps": steps})
    assert (
        list(read(rolled_back(old, epoch), count, 4 - epoch))
        == list(read(old, count, 4))[epoch * steps * 3 * 2 :]
    )
    skipping = rolled_back(old, epoch, skip_to=begun)
    first = max(epoch, begun) * steps * 3 * 2
    places = range(first, first + (4 - epoch) * steps * 3 * 2)
    assert list(read(skipping, count, 4 - epoch)) == [sample_index(old.seed, n, count) for n in places]
