"""The validator's core, fact by fact: what it fetches, audits, files and reports, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import pytest

from iota.protocol.events import AuditsClosed, RunEnd
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import Outcome
from tests.support.validator_shells import EPOCHS, Shell, drawn, of_draw, opened, run, work
from validator.core import jobs
from validator.core.core import FILING_SHARE
from validator.core.deliveries import Piece
from validator.core.facts import RecordBroken, RecordGone, TransportFailed
from validator.core.flags import find_flags
from validator.core.results import EvidenceMissing, Profile, Undelivered
from validator.core.sealed import SealedEpoch

DEADLINE_S = 100.0


def outcomes(shell: Shell) -> set[tuple[Outcome, str]]:
    return {(filed.result.outcome, filed.result.reason) for filed in shell.kept.values()}


def runs(shell: Shell, kind: type[jobs.Job]) -> bool:
    return shell.job is not None and isinstance(shell.job.job, kind)


def test_every_drawn_audit_of_an_honest_epoch_passes_and_then_it_is_done() -> None:
    shell = opened()
    work(shell)
    assert of_draw(shell.kept) == drawn(0)
    assert outcomes(shell) == {(Outcome.PASS, "")}
    assert (shell.done, shell.audited) == ([0], {0})


def test_epochs_are_audited_in_turn_and_the_end_comes_after_the_last() -> None:
    shell = opened()
    shell.on_event(run()[0].seal_of(1))
    shell.on_event(RunEnd())
    assert not shell.ended
    work(shell)
    assert shell.done == list(range(EPOCHS))
    assert shell.ended


def _gone(shell: Shell, *, delivered: bool) -> Callable[[jobs.Job], object]:
    """The store has lost all frames. Miners deliver theirs, or other ones."""

    def answer(job: jobs.Job) -> object:
        if not isinstance(job, jobs.FetchFrame):
            return shell.good(job)
        if job.kept is None:
            return EvidenceMissing("gone")
        return shell.good(job) if delivered else Undelivered("others")

    return answer


@pytest.mark.parametrize("delivered", [True, False])
def test_frames_that_the_store_lost_are_asked_for_once_and_the_other_audits_go_on(delivered: bool) -> None:
    shell = opened()
    work(shell, _gone(shell, delivered=delivered))
    found = {(Outcome.PASS, "")} | (set() if delivered else {(Outcome.UNDELIVERED, "others")})
    assert outcomes(shell) == found
    assert shell.done == [0]
    assert EvidenceItem.FRAMES in {piece.item for _, _, piece in shell.wanted}


def test_a_base_that_the_store_lost_accuses_nobody_and_the_other_audits_go_on() -> None:
    shell = opened()

    def answer(job: jobs.Job) -> object:
        return EvidenceMissing("gone") if isinstance(job, jobs.LoadBase) else shell.good(job)

    work(shell, answer)
    assert outcomes(shell) == {(Outcome.PASS, ""), (Outcome.UNSHOWN, "gone")}
    assert shell.done == [0]


def test_what_transport_does_not_give_is_inconclusive_and_says_so() -> None:
    shell = opened()

    def answer(job: jobs.Job) -> object:
        if isinstance(job, jobs.AwaitBlock | jobs.Settle | jobs.FetchRecord):
            return shell.good(job)
        return TransportFailed("nobody answers")

    work(shell, answer)
    assert outcomes(shell) == {(Outcome.INCONCLUSIVE, "evidence cannot be fetched: nobody answers")}
    assert of_draw(shell.kept) == drawn(0)


def test_a_snapshot_that_does_not_come_in_time_is_undelivered() -> None:
    shell = opened()
    while shell.job is not None:
        shell.answer(shell.good(shell.job.job))
        for key in sorted(shell.wanted):
            if shell.job is None:
                shell.miss(key, live=True)
                shell.deliver(key)  # what was decided stands
    undelivered = [
        filed.result for filed in shell.kept.values() if "its weights of version" in filed.result.reason
    ]
    assert {result.outcome for result in undelivered} == {Outcome.UNDELIVERED}
    assert shell.done == [0]


def test_a_snapshot_of_a_worker_that_its_owner_revoked_is_a_verdict_of_its_own() -> None:
    shell, waited = opened(), False
    while shell.job is not None:
        shell.answer(shell.good(shell.job.job))
        for key in sorted(shell.wanted):
            if shell.job is None:
                waited |= shell.core.activity.endswith("it waits for the miner's evidence")
                shell.miss(key, live=False, revoked=True)
    assert waited
    revoked = [filed.result for filed in shell.kept.values() if "has revoked its key" in filed.result.reason]
    assert {result.outcome for result in revoked} == {Outcome.REVOKED}


def test_all_snapshots_are_asked_for_before_the_first_audit() -> None:
    shell = opened()
    work(shell, until=lambda: runs(shell, jobs.LoadBase))
    asked = set(shell.wanted)
    assert {miner for _, miner, _ in asked} == {miner.hotkey for miner in run()[0].miners}
    work(shell)
    assert shell.wanted == asked


def test_the_snapshots_of_a_segment_are_asked_for_before_any_replay() -> None:
    """The start, with carried moments, and the last version, for the pseudo-gradient."""
    shell = opened(1)
    work(shell, until=lambda: shell.job is not None and isinstance(shell.job.job, jobs.LoadBase))
    tasks = [name for _, miner, name in drawn(1) if name.startswith("segment:")]
    assert len(tasks) == 6  # the two segments of three miners
    assert {piece for _, _, piece in shell.wanted} >= {Piece.snapshot(version) for version in (0, 2, 3)}


def test_across_classes_a_segment_waits_for_the_state_at_its_end_before_it_is_replayed() -> None:
    shell, steps = opened(), list[tuple[int, str]]()

    def other(job: jobs.Job) -> object:
        if isinstance(job, jobs.ReplayStep):
            steps.append((job.receipt.seq, job.receipt.content_digest()))
        loads = isinstance(job, jobs.LoadBase | jobs.LoadSnapshot)
        return Profile("declared", exact=False) if loads else shell.good(job)

    work(shell, other)
    assert {outcome for outcome, _ in outcomes(shell)} == {Outcome.PASS}
    assert len(steps) == len(set(steps)) == 9, "each STEP of the three miners is replayed once"


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_undone_at_the_deadline_or_the_closing_is_inconclusive(closed: bool) -> None:
    shell = opened()
    work(shell, until=lambda: len(shell.kept) == 2)
    assert shell.job is not None
    if closed:
        shell.on_event(AuditsClosed(epoch=0))
    else:
        assert shell.core.wake_at == DEADLINE_S * FILING_SHARE
        shell.wake()
    assert runs(shell, jobs.Settle)
    assert of_draw(shell.kept) == drawn(0)
    assert outcomes(shell) == {(Outcome.PASS, ""), (Outcome.INCONCLUSIVE, "not done before the deadline")}
    work(shell)
    assert shell.done == [0]


def test_without_a_draw_before_the_deadline_there_are_no_audits() -> None:
    shell = opened()
    shell.wake()
    assert shell.job is None
    assert (shell.kept, shell.done, shell.audited) == ({}, [], set())


def test_an_epoch_that_is_closed_before_its_turn_is_left_out() -> None:
    shell = opened()
    shell.on_event(run()[0].seal_of(1))
    shell.on_event(AuditsClosed(epoch=1))
    work(shell)
    assert shell.done == [0]


def test_a_broken_record_leaves_all_its_miners_undecided() -> None:
    shell = opened()
    broken = RecordBroken("no seal " + "x" * 400, run()[1][0].record.miners)
    work(shell, lambda job: broken if isinstance(job, jobs.FetchRecord) else shell.good(job))
    assert {name for _, _, name in shell.kept} == {"seal"}
    assert {len(filed.result.reason) for filed in shell.kept.values()} == {300}
    assert (len(shell.kept), shell.done, shell.audited) == (3, [0], set())


def test_a_record_that_says_who_was_merged_before_otherwise_than_that_record_is_broken() -> None:
    world, sealed = run()
    one = world.miners[0].hotkey
    fewer = tuple(delta for delta in sealed[0].record.deltas if delta.miner != one)
    other = copy(sealed[0])
    other.record = other.record.model_copy(update={"deltas": fewer})
    shell = opened()
    work(shell, lambda job: other if isinstance(job, jobs.FetchRecord) else shell.good(job))
    shell.on_event(world.seal_of(1))
    work(shell)
    later = {filed.result.reason for (epoch, *_), filed in shell.kept.items() if epoch == 1}
    assert later == {f"{one} did not end the epoch before with the moments named"}


def _with_moments(sealed: SealedEpoch, hotkey: str, moments: str | None) -> SealedEpoch:
    miners = tuple(
        miner.model_copy(update={"moments": moments}) if miner.hotkey == hotkey else miner
        for miner in sealed.record.miners
    )
    other = copy(sealed)
    other.record = sealed.record.model_copy(update={"miners": miners})
    return other


@pytest.mark.parametrize("epoch", [0, 1])
def test_who_carries_what_is_not_the_word_of_the_record_that_says_so(epoch: int) -> None:
    """A false one would make a liar of a miner that it admitted with moments, or give a friend any."""
    world, sealed = run()
    one = world.miners[0].hotkey
    other = _with_moments(sealed[epoch], one, None if epoch else "5" * 64)
    shell = opened()
    for number in range(epoch + 1):
        if number:
            shell.on_event(world.seal_of(number))
        fetched = other if number == epoch else sealed[number]
        work(
            shell, lambda job, given=fetched: given if isinstance(job, jobs.FetchRecord) else shell.good(job)
        )
    reasons = {filed.result.reason for (number, *_), filed in shell.kept.items() if number == epoch}
    why = "contributed to the last merge, and the record has it carry no moments"
    assert reasons == {
        f"{one} {why}" if epoch else f"{one} did not end the epoch before with the moments named"
    }


def test_no_link_is_revealed_before_the_sealed_record_is_at_hand_and_the_block_is_final() -> None:
    shell = opened()
    assert runs(shell, jobs.FetchRecord)
    assert shell.revealed == set()
    shell.answer(run()[1][0])
    assert runs(shell, jobs.FindFlags)
    assert shell.revealed == set()
    shell.answer(find_flags(run()[1][0], {}))
    assert runs(shell, jobs.AwaitBlock)
    assert shell.revealed == set()
    assert shell.job is not None
    shell.answer(shell.good(shell.job.job))
    assert shell.revealed == {0}


def test_nothing_is_revealed_for_a_record_that_is_not_the_sealed_one() -> None:
    shell = opened()
    shell.answer(RecordBroken("another digest than the seal names", None))
    assert (shell.revealed, shell.kept, shell.done, shell.job) == (set(), {}, [], None)


@pytest.mark.parametrize("error", [RecordBroken("unsigned", None), RecordGone()])
def test_a_record_that_names_nobody_ends_the_epoch_in_silence(error: Exception) -> None:
    shell = opened()
    work(shell, lambda job: error if isinstance(job, jobs.FetchRecord) else shell.good(job))
    assert (shell.kept, shell.done) == ({}, [])


def test_a_restart_repeats_what_is_kept_and_audits_the_rest() -> None:
    shell = opened()
    work(shell, until=lambda: len(shell.kept) == 3)
    before = dict(shell.kept)
    shell.restart()
    work(shell)
    assert {name: shell.kept[name] for name in before} == before
    assert of_draw(shell.kept) == drawn(0) == of_draw(shell.said)


def test_a_record_that_is_broken_after_a_restart_leaves_what_was_filed_standing() -> None:
    shell = opened()
    work(shell, until=lambda: len(shell.kept) == 3)
    before = dict(shell.kept)
    shell.restart()
    broken = RecordBroken("no seal", run()[1][0].record.miners)
    work(shell, lambda job: broken if isinstance(job, jobs.FetchRecord) else shell.good(job))
    assert {name: shell.kept[name] for name in before} == before
    assert set(shell.said) == set(shell.kept)
    assert shell.done == [0]


def test_an_epoch_that_was_audited_before_is_repeated_without_a_job() -> None:
    shell = opened()
    work(shell)
    shell.restart()
    assert shell.job is None
    assert of_draw(shell.said) == drawn(0)
    assert (shell.revealed, shell.done) == ({0}, [0])
