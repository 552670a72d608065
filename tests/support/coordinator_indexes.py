"""What each index of the coordinator's state must equal: the same thing by a scan over everything."""

from __future__ import annotations

from collections import Counter

from iota.protocol.frames import Direction
from iota.protocol.messages import Role
from orchestrator.coordinator.bases import _is_awaited, stands_alone
from orchestrator.coordinator.epoch_state import EpochState, StageMerge, counted_pairs
from orchestrator.coordinator.lives import must_wait
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merger_draws import MAX_MERGERS, MERGERS
from orchestrator.coordinator.merging import transfer_limit_s
from orchestrator.coordinator.own_starts import must_commit
from orchestrator.coordinator.rerouting import is_held_by
from orchestrator.coordinator.state import Phase, RunState


def check_indexes(run: RunState) -> None:
    """Assert every index. May be called after any entry that was applied."""
    check_roster(run)
    check_work(run)
    check_deliveries(run)
    check_counts(run)
    if run.merging is not None:
        check_merging(run)
    check_bases(run)
    check_evidence(run)
    if not run.dirty:
        check_nothing_is_left_out(run)


def check_roster(run: RunState) -> None:
    """Members by stage, and the counts by stage."""
    roster, everyone = run.roster, list(run.members.values())
    assert [m.order for m in everyone] == list(range(len(everyone)))
    miners = [m for m in everyone if m.role is Role.MINER]
    assert roster.miners == miners
    assert roster.validators == [m for m in everyone if m.role is Role.VALIDATOR and not m.left]
    for stage in range(run.stages):
        here = [m for m in miners if m.stage == stage and not m.left]
        assert roster.stages[stage] == here
        assert roster.live[stage] == sum(m.live for m in here)
        assert dict(roster.holders[stage]) == Counter(m.ready_epoch for m in here if m.live)
    live = [sum(m.live for m in miners if m.stage == s) for s in range(run.stages)]
    present = [sum(not m.left for m in miners if m.stage == s) for s in range(run.stages)]
    assert roster.needed_stage() == min(range(run.stages), key=lambda s: (live[s], present[s], s))
    assert not any(m.live for m in everyone if m.left)


def check_work(run: RunState) -> None:
    """`Member.work`: the open microbatches whose place is the member's."""
    work: dict[str, set[tuple[int, int]]] = {hotkey: set() for hotkey in run.members}
    for step in run.current.open_steps():
        for mb in step.microbatches:
            for stage, place in enumerate(mb.places):
                assert run.members[place.miner].stage == stage
                if mb.ended is None:
                    work[place.miner].add((step.number, mb.index))
    for hotkey, member in run.members.items():
        assert set(member.work) == work[hotkey]
        assert {op[:2] for op in member.pending} <= work[hotkey], "an op is due that is another's, or ended"


def check_deliveries(run: RunState) -> None:
    """A frame that is not in the store lies with the replica that is to have it now."""
    for step in run.current.open_steps():
        kept = set()
        for mb in step.microbatches if run.phase is Phase.TRAINING else ():
            for stage, direction in ((s, d) for s in range(run.stages) for d in Direction):
                delivered = mb.places[stage].frame(direction)
                if mb.ended is not None or delivered is None or delivered[3] is None:
                    continue
                target = direction.destination(stage, run.stages)
                assert target is not None
                assert delivered[3] == mb.places[target].miner, "a frame lies with who is not to have it"
                kept.add((mb.index, stage, direction))
        ended = {mb.index for mb in step.microbatches if mb.ended is not None}
        assert {at for at in step.in_store_too if at[0] not in ended} <= kept


def check_counts(run: RunState) -> None:
    """Counts of the current epoch's gradients, those of each miner's present life, and microbatches."""
    epoch = run.current
    counted: Counter[str] = Counter()
    for step in epoch.steps:
        for hotkey, order in step.order.items():
            lost = run.members[hotkey].joined is None and hotkey not in epoch.counted
            if step.number >= epoch.lives[hotkey][-1].joined and not lost:
                counted[hotkey] += len(counted_pairs(order))
        assert step.open == sum(mb.ended is None for mb in step.microbatches)
        assert step.heldout_open == sum(mb.ended is None for mb in step.microbatches if mb.heldout)
        for mb in step.microbatches:
            assert mb.uncounted == sum(not place.counted for place in mb.places)
    assert +epoch.counted == +counted
    assert all(not step.microbatches for step in epoch.steps[: epoch.closed_steps])


def check_merging(run: RunState) -> None:
    """Counters and sets of the merge that is under way."""
    epoch = run.merging_epoch()
    parts = [
        ((stage, number), part)
        for stage, merge in enumerate(epoch.merges)
        for number, part in enumerate(merge.parts)
    ]
    assert epoch.unfixed == {stage for stage, merge in enumerate(epoch.merges) if not merge.fixed}
    assert epoch.unmerged == sum(merge.ready is None for merge in epoch.merges)
    assert set(epoch.unagreed) == {at for at, part in parts if part.agreed is None}
    assert epoch.disputed.keys() | epoch.unread.keys() <= set(epoch.unagreed)
    assert not epoch.disputed.keys() & epoch.unread.keys()
    assert all(h in epoch.merges[s].parts[n].copies() for (s, n), h in epoch.unread.items())
    fixed = {stage for stage, merge in enumerate(epoch.merges) if merge.fixed and merge.deltas}
    assert epoch.unassigned == {stage for stage in fixed if not epoch.merges[stage].parts}
    for stage, merge in enumerate(epoch.merges):
        assert merge.agreed == sum(part.agreed is not None for part in merge.parts)
        if not merge.fixed and epoch is run.current:
            owing = {m.hotkey for m in run.roster.miners if _owes(run, stage, merge, m)}
            assert merge.owing == owing
            assert merge.awaited == {hotkey for hotkey in owing if run.members[hotkey].live}
    for member in run.roster.miners:
        assert member.merging == {at for at, part in parts if member.hotkey in part.mergers}


def _owes(run: RunState, stage: int, merge: StageMerge, member: Member) -> bool:
    """Whether a pseudo-gradient of this member is needed, and not there."""
    takes_part = member.stage == stage and member.joined is not None and run.holds_start(member)
    return takes_part and run.current.counted[member.hotkey] > 0 and member.hotkey not in merge.deltas


def check_bases(run: RunState) -> None:
    """What is stored, claimed and asked for."""
    bases = run.bases
    assert +bases.stages_stored == Counter(epoch for epoch, _ in bases.stored)
    whole = [e for e in sorted(bases.stages_stored) if all((e, s) in bases.stored for s in range(run.stages))]
    assert bases.complete == whole
    lacking = bases.keepers.keys() - bases.stored.keys()
    assert {at for at in lacking if at[0] > run.newest_base} <= set(bases.unstored) <= lacking
    assert set(bases.disputed) == bases.claims.keys() - bases.digests.keys()
    assert bases.unmade.keys() <= set(bases.disputed)
    assert bases.unkept.keys() <= bases.digests.keys() - bases.stored.keys()
    for claims in bases.claims.values():
        said = {(digest, run.members[hotkey].owner) for hotkey, digest in claims.digests.items()}
        assert {(digest, owner) for digest, owners in claims.votes.items() for owner in owners} <= said


def check_evidence(run: RunState) -> None:
    """`Member.owed`: the evidence that was asked for in open epochs and that is not decided."""
    owed = {
        (hotkey, name)
        for epoch in run.epochs.values()
        for hotkey, wanted in epoch.wanted.items()
        for name in wanted
        if (hotkey, name) not in epoch.delivered
    }
    assert owed == {(m.hotkey, name) for m in run.members.values() for name in m.owed}
    due = set(run.audits.due)
    assert all((d.deadline, m.hotkey, at) in due for m in run.members.values() for at, d in m.owed.items())


def check_nothing_is_left_out(run: RunState) -> None:
    """What `RunState.changed` promises once an entry with `dirty` was applied: the rest is as it must be."""
    changed = run.changed
    for at, claims in run.bases.claims.items():
        awaited = _is_awaited(run, at, claims)
        waits = at not in run.bases.digests and (awaited or at in run.bases.unmade)
        assert at[0] < run.anchor or waits, "a base that can be decided or made is not"
    for at in run.bases.unstored:
        keeper = run.members[run.bases.keepers[at]]
        holders = [m for m in run.miners(at[1]) if m.live and m.ready_epoch >= at[0]]
        assert keeper.live or changed.keepers or not holders, "nobody is asked to store a base"
    if run.phase is not Phase.FINISHED:
        for member in run.roster.miners:
            lacks = member.live and member.ready_epoch < run.anchor and member.told_base < run.anchor
            assert not lacks or member.hotkey in changed.offers, "a miner waits for a base in vain"
    if run.phase is Phase.TRAINING:
        for member in run.roster.miners:
            waits = member.live and run.holds_start(member) and member.joined is None
            may = not must_wait(run, member) and not must_commit(run, member)
            assert not (waits and may), "a miner that can be admitted is not"
    if run.merging is not None:
        check_merge_is_served(run, run.merging_epoch())


def check_merge_is_served(run: RunState, epoch: EpochState) -> None:
    """No part lacks a merger while there is one, and `Changed.behind` has the stages that it must."""
    changed = run.changed
    for at in epoch.unagreed if run.store_away_since is None else ():
        part = epoch.merges[at[0]].parts[at[1]]
        copies = part.copies()
        missing = [m for h in part.mergers if h not in copies and not (m := run.members[h]).charged]
        idle = any(m.live and not m.charged and m.hotkey not in part.mergers for m in run.roster.miners)
        served = at in epoch.disputed or len(part.mergers) >= MAX_MERGERS
        wanted = 1 if part.alone and len(part.mergers) == 1 else MERGERS
        coming = len(copies) + sum(m.live for m in missing)
        assert coming >= wanted or served or not idle, "a part lacks a merger while there is a miner"
    if not epoch.unmerged:
        following = epoch.epoch + 1
        for stage in set(range(run.stages)) - changed.behind:
            assert run.roster.holding(stage, following) or stands_alone(run, (following, stage))
            late = run.now > epoch.merged_at + transfer_limit_s(run, stage)
            assert late or not run.roster.holding(stage, epoch.epoch)


def check_nothing_is_stranded(run: RunState) -> None:
    """No microbatch waits for a replica that cannot do it while another of its stage can.

    May be called after any entry but an exchange: a replica that makes progress again is given the work of
    others with the next entry that is none.
    """
    for step in run.current.open_steps() if run.phase is Phase.TRAINING else ():
        for mb in step.microbatches:
            for stage, place in enumerate(mb.places):
                member = run.members[place.miner]
                if run.able(member) or not is_held_by(mb, member):
                    continue
                assert member.hotkey in run.changed.stranded
                assert not run.active(stage, step.number), "work is left with a replica that cannot do it"
