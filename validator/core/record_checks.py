"""Checks that an epoch's record is possible for its run, before anything is looked up or replayed by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

from iota.console.counts import counted
from iota.identity.certificates import certificate_fault
from iota.objects import DeltaKey, max_bytes, part_count
from iota.protocol.plans import WholePlan
from iota.protocol.records import EpochRecord, MinerRecord
from iota.spec import RunSpec

_ROOM: Final = 4
"""At most so many times the receipts that a miner's ops, steps and merges give are read. The orchestrator
holds miners to the number itself; what is bounded here is memory."""


class SealBroken(Exception):
    """Receipts contradict the seal or their own signatures, or the record cannot be that of its run."""


def check_record(spec: RunSpec, record: EpochRecord) -> None:
    """Hold the record's numbers, and the lengths of its lists, against the spec.

    Members come once, stages, steps and microbatches exist, a counted list has each attempt once, and bases
    and pseudo-gradients have as many parts as their stage. Raises SealBroken, which names the fault.
    """
    stages, steps = spec.layout.stages, spec.schedule.steps
    _each_once("miner", (miner.hotkey for miner in record.miners))
    for miner in record.miners:
        _below(f"{miner.hotkey}: stage", miner.stage, stages)
        for life in miner.lives:
            _below(f"{miner.hotkey}: joined at step", life.joined, steps + 1)
        _check_starts(spec, record.epoch, miner)
    for reroute in record.reroutes:
        _below("a re-route: stage", reroute.stage, stages)
        _below("a re-route: step", reroute.step, steps)
        _below("a re-route: microbatch", reroute.microbatch, spec.planned(reroute.step))
    _each_once("counted list", ((each.miner, each.step) for each in record.counted))
    for each in record.counted:
        what = f"the counted list of {each.miner}"
        _below(f"{what}: step", each.step, steps)
        _each_once(f"{what}: attempt", each.counted)
        for microbatch, _ in each.counted:
            _below(f"{what}: microbatch", microbatch, spec.schedule.microbatches)
    _each_once("held-out microbatch", (each.microbatch for each in record.heldout))
    for done in record.heldout:
        what = f"held-out microbatch {done.microbatch}"
        _below("a held-out one: microbatch", done.microbatch, spec.planned(0))
        if not spec.is_heldout(done.microbatch):
            raise SealBroken(f"{what} is one of training")
        if len(done.attempts) != stages:
            raise SealBroken(
                f"{what} has {counted(len(done.attempts), 'attempt')} at {counted(stages, 'stage')}"
            )
    _each_once("base", ((base.epoch, base.stage) for base in record.bases))
    for base in record.bases:
        if base.parts:  # a base that was not stored at the seal has none
            _parts(spec, f"the base of stage {base.stage}", base.stage, len(base.parts))
        _below("a base: stage", base.stage, stages)
    _each_once("pseudo-gradient", (delta.miner for delta in record.deltas))
    for delta in record.deltas:
        _parts(spec, f"the pseudo-gradient of {delta.miner}", delta.stage, len(delta.parts))


def _check_starts(spec: RunSpec, epoch: int, miner: MinerRecord) -> None:
    """Raise SealBroken for an own start of another life than the first, or of other objects than the
    miner's contribution to the merge before, and for a void life that has one.
    """
    first, overlaps = miner.lives[0], spec.overlaps
    if any(life.began or life.void for life in (miner.lives[1:] if overlaps and epoch else miner.lives)):
        raise SealBroken(f"{miner.hotkey} has an own start in a life that has none")
    if first.void and first.began:
        raise SealBroken(f"{miner.hotkey} has a void life that counts")
    if not first.began:
        return
    _parts(spec, f"the own start of {miner.hotkey}", miner.stage, len(first.began))
    for number, stored in enumerate(first.began):
        key = DeltaKey(spec.id, epoch - 1, miner.stage, miner.hotkey, number)
        if stored.key != str(key) or stored.size > max_bytes(spec, key, miner.stage):
            raise SealBroken(f"{miner.hotkey} has an own start of {stored.key}, which is none of its own")


def check_receipt_counts(spec: RunSpec, record: EpochRecord, plans: Sequence[WholePlan]) -> None:
    """Hold the number of each miner's receipts against the work that plans and re-routes gave it.

    To be called before the receipts are fetched. Raises SealBroken for a number that no work explains.
    """
    assigned = Counter(reroute.miner for reroute in record.reroutes)
    for plan in plans:
        for member, count in Counter(index for route in plan.routes for index in route).items():
            assigned[plan.members[member]] += count
    merges = sum(part_count(spec, stage) for stage in range(spec.layout.stages))
    for miner in record.miners:
        count = miner.last_receipt - miner.first_receipt + 1
        most = _ROOM * (2 * assigned[miner.hotkey] + 2 * spec.schedule.steps + merges)
        if count > most:
            raise SealBroken(
                f"{miner.hotkey} has {counted(count, 'receipt')}, and its work gives at most {most:,}"
            )


def check_lives(record: EpochRecord) -> None:
    """Raise SealBroken where the lives of a miner do not follow each other."""
    for miner in record.miners:
        joins = [life.joined for life in miner.lives]
        firsts = [life.first_receipt for life in miner.lives]
        ends = (miner.first_receipt, miner.last_receipt + 1)
        if (
            joins != sorted(joins)
            or firsts != sorted(firsts)
            or not firsts[0] == ends[0] <= firsts[-1] <= ends[1]
        ):
            raise SealBroken(f"the lives of {miner.hotkey} do not follow each other")


def check_owner(run: str, miner: MinerRecord) -> None:
    """Raise SealBroken unless the miner works by itself or has its owner's certificate."""
    certificate = miner.certificate
    if certificate is None:
        fault = None if miner.owner == miner.hotkey else "is missing"
    elif certificate.owner != miner.owner:
        fault = f"is of {certificate.owner}"
    else:
        fault = certificate_fault(certificate, run, miner.hotkey)
    if fault is not None:
        raise SealBroken(f"the certificate of {miner.hotkey} as a worker of {miner.owner} {fault}")


def _below(what: str, number: int, end: int) -> None:
    if number >= end:
        raise SealBroken(f"{what} {number}, and the run has {end}")


def _each_once(what: str, names: Iterable[Hashable]) -> None:
    seen: set[Hashable] = set()
    for name in names:
        if name in seen:
            raise SealBroken(f"{what} {name} comes twice")
        seen.add(name)


def _parts(spec: RunSpec, what: str, stage: int, parts: int) -> None:
    _below(f"{what}: stage", stage, spec.layout.stages)
    if parts != part_count(spec, stage):
        raise SealBroken(f"{what} has {counted(parts, 'part')}, and its stage {part_count(spec, stage)}")
