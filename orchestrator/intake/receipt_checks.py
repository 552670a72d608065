"""Checks new receipts of a member against its stage and the work that it was given. Pure.

A refused receipt stops its miner's chain for ever, so nothing is refused that an honest miner can give:
receipts of work that was taken away, of steps and epochs that are over, and of a life before the present one
may come late. Nor is anything refused that the miner itself cannot check in a frame. Whether digests of input
frames are those that their senders receipted is looked at by validators.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from iota.identity.certificates import Verify
from iota.protocol.merkle import EMPTY
from iota.protocol.messages import Role
from iota.protocol.receipts import OpKey, OpKind, Receipt, SignedHeader, counted_digest
from iota.wire.frame import FrameHeader, is_signed
from iota.wire.receipt_form import form_fault, input_headers
from orchestrator.coordinator import Member
from orchestrator.coordinator.epoch_state import EpochState, Life, counted_pairs
from orchestrator.coordinator.given_ops import Mark
from orchestrator.coordinator.lives import given_op, life_of, newest_life
from orchestrator.coordinator.state import RunState

CLOCK_S: Final = 3600.0
"""How far a receipt's times may lie after its arrival, or before the run. A miner whose clock is off by more
than seconds cannot join."""


class ReceiptChecks:
    """The checks of one batch: each receipt sees what those before it say."""

    def __init__(self, run: RunState, member: Member, at: float, verify: Verify) -> None:
        """`at` is the time of arrival (Unix seconds); `verify` checks signatures."""
        self._run, self._member, self._at, self._verify = run, member, at, verify
        self._seen: set[OpKey] = set()
        self._lives: dict[int, list[Life]] = {}
        """epoch -> the member's lives, as they are after the receipts so far."""

    def fault(self, receipt: Receipt) -> str | None:
        """Why the member cannot have such a receipt, as the end of a sentence; None for a good one."""
        run, member = self._run, self._member
        if member.role is not Role.MINER:
            return "is not from a miner: only miners run ops"
        if (wrong := form_fault(run.spec, member.stage, receipt)) is not None:
            return wrong
        if receipt.epoch > run.epoch:
            return f"is of epoch {receipt.epoch}, which has not begun"
        if receipt.started < run.began - CLOCK_S or receipt.ended > self._at + CLOCK_S:
            return "is of another time than the run's: set the machine's clock"
        try:
            headers = input_headers(run.spec, receipt)
        except ValueError as error:
            return str(error)
        epoch = run.epochs.get(receipt.epoch)
        if epoch is None or epoch.seal is not None or epoch.audits_closed:
            # In no seal and unpaid: only their number matters.
            more = receipt.seq > member.given_receipts
            return "is one more than the ops that it was given can have" if more else None
        if receipt.kind is OpKind.MERGE:
            return self._merge_fault(epoch, receipt)
        if (wrong := self._of_life(epoch, receipt)) is not None:
            return wrong
        inputs = zip(headers, receipt.inputs, strict=True)
        faults = (self._input_fault(epoch, receipt, header, signed) for header, signed in inputs)
        return next((fault for fault in faults if fault), None)

    def _merge_fault(self, epoch: EpochState, receipt: Receipt) -> str | None:
        """Whether the member was drawn to merge the part, and has not receipted it."""
        stage, number = receipt.stage, receipt.microbatch
        parts = epoch.merges[stage].parts if epoch.merges else []
        if number >= len(parts) or self._member.hotkey not in parts[number].mergers:
            return f"is of a merge of part {number} of stage {stage}, which you were not drawn for"
        if self._member.hotkey in parts[number].outputs or receipt.key in self._seen:
            return f"is of a merge of part {number} of stage {stage}, which has a receipt"
        self._seen.add(receipt.key)
        return None

    def _lives_of(self, epoch: EpochState) -> list[Life]:
        if epoch.epoch not in self._lives:
            self._lives[epoch.epoch] = [replace(life) for life in epoch.lives.get(self._member.hotkey, ())]
        return self._lives[epoch.epoch]

    def _of_life(self, epoch: EpochState, receipt: Receipt) -> str | None:
        """Whether the op was given to the member, in a life whose version and device it has, and is new."""
        lives = self._lives_of(epoch)
        index = life_of(epoch, self._member, receipt, lives)
        if index is None:
            return "is of an op that was not given to you"
        if index < newest_life(lives):
            return "is of an earlier life than the receipts before it"
        life = lives[index]
        life.first_receipt = life.first_receipt or receipt.seq
        if receipt.device != life.device:
            return f"names another device than you joined with, {life.device}"
        if receipt.kind is OpKind.COMMIT:
            return self._commit_fault(life, receipt)
        version = self._run.spec.weight_version(receipt.step, life.joined)
        if receipt.version != version:
            return f"names weight version {receipt.version}, and its step uses {version}"
        if receipt.kind is OpKind.STEP:
            return self._step_fault(epoch, life, receipt) or self._applied_fault(epoch, receipt)
        return self._op_fault(epoch, receipt)

    def _commit_fault(self, life: Life, receipt: Receipt) -> str | None:
        """Whether it commits to the life's next version, which its STEPs have made, in its form."""
        spec, version = self._run.spec, receipt.version
        if version != life.next_commit:
            following = "all are committed" if life.next_commit is None else f"next is {life.next_commit}"
            return f"commits to version {version}, and {following}"
        if version > life.next_step:
            return f"commits to version {version}, and the STEP that makes it has no receipt"
        assert receipt.commitment is not None, "the form has been checked"
        if (receipt.commitment.before != EMPTY) != spec.has_before(version, life.joined):
            holds = "must" if spec.has_before(version, life.joined) else "cannot"
            return f"commits to version {version}, which {holds} hold the weights of the version before"
        if (receipt.commitment.beginning is not None) != (version == life.joined):
            holds = "must" if version == life.joined else "cannot"
            return f"commits to version {version}, which {holds} say with what its life began"
        life.next_commit = spec.committed_after(version)
        return None

    def _step_fault(self, epoch: EpochState, life: Life, receipt: Receipt) -> str | None:
        if receipt.step != life.next_step:
            return f"is of STEP {receipt.step}, and the next one is {life.next_step}"
        if receipt.step >= epoch.closed_steps:
            return f"is of STEP {receipt.step}, which is not closed"
        life.next_step += 1
        return None

    def _applied_fault(self, epoch: EpochState, receipt: Receipt) -> str | None:
        """Whether a STEP applied what its step's close told the member: a closed step's list stands."""
        step, update = epoch.steps[receipt.step], receipt.update
        assert update is not None, "the form has been checked"
        told = counted_digest(counted_pairs(step.order.get(self._member.hotkey, bytearray())))
        if update.counted != told:
            lists = f"{told[:16]} by its close, not {update.counted[:16]}"
            return f"is of STEP {receipt.step}, which counts the list {lists}"
        if update.learning_rate != step.learning_rate:
            rates = f"{step.learning_rate:g}, not {update.learning_rate:g}"
            return f"is of STEP {receipt.step}, which has the learning rate {rates}"
        return None

    def _op_fault(self, epoch: EpochState, receipt: Receipt) -> str | None:
        given = given_op(epoch, self._member, receipt)
        assert given is not None
        if given.marks & Mark.of(receipt.kind) or receipt.key in self._seen:
            return "is of an op that has a receipt"
        self._seen.add(receipt.key)
        forward = (*receipt.key[:4], OpKind.FORWARD)
        there = given.marks & (Mark.FORWARD | Mark.NO_FORWARD) or forward in self._seen
        if receipt.kind is OpKind.BACKWARD and not there:
            return "is of a BACKWARD whose FORWARD has no receipt"
        return None

    def _input_fault(
        self, epoch: EpochState, receipt: Receipt, header: FrameHeader, signed: SignedHeader
    ) -> str | None:
        """Whether the frame's sender was given that attempt: only then was the frame announced.

        A frame for another receiver may be used: one for who had the work before it was re-routed, and a
        sender may name whom it likes. There, and only there, its signature decides.
        """
        name, sender = header.name, self._run.members.get(header.sender)
        step = epoch.steps[receipt.step]
        given = step.given.find((name.microbatch, name.stage), name.attempt)
        if sender is None or given is None or given.member != sender.order:
            return f"names an input of {header.sender}, who had no part in it"
        if header.receiver == self._member.hotkey:
            return None
        if is_signed(signed.header.encode(), bytes.fromhex(signed.signature), header.sender, self._verify):
            return None
        return f"names an input for another receiver, {header.receiver}, which its sender did not sign"
