"""Seals: the record of a merged epoch is made once, and nothing that is published of it changes later.

An epoch is sealed at the first block that is newer than the moment its merges were ready. So the block of its
draw lies ahead, also where the chain was away for long; training goes on meanwhile.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterator
from typing import Final

from blake3 import blake3

from iota.objects import epoch_prefixes, merge_prefixes, plans_prefix
from iota.protocol.events import EpochClose
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.merkle import EMPTY, merkle_root
from iota.protocol.records import (
    BaseRecord,
    CountedList,
    DeltaRecord,
    EpochRecord,
    HeldoutRecord,
    LeftOutRecord,
    LifeRecord,
    MinerRecord,
    PlanRecord,
)
from iota.protocol.seals import member_parts
from iota.spec import RunSpec
from orchestrator.coordinator.epoch_state import EpochState, Life, counted_pairs
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import RunState, SealedRecord

_LEVEL: Final = 1
"""Of zlib: digests do not get smaller by more effort, and the rest is small after the first."""


def note_merged(run: RunState, epoch: EpochState) -> None:
    """Every stage has agreed on the base that the epoch made: it is sealed with the next block."""
    if epoch.merged_block is None:
        epoch.merged_block = run.head.block


def unsealed(run: RunState) -> list[EpochState]:
    """Merged epochs that wait for a block to be sealed, in order."""
    return [e for _, e in sorted(run.epochs.items()) if e.merged_block is not None and e.seal is None]


def seal(run: RunState) -> None:
    """Seal every merged epoch that the head is newer for. Later receipts do not belong to it."""
    for epoch in unsealed(run):
        assert epoch.merged_block is not None
        if run.head.block <= epoch.merged_block:
            return
        _seal(run, epoch)


def _seal(run: RunState, epoch: EpochState) -> None:
    record = make_record(run, epoch)
    data = record.model_dump_json().encode()
    epoch.seal = EpochClose(
        epoch=epoch.epoch,
        root=record.root,
        receipts=record.receipts,
        block=run.head.block + run.spec.audit.seal_blocks,
        members=merkle_root([part.content_digest() for part in member_parts(record)]),
        record=blake3(data).hexdigest(),
    )
    epoch.sealed_at = run.now
    epoch.told = frozenset(validator.hotkey for validator in run.roster.validators)
    epoch.committed = _committed(epoch)
    run.audits.sealed += 1
    run.audits.published[epoch.epoch] = SealedRecord(epoch.seal, zlib.compress(data, _LEVEL))
    let_go(run, epoch.epoch)
    run.send_all(epoch.seal)


def _committed(epoch: EpochState) -> dict[str, tuple[int, int]]:
    """`EpochState.committed`, of the miners whose last life has committed to a version."""
    last = {hotkey: lives[-1] for hotkey, lives in epoch.lives.items()}
    return {h: (life.joined, life.committed) for h, life in last.items() if life.committed is not None}


def let_go(run: RunState, number: int) -> None:
    """Forget what a sealed epoch's record was made from, once a later epoch has begun.

    A merge may still be under way; of the last epoch its close forgets it.
    """
    epoch = run.epochs.get(number)
    if epoch is None or epoch.seal is None or number in (run.epoch, run.merging):
        return
    for step in epoch.steps:
        step.order.clear()
        step.losses.clear()
        step.heldout.clear()
    for merge in epoch.merges:
        merge.deltas, merge.parts, merge.left_out = {}, [], {}
        merge.owing.clear()
    for table in (
        epoch.receipts,
        epoch.last_receipt,
        epoch.lives,
        epoch.withdrawn,
        epoch.counted,
        epoch.unproven,
        epoch.words,
        epoch.carried,
    ):
        table.clear()
    epoch.reroutes.clear()
    epoch.heldout.clear()


def keep(run: RunState, number: int, epoch: EpochState) -> None:
    """The audits of an epoch close: it can be read for `audit.window` more epochs, and so can its plans."""
    published = run.audits.published
    published[number].links, published[number].closed_in = dict(epoch.links), run.epoch
    published[number].plans = tuple(step.root for step in epoch.steps)
    for old, sealed in list(published.items()):
        if sealed.closed_in is not None and sealed.closed_in + run.spec.audit.window < run.epoch:
            del published[old]
            run.outbox.deletions.append(plans_prefix(run.spec.id, old))


def plan_root(run: RunState, number: int, step: int) -> str | None:
    """The Merkle root of a step's plan, of an epoch whose record can be read or will be; else None."""
    found, sealed = run.epochs.get(number), run.audits.published.get(number)
    if sealed is not None and sealed.closed_in is not None:
        return sealed.plans[step] if step < len(sealed.plans) else None
    return found.steps[step].root if found is not None and step < len(found.steps) else None


def closed_prefixes(run: RunState) -> list[str]:
    """Prefixes of the objects of closed epochs, and of the plans of those whose record is gone."""
    spec, audits = run.spec, run.audits
    closed = sorted(set(audits.closed_epochs))
    plans = [plans_prefix(spec.id, n) for n in closed if n not in audits.published]
    merges = [n for n in closed if is_unneeded(spec, n, set(closed))]
    return [p for n in closed for p in epoch_prefixes(spec.id, n)] + _merges(spec, merges) + plans


def deleted_prefixes(spec: RunSpec, epoch: int, closed: Container[int]) -> list[str]:
    """Prefixes of what is deleted when the audits of `epoch` are closed, as the last of those in `closed`."""
    return epoch_prefixes(spec.id, epoch) + _merges(spec, freed(spec, epoch, closed))


def freed(spec: RunSpec, epoch: int, closed: Container[int]) -> list[int]:
    """Epochs whose base and merge nobody needs any more once the audits of `epoch` are closed."""
    earliest = min(epoch, spec.anchor(epoch))
    return [n for n in range(earliest, epoch + 1) if is_unneeded(spec, n, closed)]


def is_unneeded(spec: RunSpec, epoch: int, closed: Container[int]) -> bool:
    """Whether no audit needs the base and the merge of an epoch any more: with overlap the next one begins
    with its base, less what replicas gave to its merge."""
    goes_on = spec.anchor(epoch + 1) == epoch and epoch + 1 < spec.schedule.epochs
    return epoch in closed and (not goes_on or epoch + 1 in closed)


def _merges(spec: RunSpec, epochs: list[int]) -> list[str]:
    return [p for n in epochs for p in merge_prefixes(spec.id, n, keeps_base=spec.keeps_base(n))]


def links(run: RunState, number: int) -> dict[str, str]:
    """validator -> the link that it revealed for a sealed epoch; empty for any other."""
    sealed = run.audits.published.get(number)
    if sealed is None:
        return {}
    return sealed.links if sealed.closed_in is not None else run.epochs[number].links


def make_record(run: RunState, epoch: EpochState) -> EpochRecord:
    """The public record of a merged epoch, from its state."""
    trees = {hotkey: tree for hotkey, tree in sorted(epoch.receipts.items()) if tree.count}
    counted = [
        CountedList(step=step.number, miner=hotkey, counted=tuple(counted_pairs(order)))
        for step in epoch.steps
        for hotkey, order in sorted(step.order.items())
    ]
    deltas = [
        DeltaRecord(miner=c.hotkey, stage=stage, tokens=c.tokens, parts=merge.deltas[c.hotkey])
        for stage, merge in enumerate(epoch.merges)
        for c in (merge.parts[0].assign.contributions if merge.parts else ())
    ]
    return EpochRecord(
        epoch=epoch.epoch,
        root=merkle_root([tree.root for tree in trees.values()]),
        receipts=sum(tree.count for tree in trees.values()),
        miners=tuple(_miner_record(epoch, run.members[hotkey]) for hotkey in sorted(epoch.stages)),
        plans=tuple(PlanRecord(step=step.number, root=step.root) for step in epoch.steps),
        reroutes=tuple(epoch.reroutes),
        counted=tuple(counted),
        heldout=tuple(
            HeldoutRecord(microbatch=microbatch, attempts=attempts)
            for microbatch, attempts in sorted(epoch.heldout.items())
        ),
        bases=tuple(
            base
            for number in range(run.spec.anchor(epoch.epoch), epoch.epoch + 2)
            for s in range(run.stages)
            if (base := _base_record(run, number, s)) is not None
        ),
        deltas=tuple(deltas),
        merge_assigns=tuple(part.assign for merge in epoch.merges for part in merge.parts),
        merges=tuple(merge.ready for merge in epoch.merges if merge.ready is not None),
        left_out=tuple(_left_out(epoch)),
        words=tuple(word for hotkey in sorted(epoch.words) for word in epoch.words[hotkey]),
        validators=tuple(sorted(validator.hotkey for validator in run.validators())),
    )


def _left_out(epoch: EpochState) -> Iterator[LeftOutRecord]:
    """What is not in the epoch's merges, by stage and hotkey."""
    for stage, merge in enumerate(epoch.merges):
        none: dict[tuple[str, LeftOut], list[int]] = {(h, LeftOut.MISSING): [] for h in merge.owing}
        for (hotkey, why), parts in sorted((none | merge.left_out).items()):
            yield LeftOutRecord(miner=hotkey, stage=stage, why=why, parts=tuple(sorted(parts)))


def _miner_record(epoch: EpochState, member: Member) -> MinerRecord:
    hotkey = member.hotkey
    tree, last = epoch.receipts.get(hotkey), epoch.last_receipt.get(hotkey)
    carried = epoch.carried.get(hotkey)
    lives = _lives(epoch.lives[hotkey], last, () if carried is None else carried.began)
    return MinerRecord(
        hotkey=hotkey,
        owner=member.owner,
        certificate=member.certificate,
        stage=epoch.stages[hotkey],
        moments=None if carried is None else carried.moments,
        feedback=None if carried is None else carried.feedback,
        lives=lives,
        first_receipt=lives[0].first_receipt,
        last_receipt=lives[0].first_receipt - 1 if last is None else last,
        receipts=tree.root if tree is not None else EMPTY,
        withdrawn=epoch.withdrawn.get(hotkey, 0),
        unproven=epoch.unproven.get(hotkey, 0),
    )


def _lives(lives: list[Life], last: int | None, began: tuple[StoredObject, ...]) -> tuple[LifeRecord, ...]:
    """The lives of a miner whose newest receipt is `last`; one without any begins where the next one does.

    `began` is its contribution to the merge before, in a run with overlap.
    """
    first = next((life.first_receipt for life in lives if life.first_receipt), 1)
    following, found = first if last is None else last + 1, []
    for index, life in reversed(list(enumerate(lives))):
        following = life.first_receipt or following
        own = began if index == 0 and not life.void else ()
        record = LifeRecord(joined=life.joined, first_receipt=following, began=own, void=life.void)
        found.append(record)
    return tuple(reversed(found))


def _base_record(run: RunState, number: int, stage: int) -> BaseRecord | None:
    """The base of a stage on which its replicas agree; without parts where it is not stored yet."""
    stored, digest = run.bases.stored.get((number, stage)), run.bases.digests.get((number, stage))
    if stored is not None or digest is None:
        return stored
    makers = run.bases.makers.get((number, stage), ())
    return BaseRecord(epoch=number, stage=stage, digest=digest, parts=(), makers=makers)
