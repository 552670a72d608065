"""What a validator does with fails of others: it re-executes them, and the coordinator waits for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iota.client.orchestrator import OrchestratorClient
from iota.protocol.events import Accusation, AuditsClosed
from iota.protocol.messages import AuditKind, AuditsDone, Outcome, Reveal, Role, Verdict
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind
from iota.protocol.verdicts import PAGE, FiledVerdict
from orchestrator.coordinator.auditing import MAX_ACCUSATIONS, _close, awaited
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.verdict_log import PublicVerdicts, VerdictLog
from tests.support.coordinators import Driven
from tests.support.orchestrators import orchestrator
from tests.support.samples import VERDICT
from tests.support.sealed_runs import sealed_run
from tests.support.validator_shells import OTHER, Shell, drawn, of_draw, opened, run, work
from validator.core import jobs
from validator.core.accusations import MAX_EXAMINED
from validator.core.facts import RecordBroken, RecordGone
from validator.core.results import EvidenceMissing, ReplayMismatch
from validator.core.tasks import segment_seqs


class Unforeseen(Exception):
    """No part of the validator knows this one."""


def verdict(miner: Member, seq: int, outcome: Outcome = Outcome.FAIL) -> Verdict:
    return Verdict(epoch=0, miner=miner.hotkey, audit=AuditKind.OP, outcome=outcome, seq=seq, profile="exact")


def two_validators() -> tuple[Driven, Member, Member, Member]:
    driven, miner, first = sealed_run()
    second = driven.join(10, Role.VALIDATOR)
    driven.say(second, reports=[Reveal(epoch=0, link="2" * 64)])
    return driven, miner, first, second


def told(driven: Driven, member: Member) -> list[Accusation]:
    events = driven.coordinator.events_after(member.hotkey, 0)
    return [event for _, event in events if isinstance(event, Accusation)]


# ---- the coordinator ---------------------------------------------------------------------------


def test_a_fail_is_told_to_the_others_who_are_not_done_before_they_have_heard_of_it() -> None:
    driven, miner, author, other = two_validators()
    driven.say(other, reports=[AuditsDone(epoch=0)])
    assert other.hotkey in driven.state.epochs[0].done
    accusing = [verdict(miner, 1), verdict(miner, 2, Outcome.UNDELIVERED), verdict(miner, 3, Outcome.PASS)]
    driven.say(author, reports=accusing)
    assert [(a.validator, a.verdict) for a in told(driven, other)] == [
        (author.hotkey, accusing[0]),
        (author.hotkey, accusing[1]),
    ]
    assert told(driven, author) == []
    # Said before it heard of the second one: it says it again once it has.
    driven.say(other, reports=[AuditsDone(epoch=0, accusations=1)])
    assert other.hotkey not in driven.state.epochs[0].done
    driven.say(other, reports=[AuditsDone(epoch=0, accusations=2)])
    assert other.hotkey in driven.state.epochs[0].done


def test_who_reveals_its_link_later_is_told_what_was_filed_before() -> None:
    driven, miner, author = sealed_run()
    driven.say(author, reports=[verdict(miner, 1)])
    late = driven.join(10, Role.VALIDATOR)
    assert told(driven, late) == []
    driven.say(late, reports=[Reveal(epoch=0, link="2" * 64)])
    assert len(told(driven, late)) == 1


def test_the_audits_of_an_epoch_wait_for_no_validator_that_joined_after_its_seal() -> None:
    driven, _, author = sealed_run()
    driven.join(10, Role.VALIDATOR)
    assert awaited(driven.state, driven.state.epochs[0]) == [author.hotkey]
    driven.say(author, reports=[AuditsDone(epoch=0)])
    assert awaited(driven.state, driven.state.epochs[0]) == []


def test_a_validator_that_fails_everybody_costs_the_others_a_bounded_number_of_events() -> None:
    driven, _, author, other = two_validators()
    for miner in driven.state.miners():
        driven.say(author, reports=[verdict(miner, seq) for seq in range(1, 60)])
    assert len(told(driven, other)) == MAX_ACCUSATIONS


def test_verdicts_stay_public_for_a_window_after_the_audits_closed() -> None:
    driven, miner, author = sealed_run()
    driven.say(author, reports=[verdict(miner, seq, Outcome.PASS) for seq in range(1, 4)])
    open_now = driven.coordinator.public_verdicts(0)
    assert open_now is not None
    assert (open_now.closed, open_now.links, open_now.log.count) == (False, {author.hotkey: "1" * 64}, 3)
    assert driven.coordinator.public_verdicts(1) is None
    _close(driven.state, 0, driven.state.epochs[0])
    closed = driven.coordinator.public_verdicts(0)
    assert closed is not None
    assert (closed.closed, closed.log.page(0)) == (True, open_now.log.page(0))
    published = driven.state.audits.published
    for epoch in range(1, driven.state.spec.audit.window + 1):
        published[epoch] = replace(published[0])
        later = driven.state.epochs[epoch] = EpochState(epoch)
        _close(driven.state, epoch, later)
    assert driven.coordinator.public_verdicts(0) is None


def test_a_whole_page_of_verdicts_is_packed_and_reads_the_same() -> None:
    _, miner, author = sealed_run()
    log, filed = VerdictLog(), []
    for seq in range(1, 2 * PAGE + 4):
        filed.append(FiledVerdict(validator=author.hotkey, verdict=verdict(miner, seq)))
        log.append(author.hotkey, filed[-1].verdict)
    pages = [log.page(number) for number in range(4)]
    assert [len(page) for page in pages] == [PAGE, PAGE, 3, 0]
    assert [FiledVerdict.model_validate_json(line) for page in pages for line in page] == filed


# ---- the validator's core ----------------------------------------------------------------------


def own_op(shell: Shell, stage: int = 0) -> int:
    """The seq of an op of a miner that this validator's draw leaves out."""
    sealed = run()[1][0]
    hotkey = run()[0].miners[stage].hotkey
    named = {name for _, miner, name in drawn(0) if miner == hotkey}
    return next(r.seq for r in sealed.auditable(hotkey) if f"op:{r.seq}" not in named)


def test_a_fail_of_another_is_re_executed_before_the_audits_are_done() -> None:
    shell = opened()
    seq = own_op(shell)
    shell.accuse(seq)
    work(shell)
    filed = shell.kept[0, run()[0].miners[0].hotkey, f"op:{seq}"]
    assert filed.result.outcome is Outcome.PASS
    assert (shell.done, shell.settled) == ([0], {0: 1})


def test_a_fail_that_comes_after_the_audits_were_done_is_re_executed_while_they_are_open() -> None:
    shell = opened()
    work(shell)
    seq = own_op(shell)
    shell.accuse(seq)

    asked: list[type[jobs.Job]] = []

    def differs(job: jobs.Job) -> object:
        asked.append(type(job))
        return ReplayMismatch(seq, "a", "b", "off") if isinstance(job, jobs.ReplayOp) else shell.good(job)

    work(shell, differs)
    assert shell.kept[0, run()[0].miners[0].hotkey, f"op:{seq}"].result.outcome is Outcome.FAIL
    assert (shell.done, shell.settled) == ([0, 0], {0: 1})
    # Whoever keeps bundles begins an epoch with its record, and then hears its block's hash.
    assert asked[:2] == [jobs.FetchRecord, jobs.AwaitBlock]


def undrawn_merge() -> tuple[int, int]:
    """(number of a miner, the seq of a merge of it) that this validator's draw leaves out."""
    sealed, names = run()[1][0], {(miner, name) for _, miner, name in drawn(0)}
    return next(
        (number, receipt.seq)
        for number, miner in enumerate(run()[0].miners)
        for receipt in sealed.receipts[miner.hotkey]
        if receipt.kind is OpKind.MERGE and (miner.hotkey, f"merge:{receipt.seq}") not in names
    )


@pytest.mark.parametrize("true", [True, False])
def test_a_merge_that_another_fails_is_merged_again(true: bool) -> None:
    shell = opened()
    number, seq = undrawn_merge()
    shell.accuse(seq, stage=number, audit=AuditKind.MERGE)

    def merged(job: jobs.Job) -> object:
        return jobs.Remade("0" * 64, {}) if true and isinstance(job, jobs.ReplayMerge) else shell.good(job)

    work(shell, merged)
    filed = shell.kept[0, run()[0].miners[number].hotkey, f"merge:{seq}"]
    assert filed.result.outcome is (Outcome.FAIL if true else Outcome.PASS)
    seq = own_op(shell)
    shell.accuse(seq)
    work(shell)
    examined = (0, run()[0].miners[0].hotkey, f"op:{seq}") in shell.kept
    assert examined is true, "who was refuted is examined no further"


def test_a_base_that_another_fails_is_made_again_and_no_base_that_there_is_not() -> None:
    shell = opened()
    stage = next(s for s in range(3) if not any(n == f"base:{s}" for _, _, n in bases_of_draw()))
    shell.accuse(stage, stage=stage, audit=AuditKind.BASE)
    shell.accuse(7, stage=stage, audit=AuditKind.BASE, outcome=Outcome.UNDELIVERED)
    work(shell, lambda job: "0" * 64 if isinstance(job, jobs.RemakeBase) else shell.good(job))
    maker = run()[1][0].next_base(stage).makers[0]  # type: ignore[union-attr]
    assert shell.kept[0, maker, f"base:{stage}"].result.outcome is Outcome.FAIL
    assert not any(name == "base:7" for _, _, name in shell.kept)


def bases_of_draw() -> set[tuple[int, str, str]]:
    """What a validator files of the next base without an accusation."""
    shell = opened()
    work(shell)
    return {name for name in shell.kept if name[2].startswith("base:")}


def test_a_fail_that_comes_after_the_close_is_not_looked_at() -> None:
    shell = opened()
    work(shell)
    shell.on_event(AuditsClosed(epoch=0))
    work(shell)
    before = dict(shell.kept)
    shell.accuse(own_op(shell))
    assert (shell.job, shell.kept) == (None, before)


def test_what_was_audited_already_and_what_is_not_signed_or_not_there_is_not_re_executed() -> None:
    shell = opened()
    work(shell)
    name = next(name for _, miner, name in drawn(0) if miner == run()[0].miners[0].hotkey and "op" in name)
    before = dict(shell.kept)
    shell.accuse(int(name.split(":")[1]))
    shell.accuse(own_op(shell), signed=False)
    shell.accuse(1, audit=AuditKind.RECORDS)
    assert shell.job is None
    shell.accuse(10**6)
    work(shell)
    assert (shell.kept, shell.settled) == (before, {0: 4})


def test_who_was_refuted_is_examined_no_further_and_an_other_author_still_is() -> None:
    shell = opened()
    work(shell, until=lambda: len(shell.kept) == len(drawn(0)))
    sealed, hotkey = run()[1][0], run()[0].miners[0].hotkey
    named = {name for _, miner, name in drawn(0) if miner == hotkey}
    seqs = [r.seq for r in sealed.auditable(hotkey) if f"op:{r.seq}" not in named]
    for seq in seqs[:6]:
        shell.accuse(seq)
    shell.accuse(seqs[6], author=run()[0].miners[1].hotkey)
    work(shell)
    examined = of_draw(shell.kept) - drawn(0)
    assert len(examined) == 2
    assert (0, hotkey, f"op:{seqs[6]}") in examined
    assert shell.settled == {0: 7}


def test_no_author_has_more_re_executed_than_the_cap() -> None:
    shell = opened()
    hotkey = run()[0].miners[0].hotkey
    for receipt in run()[1][0].auditable(hotkey):
        shell.accuse(receipt.seq, outcome=Outcome.UNDELIVERED)
    work(shell)
    assert 0 < len(of_draw(shell.kept) - drawn(0)) <= MAX_EXAMINED
    assert shell.settled[0] == len(run()[1][0].auditable(hotkey))
    assert OTHER not in run()[1][0].miners


def test_a_validator_that_starts_again_answers_what_it_examined_before() -> None:
    shell = opened()
    shell.accuse(own_op(shell))
    work(shell)
    before = dict(shell.kept)
    shell.restart()
    assert (shell.job, shell.kept, shell.settled) == (None, before, {0: 1})


def test_an_error_of_the_program_in_an_examination_decides_nothing_and_ends_nothing() -> None:
    shell = opened()
    work(shell)
    seq = own_op(shell)
    shell.accuse(seq)

    def fails(job: jobs.Job) -> object:
        return Unforeseen("a bug") if isinstance(job, jobs.ReplayOp) else shell.good(job)

    work(shell, fails)
    filed = shell.kept[0, run()[0].miners[0].hotkey, f"op:{seq}"].result
    assert (filed.outcome, filed.reason) == (Outcome.INCONCLUSIVE, "internal error: Unforeseen: a bug")
    assert (shell.done, shell.settled, len(shell.internal)) == ([0, 0], {0: 1}, 1)


def test_an_accuser_costs_a_miner_nothing_by_naming_what_the_store_lost() -> None:
    shell = opened()

    def gone(job: jobs.Job) -> object:
        return EvidenceMissing("gone") if isinstance(job, jobs.FetchTokens) else shell.good(job)

    shell.accuse(own_op(shell))
    work(shell, gone)
    drawn_ops = {name for name in drawn(0) if name[2].startswith("op:")}
    outcomes = {name: filed.result.outcome for name, filed in shell.kept.items() if "op:" in name[2]}
    assert {name for name, outcome in outcomes.items() if outcome is Outcome.UNSHOWN} == drawn_ops
    assert outcomes.keys() > drawn_ops


@pytest.mark.parametrize("error", [Unforeseen("a bug"), RecordGone(), RecordBroken("it changed", None)])
def test_accusations_are_passed_over_once_where_the_record_cannot_be_had_again(error: Exception) -> None:
    shell = opened()
    work(shell)
    before = dict(shell.kept)
    shell.accuse(own_op(shell))
    asked = 0

    def gone(job: jobs.Job) -> object:
        nonlocal asked
        asked += isinstance(job, jobs.FetchRecord)
        return error if isinstance(job, jobs.FetchRecord) else shell.good(job)

    work(shell, gone)
    assert (asked, shell.kept, shell.settled) == (1, before, {0: 1})


def test_accusations_that_are_left_at_the_deadline_are_passed_over() -> None:
    shell = opened()
    work(shell)
    shell.accuse(own_op(shell))
    work(shell, until=lambda: shell.job is not None and isinstance(shell.job.job, jobs.ReplayOp))
    shell.wake()
    work(shell)
    assert (shell.job, shell.settled) == (None, {0: 1})


def test_after_the_deadline_no_snapshot_is_waited_for_because_of_an_accusation() -> None:
    shell = opened()
    seq = segment_seqs(run()[1][0], run()[0].miners[2].hotkey)[-1]
    shell.accuse(seq, stage=2, audit=AuditKind.SEGMENT)
    work(shell, until=lambda: len(shell.kept) == 1)
    shell.wake()
    for _ in range(20):
        if shell.job is not None:
            shell.answer(shell.good(shell.job.job))  # no snapshot ever comes
        elif shell.core.wake_at is not None and not shell.settled.get(0):
            shell.wake()
    assert (shell.job, shell.settled) == (None, {0: 1})


# ---- the call ----------------------------------------------------------------------------------


async def test_anyone_reads_the_verdicts_of_an_epoch_page_by_page_and_checks_them(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "journal") as running:
        coordinator = running.coordinator
        log = VerdictLog()
        for seq in range(1, PAGE + 3):
            log.append(OTHER, VERDICT.model_copy(update={"seq": seq}))
        coordinator.state.audits.filed[7] = PublicVerdicts(7, True, {OTHER: "1" * 64}, log)
        async with OrchestratorClient(None, running.url) as nobody:
            pages = [await nobody.verdicts(7, number) for number in range(3)]
            assert [len(page.verdicts) for page in pages] == [PAGE, 2, 0]
            assert (pages[0].closed, pages[0].total, pages[0].links) == (True, PAGE + 2, {OTHER: "1" * 64})
            assert pages[1].verdicts[0].verdict.seq == PAGE + 1
            with pytest.raises(Problem) as refused:
                await nobody.verdicts(8, 0)
            assert refused.value.type is ProblemType.NOT_FOUND
