"""Segments are drawn once a window by a public rule, and nobody knows which before the seal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.model.audit_rates import window_draws
from iota.spec import AuditSpec, RunSpec
from tests.support.small_runs import small_run
from validator.core.segments import (
    Drawable,
    Turn,
    has_turn,
    is_certain,
    own_segment,
    public_turns,
    window_start,
)

MINERS = ("a", "b")


def spec_of(steps: int, every: int, window: int, epochs: int = 12) -> RunSpec:
    audit = AuditSpec(commit_every=every, window_steps=window, extra_every=3)
    return small_run(schedule={"steps": steps, "epochs": epochs}, audit=audit)


specs = st.builds(spec_of, st.integers(1, 12), st.integers(1, 5), st.integers(1, 40), st.integers(1, 15))


def hashes(salt: int) -> Callable[[int], str]:
    return lambda epoch: f"{(salt + 1) * 1_000_003 * (epoch + 1):064x}"


def drawable(spec: RunSpec, salt: int, segments: int) -> Callable[[int], Drawable | None]:
    block = hashes(salt)
    return lambda epoch: Drawable(block(epoch), dict.fromkeys(MINERS, segments))


def drawn(spec: RunSpec, known: Callable[[int], Drawable | None], miner: str) -> dict[int, tuple[Turn, ...]]:
    return {epoch: public_turns(spec, epoch, miner, known) for epoch in range(spec.schedule.epochs)}


@given(specs, st.integers(0, 10**6), st.integers(1, 12))
def test_each_window_has_a_drawn_epoch_of_every_miner_with_one_segment_a_stratum(
    spec: RunSpec, salt: int, segments: int
) -> None:
    strata = min(segments, max(1, spec.schedule.steps // spec.audit.window_steps))
    for miner in MINERS:
        turns = drawn(spec, drawable(spec, salt, segments), miner)
        windows: dict[int, list[tuple[Turn, ...]]] = {}
        for epoch, found in turns.items():
            windows.setdefault(window_start(spec, epoch), []).extend([found] if found else [])
        assert all(windows.values()), windows
        for found in (found for each in windows.values() for found in each):
            assert [segments * n // strata <= turn.at for n, turn in enumerate(found)] == [True] * strata
            assert [turn.at < segments * (n + 1) // strata for n, turn in enumerate(found)] == [True] * strata


@given(specs, st.integers(0, 10**6), st.integers(1, 12), st.sets(st.integers(0, 14)))
def test_who_does_not_know_epochs_before_draws_at_least_what_others_draw(
    spec: RunSpec, salt: int, segments: int, unknown: set[int]
) -> None:
    known = drawable(spec, salt, segments)
    for epoch in range(spec.schedule.epochs):
        less = public_turns(spec, epoch, "a", lambda n, at=epoch: None if n in unknown - {at} else known(n))
        assert set(public_turns(spec, epoch, "a", known)) <= set(less)


@given(specs, st.integers(0, 10**6), st.integers(1, 12))
def test_an_epoch_without_segments_leaves_the_draw_to_the_others_of_its_window(
    spec: RunSpec, salt: int, segments: int
) -> None:
    block, length = hashes(salt), spec.window_epochs

    def known(epoch: int) -> Drawable:
        return Drawable(block(epoch), {} if epoch % length == 0 else {"a": segments})

    turns = drawn(spec, known, "a")
    for first in range(0, spec.schedule.epochs, length):
        window = range(first, min(first + length, spec.schedule.epochs))
        assert any(turns[epoch] for epoch in window) == (len(window) > 1)


def test_before_its_seal_no_epoch_but_the_last_of_a_window_is_certain_and_each_is_as_likely() -> None:
    spec, epochs = spec_of(10, 5, 50, 5), [0] * 5
    for salt in range(2000):
        turns = drawn(spec, drawable(spec, salt, 2), "a")
        epochs[next(epoch for epoch, found in turns.items() if found)] += 1
    # 400 expected each, standard deviation 18: five of them
    assert all(abs(count - 400) < 90 for count in epochs), epochs


def test_after_a_draw_no_epoch_of_the_window_is_safe_and_a_window_has_as_many_draws_as_is_said() -> None:
    spec, after, draws = spec_of(10, 5, 50, 5), [0] * 5, 0
    for salt in range(2000):
        found = [epoch for epoch, turns in drawn(spec, drawable(spec, salt, 2), "a").items() if turns]
        draws += len(found)
        for epoch in found[1:]:
            after[epoch] += 1
    # Epoch n comes after a draw with a chance of n in 5, and is then drawn with one in 5.
    assert all(abs(count - 80 * epoch) < 90 for epoch, count in enumerate(after)), after
    assert draws / 2000 == pytest.approx(window_draws(spec), abs=0.08)


@given(st.integers(0, 10**6), st.sets(st.text("xyz", min_size=1, max_size=3), min_size=1, max_size=6))
def test_every_turn_is_of_exactly_one_validator_of_the_record(place: int, names: set[str]) -> None:
    validators = sorted(names)
    assert sum(has_turn(Turn(0, place), validators, name) for name in validators) == 1
    assert has_turn(Turn(0, place), validators, "who joined after the seal")


def test_the_own_draw_has_its_rate_and_names_the_same_segment_where_it_is_certain() -> None:
    spec, found = spec_of(10, 5, 50), []
    for number in range(3000):
        block, link = f"{number:064x}", f"{number + 7:064x}"
        wanted = own_segment(spec, block, link, 0, "a", 4, certain=False)
        certain = own_segment(spec, block, link, 0, "a", 4, certain=True)
        assert wanted in (None, certain)
        found += [] if wanted is None else [wanted]
    assert abs(len(found) - 1000) < 130
    assert all(abs(found.count(at) - len(found) / 4) < 75 for at in range(4))
    assert own_segment(spec, "00" * 32, "11" * 32, 0, "a", 0, certain=True) is None
    assert is_certain(spec, spec.schedule.epochs - 1, owed=False)
    assert not is_certain(spec, 0, owed=False)
    assert is_certain(spec, 0, owed=True)
