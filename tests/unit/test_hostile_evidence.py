"""Receipts and snapshots that strangers made: each ended the validator once, and now is a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.objects import EvidenceKey, FrameKey
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import AuditKind, EvidenceWanted, Outcome
from iota.protocol.receipts import OpKind, Receipt
from iota.wire.frame import FrameHeader
from tests.support import hostile_evidence
from tests.support.audited_miners import Noise
from tests.support.audited_runs import World
from tests.support.hostile_evidence import (
    SNAPSHOTS,
    Validator,
    audited,
    drawn_of,
    hostile,
    reader,
    rewrite,
    sealed_epoch,
    trained,
)
from validator.core.history import History


def own(world: World, stage: int) -> list[Receipt]:
    return world.of_epoch(0, world.miners[stage])


async def test_honest_work_passes_in_the_harness_of_these_tests() -> None:
    found = await audited(hostile(trained()))
    found.check()
    assert {result.outcome for result in found.verdicts.values()} == {Outcome.PASS}


# ---- receipts of ops that a stage does not have ---------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "of", "kind"),
    [
        (0, OpKind.FORWARD, OpKind.LOSS),
        (1, OpKind.FORWARD, OpKind.LOSS),
        (2, OpKind.LOSS, OpKind.FORWARD),
        (2, OpKind.LOSS, OpKind.BACKWARD),
        (1, OpKind.FORWARD, OpKind.MERGE),
    ],
)
async def test_a_receipt_of_an_op_that_its_stage_does_not_have_is_its_miners_fault_and_is_not_paid(
    stage: int, of: OpKind, kind: OpKind
) -> None:
    world = hostile(trained())
    honest = await sealed_epoch(world)
    receipts = own(world, stage)
    extra = [r.model_copy(update={"kind": kind, "loss": None}) for r in receipts if r.kind is of]
    rewrite(world, world.miners[stage], [*receipts, *extra])
    found = await audited(world)
    found.check()
    hotkey = world.miners[stage].hotkey
    paid = (await sealed_epoch(world)).paid(hotkey)
    assert [r.key for r in paid] == [r.key for r in honest.paid(hotkey)]
    failed = {name for name, result in found.verdicts.items() if result.outcome is not Outcome.PASS}
    bad = world.of_epoch(0, world.miners[stage])[len(receipts) :]
    of_merges = {(hotkey, f"merge:{r.seq}") for r in bad if r.kind is OpKind.MERGE}
    assert failed == {(hotkey, f"records:{bad[0].seq}")} | of_merges


# ---- inputs ------------------------------------------------------------------------------------------


async def test_a_miner_cannot_make_its_audits_undecided() -> None:
    """An input is found by its name, sender and payload, whomever its receipt says that it was for."""
    world = trained()
    receipt = next(r for r in own(world, 1) if r.kind is OpKind.FORWARD)
    header = FrameHeader.model_validate_json(receipt.inputs[0].header)
    evidence = reader(world, world)
    payload = await evidence.frame(header)
    assert await evidence.frame(header.model_copy(update={"receiver": "1" * 46})) == payload


async def test_two_neighbours_do_not_hide_work_behind_a_frame_that_is_none() -> None:
    """One stores bytes that are no frame and the other sends noise: it must show what it has read."""
    world = World(trained().spec, {1: Noise()})
    world.train(0)
    for receipt in own(world, 1):
        for signed in receipt.inputs:
            key = FrameKey(world.run, FrameHeader.model_validate_json(signed.header).name)
            world.store[str(key)] = bytes(len(world.store[str(key)]))
    found = await audited(world)
    found.check()
    first, liar, last = (found.outcomes(miner) for miner in world.miners)
    assert Outcome.FAIL in liar
    assert liar <= {Outcome.FAIL, Outcome.PASS}
    assert first == last == {Outcome.PASS}


# ---- states ------------------------------------------------------------------------------------------


class Fooled(Validator):
    """A validator to which one miner announces snapshots, and stores other bytes."""

    liar = ""

    def _deliver(self, wanted: EvidenceWanted) -> None:
        super()._deliver(wanted)
        if wanted.miner == self.liar:
            key = str(
                EvidenceKey(self.world.run, wanted.epoch, wanted.miner, EvidenceItem.SNAPSHOT, wanted.version)
            )
            self.world.store[key] = bytes(len(self.world.store[key]))


async def test_a_snapshot_of_other_bytes_than_announced_is_undelivered(tmp_path: Path) -> None:
    world = hostile(trained())
    validator = Fooled(world, tmp_path)
    drawn = await drawn_of(world)
    validator.liar = next(
        h for h, tasks in drawn.items() if any(t.kind is AuditKind.SEGMENT and t.step for t in tasks)
    )
    found = await validator.audit()
    outcomes = {
        r.outcome
        for (hotkey, name), r in found.verdicts.items()
        if hotkey == validator.liar and "segment" in name
    }
    assert outcomes == {Outcome.UNDELIVERED}


@pytest.mark.parametrize("kind", SNAPSHOTS)
async def test_a_snapshot_that_is_no_state_fails_its_miner_and_ends_nothing(kind: str) -> None:
    world = hostile(trained())
    drawn = await drawn_of(world)
    miner = next(
        m for m in world.miners if any(t.kind is AuditKind.SEGMENT and t.step for t in drawn[m.hotkey])
    )
    for version in (1, 2):
        miner.snapshots[version] = SNAPSHOTS[kind](miner.snapshots[version])  # type: ignore[assignment]
    found = await audited(world)
    found.check()
    assert Outcome.FAIL in found.outcomes(miner)
    others = (other for other in world.miners if other is not miner)
    assert [found.outcomes(other) for other in others] == [{Outcome.PASS}] * 2


# ---- who is audited when -----------------------------------------------------------------------------


async def test_a_miner_that_is_waited_for_does_not_leave_the_others_unaudited(tmp_path: Path) -> None:
    world = hostile(trained())
    for silent in world.miners:
        (folder := tmp_path / silent.hotkey).mkdir()
        alone = hostile(world)
        next(m for m in alone.miners if m.hotkey == silent.hotkey).snapshots = {}
        found = await Validator(alone, folder).audit()
        assert found.outcomes(silent) == {Outcome.PASS, Outcome.INCONCLUSIVE}  # its ops at the base pass
        for other in world.miners:
            assert other is silent or found.outcomes(other) == {Outcome.PASS}


async def test_the_order_of_audits_is_drawn_and_begins_with_who_is_owed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, owed = set(), trained().miners[1].hotkey
    for number in range(4):
        monkeypatch.setattr(hostile_evidence, "BLOCK_HASH", f"{number:02x}" * 32)
        (folder := tmp_path / str(number)).mkdir()
        history = History(owing={(-1, owed)}) if number == 3 else None
        found = await Validator(hostile(trained()), folder, history).audit()
        order = tuple(dict.fromkeys(miner for miner, name in found.verdicts if name.startswith("op")))
        assert number < 3 or order[0] == owed
        orders.add(order)
    assert len(orders) > 2, "who sorts last is always left out when time is short"
