"""The coordinator: journal entries in, numbered events for nodes out. Pure: no clock, no I/O."""

from __future__ import annotations

import traceback
from typing import Any, assert_never

from iota.objects import epoch_prefixes
from iota.protocol.events import Event, RunEnd
from iota.protocol.messages import (
    AuditsDone,
    BadValue,
    BaseStored,
    Delta,
    FrameMissing,
    Heldout,
    JoinRequest,
    Merged,
    Ready,
    Report,
    Reveal,
    SnapshotStored,
    SnapshotWanted,
    Verdict,
    WeightsSet,
)
from iota.protocol.problems import Problem
from iota.protocol.records import EpochRecord
from iota.spec import RunSpec
from orchestrator.coordinator import auditing, bases, membership, merging, microbatches, rerouting, routes
from orchestrator.coordinator.entries import Back, Entry, Joined, Left, Lost, Resumed, Said, Tick
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Limits, Phase, RunState
from orchestrator.coordinator.status import public_status


class Coordinator:
    """Plans a run and records it.

    `apply` is deterministic: the same entries in the same order give the same state and the same
    events, which is how a restarted orchestrator gets everything back from its journal. Facts
    that do not fit are counted in `state.totals.unfit` and change nothing else.
    """

    def __init__(self, spec: RunSpec, limits: Limits | None = None) -> None:
        self.spec = spec
        self.state = RunState(spec, limits or Limits())
        self.state.epochs[0] = EpochState(0)

    # ---- entries -------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Take one entry. A fault of this program in it is recorded, and ends neither this run nor a
        replay of its journal: what had been done up to it is the same each time."""
        try:
            self._apply(entry)
        except Exception:  # noqa: BLE001 - boundary for untrusted input: record, continue
            self.state.incidents.internal.append(traceback.format_exc(limit=-4))

    def _apply(self, entry: Entry) -> None:
        run = self.state
        run.now = max(run.now, entry.at)
        match entry:
            case Joined():
                if membership.refusal(run, entry.hotkey, entry.request) is None:
                    membership.join(run, entry)
            case Said():
                member = run.members.get(entry.hotkey)
                if member is not None:
                    microbatches.take_receipts(run, member, entry.receipts)
                    microbatches.take_frames(run, member, entry.frames)
                    for report in entry.reports:
                        self._take_report(member, report)
            case Left():
                membership.leave(run, entry.hotkey)
            case Lost():
                membership.lose(run, entry.hotkey)
            case Back():
                membership.come_back(run, entry.hotkey)
            case Tick():
                run.head.block, run.head.hash = entry.block, entry.block_hash
                for member in rerouting.overdue(run):
                    run.incidents.named.append(f"{member.hotkey} missed a deadline at stage {member.stage}")
                    member.stalled = run.dirty = True
                run.dirty = True
            case Resumed():
                self._forgive()
            case _:
                assert_never(entry)
        self._advance()

    def _take_report(self, member: Member, report: Report) -> None:
        run = self.state
        match report:
            case Ready():
                bases.take_ready(run, member, report)
            case Delta():
                merging.take_delta(run, member, report)
            case Merged():
                merging.take_merged(run, member, report)
            case BaseStored():
                bases.take_base(run, member, report)
            case BadValue():
                rerouting.take_bad_value(run, member, report)
            case FrameMissing():
                rerouting.take_missing(run, member, report)
            case SnapshotStored():
                auditing.take_snapshot(run, member, report)
            case Reveal():
                auditing.take_reveal(run, member, report)
            case SnapshotWanted():
                auditing.take_wanted(run, member, report)
            case Verdict():
                auditing.take_verdict(run, member, report)
            case AuditsDone():
                auditing.take_done(run, member, report)
                run.dirty = True
            case Heldout():
                auditing.take_heldout(run, report)
            case WeightsSet():
                auditing.take_weights(run, member, report)
            case _:
                assert_never(report)

    def _forgive(self) -> None:
        """Time that the orchestrator was away counts against nobody."""
        run = self.state
        for member in run.members.values():
            member.last_progress = run.now
            member.pending = dict.fromkeys(member.pending, run.now)
        epoch = run.current
        epoch.merging_since = epoch.sealed_at = run.now
        for merge in epoch.merges:
            for part in merge.parts:
                part.since = run.now

    # ---- progress ------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Do everything that the state now allows."""
        run = self.state
        before = None
        while before != (run.phase, run.epoch):
            before = (run.phase, run.epoch)
            dirty, run.dirty = run.dirty, False
            if dirty:
                bases.settle_bases(run)
                membership.offer_bases(run)
            if run.phase is Phase.GATHERING and dirty:
                self._gather()
            if run.phase is Phase.TRAINING:
                self._train(dirty)
            if run.phase is Phase.MERGING:
                self._merge()
            if dirty:
                auditing.close_audits(run)
                self._end_run()

    def _gather(self) -> None:
        run = self.state
        ready = [sum(m.live and m.ready_epoch == run.epoch for m in run.miners(s)) for s in range(run.stages)]
        if min(ready) == 0:
            run.gathering_since = None
            return
        if run.gathering_since is None:
            run.gathering_since = run.now
        if min(ready) >= run.spec.layout.replicas or run.now > run.gathering_since + run.limits.start_s:
            self._begin_epoch(0)

    def _begin_epoch(self, number: int) -> None:
        run = self.state
        run.epoch, run.phase, run.dirty = number, Phase.TRAINING, True
        run.epochs.setdefault(number, EpochState(number))

    def _train(self, dirty: bool) -> None:
        run = self.state
        closed = microbatches.close_steps(run)
        if dirty:
            membership.admit(run)
            rerouting.repair(run)
            closed = microbatches.close_steps(run) or closed
        if dirty or closed:
            routes.plan_ahead(run)
        if run.current.closed_steps == run.spec.schedule.steps:
            merging.begin_merging(run)

    def _merge(self) -> None:
        run = self.state
        merging.fix_contributions(run)
        auditing.seal(run)
        merging.settle_parts(run)
        following = run.epoch + 1
        if not all(merge.ready for merge in run.current.merges):
            return
        late = run.now > run.current.sealed_at + run.deadlines.merge.seconds
        for stage in range(run.stages):
            held = [m for m in run.miners(stage) if m.live and m.ready_epoch >= run.epoch]
            ready = [m for m in held if m.ready_epoch == following]
            if not ready or (len(ready) < len(held) and not late):
                return
        if following < run.spec.schedule.epochs:
            self._begin_epoch(following)
        elif all((following, s) in run.bases.stored for s in range(run.stages)):
            run.phase, run.dirty = Phase.FINISHED, True

    def _end_run(self) -> None:
        run = self.state
        open_audits = any(e.seal is not None and not e.audits_closed for e in run.epochs.values())
        if run.phase is Phase.FINISHED and not open_audits and not run.run_end_sent:
            run.run_end_sent = True
            for member in run.members.values():
                if not member.left:
                    run.send(member.hotkey, RunEnd())

    # ---- questions -----------------------------------------------------------------------------

    @property
    def members(self) -> dict[str, Member]:
        """Every hotkey that ever joined, by its address."""
        return self.state.members

    def refusal(self, hotkey: str, request: JoinRequest) -> Problem | None:
        """The reason why a node cannot join now, or None."""
        return membership.refusal(self.state, hotkey, request)

    def events_after(self, hotkey: str, cursor: int) -> list[tuple[int, Event]]:
        """The node's events with a number above `cursor`, in order."""
        member = self.state.members.get(hotkey)
        if member is None or not member.events:
            return []
        return member.events[max(0, cursor - member.events[0][0] + 1) :]

    def neighbour(self, epoch: int, step: int, microbatch: int, stage: int) -> str | None:
        """The replica that has a microbatch at a stage now, or None."""
        found = microbatches.find_microbatch(self.state, epoch, step, microbatch)
        return found[1].places[stage].miner if found and 0 <= stage < self.state.stages else None

    def may_store_base(self, hotkey: str, epoch: int) -> bool:
        """Whether this replica is the one that was asked to store its stage's base of `epoch`."""
        member = self.state.members.get(hotkey)
        at = (epoch, member.stage) if member is not None else (-1, -1)
        return self.state.bases.assigned.get(at, ("", 0.0))[0] == hotkey

    def take_woken(self) -> set[str]:
        """Hotkeys with new events since the last call."""
        woken, self.state.outbox.woken = self.state.outbox.woken, set()
        return woken

    def take_deletions(self) -> list[str]:
        """Prefixes of the store to delete, since the last call."""
        prefixes, self.state.outbox.deletions = self.state.outbox.deletions, []
        return prefixes

    def closed_prefixes(self) -> list[str]:
        """Prefixes of all closed epochs: an orchestrator that starts again deletes them anew."""
        return [p for n in self.state.audits.closed_epochs for p in epoch_prefixes(self.spec.id, n)]

    def next_deadline(self) -> float | None:
        """The earliest time at which a Tick may change something; None when only news can."""
        run, times = self.state, []
        if run.phase is Phase.TRAINING:
            for member in run.miners():
                since = next(iter(member.pending.values()), None)
                if since is not None and member.live and not member.stalled:
                    start = max(since, member.last_progress)
                    times.append(start + run.deadlines.ops[member.stage].seconds)
        elif run.phase is Phase.MERGING:
            epoch, limit = run.current, run.deadlines.merge.seconds
            parts = [p for merge in epoch.merges for p in merge.parts if p.agreed is None]
            times += [t + limit for t in (epoch.merging_since, epoch.sealed_at, *(p.since for p in parts))]
        elif run.phase is Phase.GATHERING and run.gathering_since is not None:
            times.append(run.gathering_since + run.limits.start_s)
        times += [
            e.sealed_at + run.spec.audit.deadline_s
            for e in run.epochs.values()
            if e.seal is not None and not e.audits_closed
        ]
        return min((t for t in times if t > run.now), default=None)

    def record(self, epoch: int) -> EpochRecord | None:
        """The public record of a sealed epoch; None before its seal and after its audits are closed."""
        return auditing.epoch_record(self.state, epoch)

    def status(self) -> dict[str, Any]:
        """The public state, as JSON values."""
        return public_status(self.state)
