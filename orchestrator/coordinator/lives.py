"""The lives of a miner within an epoch: each begins with the base, and has its own receipts and versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import StateRule
from orchestrator.coordinator.epoch_state import Carried, EpochState, Life
from orchestrator.coordinator.given_ops import Given, GivenOps, Mark
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import RunState

BASES_ANEW: Final = 1
"""How often a miner may take the base anew in the middle of an epoch, within the audits' window: what it did
before can be audited in part only. Further times it takes part again from the next epoch on."""


def begin_life(run: RunState, member: Member, *, carries: bool = False) -> None:
    """The miner was admitted to the current epoch: it begins with the base, at the first open step.

    `carries`: with what it ended the epoch before with, and in a run with overlap with its own start.
    """
    epoch = run.current
    lives = epoch.lives.setdefault(member.hotkey, [])
    if lives:
        member.bases_anew = (*_recent(run, member), run.epoch)
    joined = epoch.closed_steps
    lives.append(Life(joined, member.device, joined, joined, began=run.now, carries=carries))
    member.given_receipts += 1  # the COMMIT of the base


def must_wait(run: RunState, member: Member) -> bool:
    """Whether the miner has taken the base anew too often to take part in the current epoch.

    Never where its stage has no other replica: then the run would stand still until it may.
    """
    if member.hotkey not in run.current.lives or len(_recent(run, member)) < BASES_ANEW:
        return False
    return any(run.able(other) and other.joined is not None for other in run.roster.stages[member.stage])


def _recent(run: RunState, member: Member) -> tuple[int, ...]:
    return tuple(epoch for epoch in member.bases_anew if epoch > run.epoch - run.spec.audit.window)


def give(
    run: RunState, given: GivenOps, at: tuple[int, int], attempt: int, member: Member, *, forward: bool = True
) -> None:
    """Give a microbatch at a stage, `at`, to a member of the current epoch. `forward`: with its FORWARD."""
    life = len(run.current.lives[member.hotkey]) - 1
    given.give(at, attempt, member.order, life, Mark.NONE if forward else Mark.NO_FORWARD)
    alone = member.stage == run.spec.last_stage or run.spec.is_heldout(at[0])
    member.given_receipts += 1 if alone else 2


def given_op(epoch: EpochState, member: Member, receipt: Receipt) -> Given | None:
    """The op on a microbatch that a receipt is of; None where it was not given to this member."""
    if receipt.step >= len(epoch.steps):
        return None
    given = epoch.steps[receipt.step].given.find((receipt.microbatch, member.stage), receipt.attempt)
    return given if given is not None and given.member == member.order else None


def newest_life(lives: Sequence[Life]) -> int:
    """The newest of a miner's lives in an epoch that has receipts; the first where none has."""
    return next((index for index in reversed(range(len(lives))) if lives[index].first_receipt), 0)


def life_of(epoch: EpochState, member: Member, receipt: Receipt, lives: Sequence[Life]) -> int | None:
    """Which of the member's `lives` in the epoch ran a receipt's op; None where none was given it.

    A merge is of the newest one that has receipts, since no life need run it: it begins none, so that what an
    earlier life did may still follow. A STEP is that of the newest life that had joined by then: a life
    begins at the first step that is not closed, so it applies none that an earlier one could have applied.
    """
    if receipt.kind is OpKind.MERGE:
        return newest_life(lives) if lives else None
    if receipt.kind is OpKind.COMMIT:
        return _committing_life(lives, receipt)
    if receipt.kind is OpKind.STEP:
        return _newest_joined(lives, receipt.step)
    given = given_op(epoch, member, receipt)
    return None if given is None else given.life


def _newest_joined(lives: Sequence[Life], step: int) -> int | None:
    return next((index for index in reversed(range(len(lives))) if lives[index].joined <= step), None)


def _committing_life(lives: Sequence[Life], receipt: Receipt) -> int | None:
    """Which life a COMMIT is of: one that can commit to that version next.

    A life's first COMMIT says with what it began, and no other does. Two can be first where both joined at
    that version: then it is the newest that had begun when the COMMIT did.
    """
    version, newest = receipt.version, newest_life(lives)
    begins = receipt.commitment is not None and receipt.commitment.beginning is not None
    able = [
        i
        for i in range(newest, len(lives))
        if lives[i].next_commit == version <= lives[i].next_step and begins == (lives[i].joined == version)
    ]
    begun = [index for index in able if lives[index].began <= receipt.started]
    if able:
        return begun[-1] if begun else able[0]
    return _newest_joined(lives, version)


def has_committed_all(run: RunState, member: Member, epoch: EpochState) -> bool:
    """Whether the STEPs and COMMITs of the member's last life in it are receipted up to the epoch's end."""
    last = epoch.lives[member.hotkey][-1]
    return last.next_step == run.spec.schedule.steps and last.next_commit is None


def ended_with(run: RunState, life: Life | None) -> Carried:
    """What a life that has committed to the epoch's last version may leave to the next epoch."""
    moments = run.spec.optimizer.state is StateRule.CARRY
    feeds = run.spec.outer.codec.has_feedback
    return Carried(
        moments=(life.moments if life else EMPTY) if moments else None,
        feedback=(life.feedback if life else EMPTY) if feeds else None,
    )
