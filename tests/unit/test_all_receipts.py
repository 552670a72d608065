"""All receipts of an epoch against its record: what is a miner's fault, and what the orchestrator's alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from iota.protocol.merkle import EMPTY, merkle_root
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import GENESIS, OpKind, Receipt
from iota.protocol.records import EpochRecord, LifeRecord
from iota.simulate.names import fake_hotkey
from iota.spec import AuditSpec
from iota.wire.frame import FrameHeader
from tests.support.audit_benches import Bench, bench
from tests.support.audited_runs import World
from tests.support.receipts import BEGINNING
from tests.support.small_runs import small_run
from validator.core.all_receipts import check_receipts
from validator.core.scoring import op_flops
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import drawn_tasks, epoch_work

Chain = list[Receipt]

OFTEN = AuditSpec(commit_every=2)


@pytest.fixture(scope="module")
def world() -> World:
    """One honest epoch of three stages, three steps and three microbatches; nobody changes it."""
    world = World(small_run(schedule={"pipeline": "delayed"}, audit=OFTEN))
    world.train()
    return world


def resealed(
    world: World, stage: int = 0, change: Callable[[Chain], Chain] = lambda chain: chain, **record: Any
) -> SealedEpoch:
    """The epoch, sealed anew, with another chain of one miner, which it has signed, or another record."""
    chains = {miner.hotkey: world.of_epoch(0, miner) for miner in world.miners}
    hotkey, chained = world.miners[stage].hotkey, []
    for receipt in change(list(chains[hotkey])):
        at = {"seq": len(chained) + 1, "previous": chained[-1].content_digest() if chained else GENESIS}
        chained.append(receipt.model_copy(update=at))
    chains[hotkey] = chained
    roots = {h: merkle_root([r.content_digest() for r in chains[h]]) for h in sorted(chains)}
    before = world.records[0]
    miners = tuple(
        m.model_copy(update={"last_receipt": len(chains[m.hotkey]), "receipts": roots[m.hotkey]})
        for m in before.miners
    )
    sealed = {"root": merkle_root(list(roots.values())), "receipts": sum(map(len, chains.values()))}
    changed: EpochRecord = before.model_copy(update={**sealed, "miners": miners, **record})
    return SealedEpoch(world.spec, changed, world.plans[0], chains)


def find(chain: Chain, kind: OpKind, step: int = 0, microbatch: int = 0) -> int:
    return next(i for i, r in enumerate(chain) if (r.kind, r.step, r.microbatch) == (kind, step, microbatch))


def with_one(kind: OpKind, /, **changes: Any) -> Callable[[Chain], Chain]:
    """One receipt is changed."""

    def change(chain: Chain) -> Chain:
        at = find(chain, kind)
        return [*chain[:at], chain[at].model_copy(update=changes), *chain[at + 1 :]]

    return change


def with_commitment(version: int, **changes: object) -> Callable[[Chain], Chain]:
    """One COMMIT is to another state."""

    def change(chain: Chain) -> Chain:
        at = find(chain, OpKind.COMMIT, version)
        made = chain[at].commitment
        assert made is not None
        other = made.model_copy(update=changes)
        false = chain[at].model_copy(update={"commitment": other, "output": other.root})
        return [*chain[:at], false, *chain[at + 1 :]]

    return change


def without(kind: OpKind, step: int = 0) -> Callable[[Chain], Chain]:
    def change(chain: Chain) -> Chain:
        at = find(chain, kind, step)
        return chain[:at] + chain[at + 1 :]

    return change


def also(kind: OpKind, /, **changes: Any) -> Callable[[Chain], Chain]:
    """A changed copy of one receipt comes last."""
    return lambda chain: [*chain, chain[find(chain, kind)].model_copy(update=changes)]


def test_nothing_is_found_in_an_honest_epoch(world: World) -> None:
    assert check_receipts(resealed(world)) == []


# ---- the miner's fault ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "change", "why"),
    [
        (2, also(OpKind.LOSS), "has a receipt"),
        (2, also(OpKind.LOSS, kind=OpKind.FORWARD), "does not have"),
        (1, also(OpKind.FORWARD, kind=OpKind.LOSS, loss=1.0), "does not have"),
        (0, also(OpKind.FORWARD, kind=OpKind.MERGE), "merge"),
        (1, with_one(OpKind.FORWARD, tokens=1), "1 token"),
        (1, with_one(OpKind.FORWARD, inputs=()), "other inputs"),
        (1, with_one(OpKind.STEP, update=None), "does not say what it applied"),
        (1, with_one(OpKind.COMMIT, commitment=None), "commits to no state"),
        (1, with_one(OpKind.COMMIT, output="11" * 32), "not the root of its state"),
        (1, also(OpKind.COMMIT), "has a receipt"),
        (2, with_one(OpKind.LOSS, loss=None), "names none"),
    ],
)
def test_what_no_op_of_its_stage_gives_is_its_miners_fault(
    world: World, stage: int, change: Callable[[Chain], Chain], why: str
) -> None:
    [fault] = check_receipts(resealed(world, stage, change))
    assert fault.hotkey == world.miners[stage].hotkey
    assert why in fault.reason


def test_thousands_of_bad_receipts_are_one_fault(world: World) -> None:
    padding = lambda chain: chain + [chain[0]] * 3000  # noqa: E731
    assert len(check_receipts(resealed(world, 1, padding))) == 1


@pytest.mark.parametrize("fields", [{"payload": "ab" * 32}, {"receiver": fake_hotkey(40)}], ids=list)
def test_an_input_that_its_sender_did_not_sign_is_the_receivers_fault(
    world: World, fields: dict[str, str]
) -> None:
    def change(chain: Chain) -> Chain:
        signed = chain[find(chain, OpKind.FORWARD)].inputs[0]
        header = FrameHeader.model_validate_json(signed.header).model_copy(update=fields)
        forged = signed.model_copy(update={"header": header.canonical().decode()})
        return with_one(OpKind.FORWARD, inputs=(forged,))(chain)

    [fault] = check_receipts(resealed(world, 1, change))
    assert (fault.hotkey, "did not sign" in fault.reason) == (world.miners[1].hotkey, True)


def test_a_sender_that_receipts_another_output_than_it_sent_is_at_fault(world: World) -> None:
    [fault] = check_receipts(resealed(world, 0, with_one(OpKind.FORWARD, output="11" * 32)))
    assert (fault.hotkey, fault.expected) == (world.miners[0].hotkey, "11" * 32)


# ---- the orchestrator's fault alone -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "change", "why"),
    [
        (0, also(OpKind.FORWARD, attempt=1), "not given"),
        (1, with_one(OpKind.FORWARD, version=1), "weight version"),
        (1, without(OpKind.FORWARD), "without its FORWARD"),
        (1, without(OpKind.STEP, 0), "STEP out of order"),
        (1, without(OpKind.STEP, 2), "COMMIT out of order"),
        (1, without(OpKind.COMMIT, 2), "COMMIT out of order"),
        (1, without(OpKind.COMMIT, 3), "merged without its COMMITs"),
        (1, also(OpKind.COMMIT, step=1, version=1), "does not commit to"),
        (1, with_commitment(0, before="11" * 32), "other groups"),
        (1, with_commitment(2, before=EMPTY), "other groups"),
        (1, with_commitment(0, beginning=None), "other groups"),
        (1, with_commitment(2, beginning=BEGINNING), "other groups"),
        (1, without(OpKind.BACKWARD), "without a receipt"),
        (1, with_one(OpKind.FORWARD, device="cuda/another"), "another device"),
    ],
)
def test_what_the_orchestrator_had_to_refuse_breaks_the_record_and_charges_nobody(
    world: World, stage: int, change: Callable[[Chain], Chain], why: str
) -> None:
    with pytest.raises(SealBroken, match=why):
        check_receipts(resealed(world, stage, change))


def test_work_that_counts_twice_at_a_stage_breaks_the_record(world: World) -> None:
    record = world.records[0]
    with pytest.raises(SealBroken, match="twice"):
        check_receipts(resealed(world, counted=(*record.counted, record.counted[0])))


@pytest.mark.parametrize("lives", [((0, 2),), ((1, 1), (0, 5)), ((0, 1), (1, 99)), ((0, 5), (1, 1))])
def test_lives_that_do_not_follow_each_other_break_the_record(
    world: World, lives: tuple[tuple[int, int], ...]
) -> None:
    first, *others = world.records[0].miners
    false = first.model_copy(update={"lives": tuple(LifeRecord(joined=j, first_receipt=f) for j, f in lives)})
    with pytest.raises(SealBroken, match="lives"):
        SealedEpoch(
            world.spec,
            world.records[0].model_copy(update={"miners": (false, *others)}),
            world.plans[0],
            {m.hotkey: world.of_epoch(0, m) for m in world.miners},
        )


# ---- pay and lives ----------------------------------------------------------------------------------


def test_an_extra_loss_receipt_pays_nothing(world: World) -> None:
    honest = {work.hotkey: work.flops for work in epoch_work(resealed(world))}
    for change in (also(OpKind.LOSS), also(OpKind.LOSS, attempt=7)):
        assert {w.hotkey: w.flops for w in epoch_work(resealed(world, 2, change))} == honest
    sealed = resealed(world)
    for miner in world.miners:
        ops = [r for r in sealed.receipts[miner.hotkey] if r.kind not in (OpKind.STEP, OpKind.COMMIT)]
        assert honest[miner.hotkey] == sum(op_flops(world.spec, r, weight_gradient=True) for r in ops)


def test_who_gives_no_pseudo_gradient_is_not_paid(world: World) -> None:
    before, silent = world.records[0], world.miners[0]
    sealed = resealed(
        world,
        deltas=tuple(delta for delta in before.deltas if delta.miner != silent.hotkey),
        merge_assigns=tuple(assign for assign in before.merge_assigns if assign.stage != silent.stage),
        merges=tuple(
            merge.model_copy(update={"parts": ()}) if merge.stage == silent.stage else merge
            for merge in before.merges
        ),
    )
    paid = {work.hotkey: work.flops for work in epoch_work(sealed)}
    assert paid == {w.hotkey: w.flops for w in epoch_work(resealed(world))} | {silent.hotkey: 0}


def rejoined(stage: int, step: int) -> World:
    """An epoch in whose middle one miner lost its disk: it took the base anew at `step`, and went on."""
    again = World(
        small_run(schedule={"pipeline": "delayed", "steps": 4}, optimizer={"state": "carry"}, audit=OFTEN)
    )
    again.train(rejoin=(stage, step))
    return again


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_miner_that_joined_anew_passes_every_audit_that_can_be_drawn(step: int) -> None:
    again = rejoined(1, step)
    opened: Bench = await bench(again)
    try:
        assert opened.sealed.faults == []
        miner = again.miners[1]
        sealed = opened.sealed
        assert sealed.steps(miner.hotkey) == list(range(step, 4))
        shown = sealed.auditable(miner.hotkey)
        for receipt in shown:
            result = await opened.audit(1, AuditKind.OP, step=receipt.step, seq=receipt.seq)
            assert result.outcome is Outcome.PASS, result
        at_base = {each for each in range(step, 4) if again.spec.weight_version(each, step) == step}
        assert {r.step for r in shown} == {0, *([1] if step > 1 else []), *at_base}
        for each in range(step, 4):
            result = await opened.audit(1, AuditKind.SEGMENT, step=each)
            assert result.outcome is Outcome.PASS, result
        assert await opened.check(1) is None
        paid = {(r.step, r.microbatch, r.kind) for r in sealed.paid(miner.hotkey)}
        assert len(paid) == len({0, *([1] if step > 1 else []), *range(step, 4)}) * 3 * 2
        for block in range(20):
            for task in drawn_tasks(sealed, Draws(f"{block:064x}", "cd" * 32, "nobody"), miner.hotkey):
                assert task.kind is AuditKind.OP or task.step >= step
    finally:
        opened.worker.close()
