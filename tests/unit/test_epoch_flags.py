"""Flags of an epoch: what public receipts say without a replay, how often they err, and what they change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from iota.protocol.receipts import OpKind, Receipt
from tests.support.validator_shells import BLOCK_HASH, LINKS, Shell, drawn, of_draw, opened, run, work
from tests.support.virtual_records import RecordedSwarm
from tests.support.virtual_runs import tiny_spec
from validator.core import effects, jobs
from validator.core.flags import Flags, find_flags
from validator.core.op_times import OpTimes, Speeds, is_many, overlapping
from validator.core.order import audit_groups
from validator.core.route_losses import Losses, z_scores
from validator.core.sealed import SealedEpoch
from validator.core.shared_devices import FALSE_RATE, chance, shared_devices

Rng = np.random.Generator


def times(started: Any, seconds: Any, kind: OpKind = OpKind.FORWARD) -> OpTimes:
    return OpTimes.of((kind, begin, begin + took) for begin, took in zip(started, seconds, strict=True))


def changed(change: Callable[[str, Receipt], dict[str, Any]], epoch: int = 0) -> SealedEpoch:
    """A sealed epoch whose receipts have other values."""
    sealed = copy.copy(run()[1][epoch])
    sealed.receipts = {
        hotkey: tuple(receipt.model_copy(update=change(hotkey, receipt)) for receipt in chain)
        for hotkey, chain in sealed.receipts.items()
    }
    return sealed


# ---- times of one miner ------------------------------------------------------------------------------


def test_ops_of_one_miner_that_overlap_are_counted() -> None:
    assert overlapping(times([0, 1, 2, 3], [1, 1, 1, 1])) == 0
    assert overlapping(times([3, 0, 2, 1], [1, 1, 1, 1.5])) == 1
    assert overlapping(times([0, 1, 2, 3], [10, 1, 1, 1])) == 3
    assert overlapping(times([], [])) == 0


def test_a_clock_that_moved_once_flags_nobody_and_a_twentieth_of_the_ops_does() -> None:
    assert [is_many(2, 4), is_many(3, 4), is_many(4, 100), is_many(5, 100)] == [False, True, False, True]


def test_ops_above_the_fence_of_their_stage_are_too_fast_and_a_faster_card_is_not() -> None:
    rng = np.random.default_rng(0)
    rates = {name: np.log(100) + rng.normal(0, 0.02, 40) for name in "abcde"}
    rates["b"] += np.log(3)
    rates["e"][::8] += np.log(50)
    fence, above = Speeds(rates).too_fast([])
    assert above == {"e": 5}
    assert 300 < fence < 1000


def test_who_alone_has_a_stage_is_held_against_its_earlier_epochs() -> None:
    rates = np.log(100) + np.random.default_rng(0).normal(0, 0.02, 40)
    before, now = Speeds({"a": rates}), Speeds({"a": rates + np.log(50)})
    assert now.too_fast([])[1] == {}
    assert now.too_fast([before.percentiles] * 4)[1] == {"a": 40}


# ---- one device under several hotkeys ------------------------------------------------------------------


def alone(rng: Rng, count: int, gap_s: float = 1.0, spread: float | None = None) -> OpTimes:
    """A device of its own: ops of 1 s, and gaps by chance, or of one length up to `spread`."""
    took = rng.lognormal(0, spread or 0.1, count)
    gaps = rng.exponential(gap_s, count) if spread is None else gap_s * rng.lognormal(0, spread, count)
    ends = np.cumsum(took + gaps) + rng.uniform(0, 1 + gap_s)
    return times(ends - took, took)


def shared(rng: Rng, hotkeys: int, count: int, load: float) -> dict[str, OpTimes]:
    """One device that does what several hotkeys are given, one op at a time, as it comes."""
    number = hotkeys * count
    given, took = np.sort(rng.uniform(0, number / load, number)), rng.lognormal(0, 0.1, number)
    whose, started, free = rng.integers(0, hotkeys, number), np.empty(number), 0.0
    for op in range(number):
        started[op] = max(free, given[op])
        free = started[op] + took[op]
    return {f"shared {k}": times(started[whose == k], took[whose == k]) for k in range(hotkeys)}


@pytest.mark.parametrize(
    ("hotkeys", "count", "load"), [(2, 200, 0.9), (2, 200, 0.2), (4, 200, 0.9), (8, 200, 0.9)]
)
def test_hotkeys_that_share_a_device_are_found_beside_those_that_have_their_own(
    hotkeys: int, count: int, load: float
) -> None:
    rng = np.random.default_rng(1)
    sharing = shared(rng, hotkeys, count, load)
    found = shared_devices({f"own {n}": alone(rng, count) for n in range(8)} | sharing)
    assert found.keys() == sharing.keys()
    assert set(found.values()) <= sharing.keys()


@pytest.mark.parametrize("gap_s", [0.2, 1.0, 4.0, 9.0])
def test_independent_devices_are_named_no_more_often_than_is_said(gap_s: float) -> None:
    rng = np.random.default_rng(2)
    found = [chance(alone(rng, 40, gap_s), alone(rng, 40, 1.1 * gap_s)) for _ in range(1000)]
    assert sum(each < FALSE_RATE for each in found) <= 3  # 1 expected at most
    stages = [{str(n): alone(rng, 100, gap_s) for n in range(8)} for _ in range(30)]
    assert [shared_devices(replicas) for replicas in stages] == [{}] * 30


def test_two_devices_in_one_steady_rhythm_are_not_taken_for_one() -> None:
    rng = np.random.default_rng(3)
    pairs = [(alone(rng, 300, 4.0, 0.01), alone(rng, 300, 4.0, 0.01)) for _ in range(200)]
    assert sum(chance(*pair) < FALSE_RATE for pair in pairs) == 0


def test_replicas_that_a_stage_before_feeds_in_turns_are_not_flagged() -> None:
    """One op comes every 1.2 s to the next of four, so that no two are ever busy at once."""
    rng = np.random.default_rng(4)
    starts = np.arange(800) * 1.2 + rng.uniform(0, 0.1, 800)
    replicas = {str(n): times(starts[n::4], np.full(200, 0.9)) for n in range(4)}
    assert shared_devices(replicas) == {}


def test_a_stage_of_two_replicas_shows_no_shared_device() -> None:
    assert shared_devices(shared(np.random.default_rng(5), 2, 200, 0.9)) == {}


# ---- losses by route -----------------------------------------------------------------------------------


def losses(
    rng: Rng, *, bad: int | None = None, more: float = 0.02, chains: bool = False, joined: int = 0
) -> Losses:
    """3 stages of 4 replicas, 20 steps of 100 microbatches; each loss has 8 % noise on a falling curve.

    Args:
        bad: a miner whose microbatches have `more` loss.
        chains: route r is of the r-th replicas of all stages.
        joined: miner 0 has no work before this step.
    """
    steps = np.repeat(np.arange(20), 100)
    route = rng.integers(0, 4, (2000, 1 if chains else 3)).repeat(3 if chains else 1, axis=1)
    carriers = route + 4 * np.arange(3)
    early = steps < joined
    carriers[early, 0] = np.where(carriers[early, 0] == 0, 1, carriers[early, 0])
    values = (3 + 4 * np.exp(-steps / 5)) * (1 + rng.normal(0, 0.08, 2000))
    values *= 1 + more * (carriers == bad).any(axis=1)
    return Losses([str(n) for n in range(12)], values, steps, carriers)


def test_who_adds_two_percent_to_the_loss_is_flagged_and_the_honest_at_the_stated_rate() -> None:
    rng = np.random.default_rng(6)
    found = [z_scores(losses(rng, bad=5)) for _ in range(100)]
    assert sum(scores["5"] > 3 for scores in found) >= 90
    honest = [z > 3 for scores in found for miner, z in scores.items() if miner != "5"]
    honest += [z > 3 for _ in range(200) for z in z_scores(losses(rng)).values()]
    assert len(honest) == 1100 + 2400
    assert sum(honest) <= 12  # 5 expected at 0.14 %


def test_who_joins_late_in_a_falling_loss_is_neither_good_nor_bad() -> None:
    scores = [z_scores(losses(np.random.default_rng(seed), joined=10))["0"] for seed in range(50)]
    assert abs(np.mean(scores)) < 0.5
    assert np.std(scores) < 1.3


def test_a_chain_that_always_works_together_is_flagged_as_a_whole() -> None:
    scores = z_scores(losses(np.random.default_rng(7), bad=5, more=0.1, chains=True))
    assert {miner for miner, z in scores.items() if z > 3} == {"1", "5", "9"}


def test_absurd_losses_flag_who_names_them_and_not_those_before_it() -> None:
    hostile = losses(np.random.default_rng(8))
    hostile.values[hostile.carriers[:, 2] == 9] = 1000.0
    assert {miner for miner, z in z_scores(hostile).items() if z > 3} == {"9"}


def test_a_miner_that_is_alone_in_its_stage_or_carried_little_is_not_judged() -> None:
    all_of = losses(np.random.default_rng(9), bad=5)
    all_of.carriers[:, 0] = 0
    all_of.carriers[:, 2] = np.where(np.arange(2000) < 9, 8, 9)
    assert z_scores(all_of).keys() == {"4", "5", "6", "7", "9"}
    assert z_scores(Losses((), np.empty(0), np.empty(0, np.int64), np.empty((0, 3), np.int64))) == {}


def test_beyond_the_largest_regression_each_miner_is_held_against_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("validator.core.route_losses.MAX_COLUMNS", 11)
    scores = z_scores(losses(np.random.default_rng(10), bad=5, more=0.05))
    assert {miner for miner, z in scores.items() if z > 3} == {"5"}


# ---- an epoch ------------------------------------------------------------------------------------------


def test_made_up_times_are_flagged_with_their_reasons() -> None:
    first, second, _ = run()[1][0].miners

    def change(hotkey: str, receipt: Receipt) -> dict[str, Any]:
        if hotkey == first:
            return {"started": 1e6, "ended": 1e6 + 1.0}
        began = 1000.0 * receipt.seq
        return {"started": began, "ended": began if hotkey == second else began + 1.0}

    before = find_flags(changed(lambda hotkey, receipt: change("", receipt)), {})
    assert before.reasons == {}
    reasons = find_flags(changed(change), dict.fromkeys(range(4), before.rates)).reasons
    assert reasons.keys() == {first, second}
    assert "overlap" in reasons[first]
    assert "FLOPs a second" in reasons[second]


def test_an_honest_swarm_in_virtual_time_has_no_flag() -> None:
    spec = tiny_spec(stages=2, replicas=4, epochs=1, steps=4, microbatches=32, pipeline="sync", credit=4)  # type: ignore[arg-type]
    swarm = RecordedSwarm(spec, 1)
    for _ in range(8):
        swarm.add_miner()
    swarm.run(swarm.look, limit_s=20_000.0)
    assert {epoch: find_flags(sealed, {}).reasons for epoch, sealed in swarm.sealed.items()} == {0: {}}


def test_who_is_flagged_is_audited_first_and_owed_audits_come_before() -> None:
    sealed = run()[1][0]
    first, second, third = sealed.miners
    for flagged in (first, second, third):
        order = list(audit_groups(sealed, BLOCK_HASH, LINKS.link(0), {third}, {flagged}))
        assert order[0] == third
        assert flagged in order[:2]


def test_flags_are_logged_in_one_line_and_said_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    miner = next(iter(run()[1][0].miners))
    shell, said, logged = flagging(Flags({miner: "its ops overlap"}, {}), monkeypatch)
    assert [text for text in logged if miner in text and "overlap" in text] == [
        f"epoch 0: audited first, which says nothing of their guilt: {miner} (its ops overlap)"
    ]
    assert not any("overlap" in report for report in said)
    assert of_draw(shell.kept) == drawn(0)
    assert next(iter(shell.kept))[1] == miner


def test_the_log_names_so_many_and_counts_the_others() -> None:
    line = str(Flags({f"m{n:02}": "why" for n in range(25)}, {}))
    assert line.startswith("m00 (why), m01 (why), ")
    assert line.endswith("m19 (why), and 5 more")


def test_an_error_in_the_flags_is_counted_and_every_audit_is_done() -> None:
    shell = opened()
    error = np.linalg.LinAlgError("singular")
    work(shell, lambda job: error if isinstance(job, jobs.FindFlags) else shell.good(job))
    assert shell.internal == {(0, "its flags")}
    assert of_draw(shell.kept) == drawn(0)
    assert shell.done == [0]


def test_rates_of_earlier_epochs_are_kept_for_the_window() -> None:
    shell, given = opened(), []

    def answer(job: jobs.Job) -> object:
        if isinstance(job, jobs.FindFlags):
            given.append(set(job.past))
        return shell.good(job)

    shell.on_event(run()[0].seal_of(1))
    work(shell, answer)
    assert given == [set(), {0}]


def flagging(flags: Flags, monkeypatch: pytest.MonkeyPatch) -> tuple[Shell, list[str], list[str]]:
    """A shell whose epoch has these flags, with all that it reports and all that it logs."""
    said: list[str] = []
    logged: list[str] = []
    perform = Shell._perform

    def noted(shell: Shell, effect: effects.Effect) -> None:
        if isinstance(effect, effects.Say):
            said.append(repr(effect.report))
        if isinstance(effect, effects.Log):
            logged.append(effect.text)
        perform(shell, effect)

    monkeypatch.setattr(Shell, "_perform", noted)
    shell = opened()
    work(shell, lambda job: flags if isinstance(job, jobs.FindFlags) else shell.good(job))
    return shell, said, logged
