"""The coordinator: journal entries in, numbered events for nodes out. Pure: no clock, no I/O."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, assert_never

from iota.protocol.events import Event, FrameReady, MergeAssign
from iota.protocol.frames import FrameName, FrameNotice
from iota.protocol.member_records import MemberRecord
from iota.protocol.messages import (
    BadValue,
    FrameMissing,
    JoinRequest,
    Report,
)
from iota.protocol.plans import WholePlan
from iota.protocol.problems import Problem
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from orchestrator.coordinator import (
    auditing,
    bases,
    bridging,
    denials,
    evidence,
    frames,
    heldout,
    membership,
    merge_parts,
    merging,
    microbatches,
    outages,
    progress,
    reports,
    rerouting,
    sealing,
    words,
)
from orchestrator.coordinator.entries import (
    BaseMade,
    Bridged,
    CopyRead,
    Entry,
    Exchanged,
    Joined,
    Left,
    Lost,
    Remerged,
    Resumed,
    Returned,
    Revoked,
    StoreAway,
    StoreBack,
    Tick,
)
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.member_record import member_record
from orchestrator.coordinator.state import Limits, Phase, RunState, SealedRecord
from orchestrator.coordinator.status import public_losses, public_status
from orchestrator.coordinator.verdict_log import PublicVerdicts


class Coordinator:
    """State machine that plans and records a run.

    `apply` is deterministic: the same entries in the same order give the same state and the same events, so
    a restarted orchestrator recovers both from its journal. Facts that do not fit the state are counted in
    `state.totals.unfit` and change nothing else.
    """

    def __init__(self, spec: RunSpec, limits: Limits | None = None, start: Sequence[BaseRecord] = ()) -> None:
        """`start` is the stored base 0 of a run that starts from existing weights."""
        self.spec = spec
        self.state = RunState(spec, limits or Limits())
        self.state.epochs[0] = EpochState(0)
        bases.take_start(self.state, start)

    # ---- entries -------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Apply one entry. Never raises: a bug that an entry triggers is recorded as an incident.

        It must end neither the run nor a replay of its journal. Its partial effect is the same in both, since
        the code up to the error is deterministic.
        """
        try:
            self._apply(entry)
        except Exception:  # noqa: BLE001 - boundary for untrusted input: record, continue
            self.state.incidents.internal.append(traceback.format_exc(limit=-4))

    def _apply(self, entry: Entry) -> None:
        run = self.state
        before, run.now = run.now, max(run.now, entry.at)
        run.began = run.began or entry.at
        bridging.expire(run)
        match entry:
            case Joined():
                if membership.refusal(run, entry.hotkey, entry.request) is None:
                    membership.join(run, entry)
            case Exchanged():
                member = run.members.get(entry.hotkey)
                if member is not None:
                    microbatches.take_receipts(run, member, entry.receipts)
                    frames.take_frames(run, member, entry.frames)
                    looked = {each.name: each.found for each in entry.looked}
                    for report in entry.reports:
                        reports.take_report(run, member, report, looked)
            case Left():
                membership.leave(run, entry.hotkey)
            case Lost():
                membership.lose(run, entry.hotkey)
            case Returned():
                membership.come_back(run, entry.hotkey)
            case Revoked():
                membership.revoke(run, entry.revocation)
            case Bridged():
                bridging.take_write(run, entry)
            case Tick():
                run.head.block, run.head.hash = entry.block, entry.block_hash
                sealing.seal(run)
                if run.store_away_since is None:
                    for late in rerouting.take_overdue(run):
                        denials.store_what_is_lost(run, late)
                    heldout.leave_out(run)
                    evidence.miss_overdue(run)
                run.dirty = True
            case Resumed():
                outages.restart_deadlines(run, run.now - before)
                bases.ask_again(run)
            case CopyRead():
                merge_parts.take_read(run, entry)
            case Remerged():
                merge_parts.take_remerged(run, entry)
            case BaseMade():
                bases.take_made(run, entry)
            case StoreAway():
                outages.store_went_away(run)
            case StoreBack():
                outages.store_came_back(run)
            case _:
                assert_never(entry)
        progress.advance(run)

    # ---- questions -----------------------------------------------------------------------------

    @property
    def members(self) -> dict[str, Member]:
        """Every member that ever joined, by hotkey."""
        return self.state.members

    @property
    def ended(self) -> bool:
        """Whether the run has ended: all epochs are merged, and all audits closed."""
        return self.state.run_end_sent

    def is_member(self, hotkey: str) -> bool:
        """Whether a hotkey has joined the run, has not left it, and is not revoked."""
        return bridging.is_member(self.state, hotkey)

    def refusal(self, hotkey: str, request: JoinRequest) -> Problem | None:
        """The problem that refuses a join, or None."""
        return membership.refusal(self.state, hotkey, request)

    def events_after(self, hotkey: str, cursor: int, limit: int | None = None) -> list[tuple[int, Event]]:
        """The node's events with a number above `cursor`, in order; at most `limit`, if that is given."""
        member = self.state.members.get(hotkey)
        return [] if member is None else member.events.after(cursor, limit)

    def neighbour(self, epoch: int, step: int, microbatch: int, stage: int) -> str | None:
        """The replica that has a microbatch at a stage now; None for an unknown microbatch or stage."""
        found = microbatches.find_microbatch(self.state, epoch, step, microbatch)
        return found[1].places[stage].miner if found and 0 <= stage < self.state.stages else None

    def concerns(self, member: Member, name: FrameName) -> bool:
        """Whether a miner sent this frame or was to receive it."""
        return microbatches.concerns(self.state, member, name)

    def is_new(self, hotkey: str, said: FrameNotice | Report) -> bool:
        """Whether this would change anything: without that it needs no entry in the journal."""
        member = self.state.members.get(hotkey)
        return member is not None and reports.is_new(self.state, member, said)

    def questioned(self, hotkey: str, report: Report) -> list[FrameReady]:
        """The stored frames that a report says are missing or hold NaN, to read before it is recorded."""
        member = self.state.members.get(hotkey)
        if member is None or not isinstance(report, BadValue | FrameMissing):
            return []
        return words.questioned(self.state, member, report)

    def receipted(self, name: FrameName) -> str | None:
        """The payload that the sender of such a frame signed as its op's output; None if not known."""
        return words.receipted(self.state, name)

    def open_epochs(self) -> tuple[int, ...]:
        """The epoch in training and those whose audits are open."""
        return tuple(sorted(n for n, epoch in self.state.epochs.items() if not epoch.audits_closed))

    def stored_epochs(self) -> list[int]:
        """The epochs whose base is stored by every stage, in order."""
        return list(self.state.bases.complete)

    def stored_base(self, epoch: int, stage: int) -> BaseRecord | None:
        """The record of a base that is stored, or None."""
        return self.state.bases.stored.get((epoch, stage))

    def may_store_base(self, hotkey: str, epoch: int) -> bool:
        """Whether this replica was asked to store its stage's base of `epoch`."""
        member = self.state.members.get(hotkey)
        return member is not None and hotkey in self.state.bases.asked.get((epoch, member.stage), ())

    def take_woken(self) -> set[str]:
        """Hotkeys with new events since the last call."""
        woken, self.state.outbox.woken = self.state.outbox.woken, set()
        return woken

    def take_deletions(self) -> list[str]:
        """Prefixes of objects to delete that were added since the last call."""
        prefixes, self.state.outbox.deletions = self.state.outbox.deletions, []
        return prefixes

    def take_plans(self) -> list[WholePlan]:
        """Plans to store in the object store that were made since the last call."""
        plans, self.state.outbox.plans = self.state.outbox.plans, []
        return plans

    def unread_copies(self, limit: int | None = None) -> list[merge_parts.UnreadCopy]:
        """The first copies that the orchestrator is to read before they count: see `CopyRead`."""
        return merge_parts.unread_copies(self.state, limit)

    def is_unread(self, copy: merge_parts.UnreadCopy) -> bool:
        """Whether the orchestrator is still to read this copy."""
        return merge_parts.is_unread(self.state, (copy.epoch, copy.stage, copy.part), copy.merger)

    def disputed_parts(self) -> list[MergeAssign]:
        """The parts that the orchestrator is to merge itself: `Remerged` says how."""
        return merge_parts.disputed_parts(self.state)

    def disputed_bases(self) -> list[bases.BaseInputs]:
        """The bases that the orchestrator is to make itself: `BaseMade` says what their digest is."""
        return bases.disputed_bases(self.state)

    def plan_root(self, epoch: int, step: int) -> str | None:
        """The Merkle root of a step's plan, of an epoch whose record can be read or will be; else None."""
        return sealing.plan_root(self.state, epoch, step)

    def closed_prefixes(self) -> list[str]:
        """Prefixes of the objects of all closed epochs: a restarted orchestrator deletes them again."""
        return sealing.closed_prefixes(self.state)

    def next_deadline(self) -> float | None:
        """The earliest time (Unix seconds) at which a Tick may have an effect, or None."""
        run = self.state
        times: list[float | None] = [evidence.next_due(run), run.bridge.next_due()]
        if run.phase is Phase.TRAINING:
            times += [run.clocks.next_due(run.now), heldout.deadline(run)]
        if run.merging is not None:
            times += merging.deadlines(run)
        if run.phase is Phase.GATHERING and run.gathering_since is not None:
            times.append(run.gathering_since + run.limits.start_s)
        times += [
            e.sealed_at + run.spec.audit.deadline_s
            for e in run.epochs.values()
            if e.seal is not None and not e.audits_closed
        ]
        return min((t for t in times if t is not None and t > run.now), default=None)

    def published(self, epoch: int) -> SealedRecord | None:
        """A sealed epoch's seal and record; None before its seal, and long after its audits were closed."""
        return self.state.audits.published.get(epoch)

    def links(self, epoch: int) -> dict[str, str]:
        """validator -> the link that it revealed for a sealed epoch; empty for any other."""
        return sealing.links(self.state, epoch)

    @property
    def sealed_epochs(self) -> int:
        """Number of epochs that are sealed: 0 to this, exclusive."""
        return self.state.audits.sealed

    def public_verdicts(self, epoch: int) -> PublicVerdicts | None:
        """The verdicts of an epoch: from its seal until a window of epochs after its audits were closed."""
        return auditing.public_verdicts(self.state, epoch)

    def member_record(self, hotkey: str) -> MemberRecord | None:
        """The record of one member; None for a hotkey that never joined."""
        member = self.state.members.get(hotkey)
        return None if member is None else member_record(self.state, member)

    def status(self) -> dict[str, Any]:
        """The public state as JSON values, without the losses: see `public_status`."""
        return public_status(self.state)

    def losses(self, since: int | None = None) -> dict[str, Any]:
        """The losses from number `since`, or the newest, as fields of the status: see `public_losses`."""
        return public_losses(self.state, since)
