"""The validator's core reads the record before one that has own starts, whatever it has read before."""

from __future__ import annotations

from copy import copy
from functools import cache

import pytest

from iota.protocol.merges import LeftOut
from iota.protocol.messages import Outcome
from iota.protocol.records import LeftOutRecord
from iota.spec import AuditSpec
from tests.support import validator_shells
from tests.support.overlapping_runs import OverlappingWorld
from tests.support.small_runs import small_run
from tests.support.validator_shells import Shell, work
from validator.core import jobs
from validator.core.facts import TransportFailed
from validator.core.sealed import SealedEpoch

EPOCHS = 2


@cache
def overlapping() -> tuple[OverlappingWorld, dict[int, SealedEpoch]]:
    audit = AuditSpec(commit_every=2, window_steps=1, extra_every=1, deadline_s=100.0)
    spec = small_run(outer={"overlap": "one_epoch"}, schedule={"epochs": EPOCHS}, audit=audit)
    world, sealed = OverlappingWorld(spec), {}
    for epoch in range(EPOCHS):
        record = world.train(epoch)
        receipts = {miner.hotkey: world.of_epoch(epoch, miner) for miner in world.miners}
        sealed[epoch] = SealedEpoch(spec, record, world.plans[epoch], receipts)
    return world, sealed


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(validator_shells, "run", overlapping)
    return Shell()


def _outcomes(shell: Shell, epoch: int) -> set[Outcome]:
    return {filed.result.outcome for (number, *_), filed in shell.kept.items() if number == epoch}


def test_who_begins_with_a_later_epoch_fetches_the_record_before_it(shell: Shell) -> None:
    asked = []

    def answer(job: jobs.Job) -> object:
        asked.append(job)
        return shell.good(job)

    shell.on_event(overlapping()[0].seal_of(1))
    work(shell, answer)
    assert jobs.FetchPast(0) in asked
    assert _outcomes(shell, 1) == {Outcome.PASS}


def test_who_has_audited_the_epoch_before_fetches_nothing_again(shell: Shell) -> None:
    for epoch in range(EPOCHS):
        shell.on_event(overlapping()[0].seal_of(epoch))
        work(
            shell,
            lambda job: pytest.fail("asked again") if isinstance(job, jobs.FetchPast) else shell.good(job),
        )
        assert _outcomes(shell, epoch) == {Outcome.PASS}


def test_nobody_is_held_to_an_own_start_by_one_record_alone(shell: Shell) -> None:
    """An orchestrator that could make one up would have honest miners fail."""
    away = TransportFailed("nobody answers")
    shell.on_event(overlapping()[0].seal_of(1))
    work(shell, lambda job: away if isinstance(job, jobs.FetchPast) else shell.good(job))
    assert _outcomes(shell, 1) == {Outcome.INCONCLUSIVE}
    assert {name for _, _, name in shell.kept} == {"seal"}


def test_two_records_that_contradict_each_other_charge_no_miner(shell: Shell) -> None:
    world, sealed = overlapping()
    before, one = copy(sealed[0]), world.miners[1].hotkey
    out = LeftOutRecord(miner=one, stage=1, why=LeftOut.MISSING, parts=())
    before.record = before.record.model_copy(update={"left_out": (out,)})
    past = (world.seal_of(0), before)
    shell.on_event(world.seal_of(1))
    work(shell, lambda job: past if isinstance(job, jobs.FetchPast) else shell.good(job))
    [reason] = {filed.result.reason for filed in shell.kept.values()}
    assert reason.startswith(f"{one} begins with another pseudo-gradient than the last merge has of it")
