"""What an epoch's records pay: ops of settled microbatches, and weight gradients through STEPs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from iota.model.layout import stage_flops
from iota.protocol.frames import Direction
from iota.protocol.merkle import merkle_root
from iota.protocol.messages import BadValue
from iota.protocol.receipts import OpKind, Receipt
from orchestrator.coordinator import Finding
from tests.support.audited_runs import World
from tests.support.coordinators import Driven, frame
from tests.support.small_spec import small_spec
from tests.support.validator_shells import run
from validator.core.sealed import SealedEpoch
from validator.core.tasks import epoch_work, segment_seqs


def sealed_without(world: World, stage: int, step: int) -> SealedEpoch:
    """Epoch 0 as it would be if a miner had kept one STEP receipt back."""
    receipts: dict[str, list[Receipt]] = {}
    for miner in world.miners:
        kept = [
            receipt
            for receipt in world.of_epoch(0, miner)
            if (miner.stage, receipt.kind, receipt.step) != (stage, OpKind.STEP, step)
        ]
        receipts[miner.hotkey] = kept
    roots = [merkle_root([r.content_digest() for r in receipts[hotkey]]) for hotkey in sorted(receipts)]
    record, by_miner = world.records[0], dict(zip(sorted(receipts), roots, strict=True))
    sealed = {
        "root": merkle_root(roots),
        "receipts": sum(map(len, receipts.values())),
        "miners": tuple(m.model_copy(update={"receipts": by_miner[m.hotkey]}) for m in record.miners),
    }
    return SealedEpoch(world.spec, record.model_copy(update=sealed), world.plans[0], receipts)


def test_a_backward_without_its_step_is_paid_without_the_weight_gradient() -> None:
    world, sealed = run()[0], run()[1][0]
    spec, miner = world.spec, world.miners[0]
    last = spec.schedule.steps - 1
    without = sealed_without(world, miner.stage, last)
    work = {w.hotkey: w for w in epoch_work(sealed)}[miner.hotkey]
    less = {w.hotkey: w for w in epoch_work(without)}[miner.hotkey]
    whole = stage_flops(spec.model, spec.layout.cuts, miner.stage, spec.data.sequence_length, spec.boundary)
    thirds = spec.schedule.microbatches * (whole * spec.data.tokens // 3)
    assert abs(work.flops - less.flops - thirds) <= 2 * spec.schedule.microbatches
    assert less.segments == work.segments[:-1] == segment_seqs(without, miner.hotkey)
    assert work.owner == miner.hotkey


def test_work_that_is_made_again_is_paid_once_in_the_attempt_that_counts() -> None:
    """Receivers find each LOSS's frame too large twice: three replicas run it, and one of them counts."""
    schedule = {"epochs": 2, "steps": 1, "microbatches": 3}
    spec = small_spec(layout={"cuts": [1, 2], "replicas": 3}, schedule=schedule)
    driven, receipts = Driven.training(spec), defaultdict[str, list[Receipt]](list)
    said = driven.say

    def say(member: Any, **news: Any) -> None:
        receipts[member.hotkey] += news.get("receipts", ())
        said(member, **news)

    driven.say = say  # type: ignore[method-assign]
    for index in range(3):
        driven.run_op(0, index, 0, OpKind.FORWARD)
        driven.run_op(0, index, 1, OpKind.LOSS)
        places = driven.state.current.steps[0].microbatches[index].places
        for _ in range(2):
            receiver = driven.state.members[places[0].miner]
            name = frame(0, 0, index, places[1].attempt, 1, Direction.BACKWARD).name
            word = BadValue(epoch=0, step=0, microbatch=index, signature="5a" * 64)
            driven.say(receiver, reports=[word], looked={name: Finding.LARGE})
            driven.run_op(0, index, 1, OpKind.LOSS)
        driven.run_op(0, index, 0, OpKind.BACKWARD)
    driven.receipt_steps()
    plans = driven.coordinator.take_plans()
    driven.give_all()
    driven.draw_mergers()
    driven.merge_all()
    sealed = SealedEpoch(spec, driven.seal(), [plan for plan in plans if plan.epoch == 0], receipts)
    paid = [(r.microbatch, r.kind, r.attempt) for m in sealed.miners for r in sealed.paid(m)]
    shown = [(r.microbatch, r.kind, r.attempt) for m in sealed.miners for r in sealed.auditable(m)]
    assert sorted((index, kind) for index, kind, _ in paid) == sorted(
        (index, kind) for index in range(3) for kind in (OpKind.FORWARD, OpKind.BACKWARD, OpKind.LOSS)
    )
    assert {attempt for _, kind, attempt in paid if kind is OpKind.FORWARD} == {0}  # the first one's stands
    assert sorted(shown) == sorted(paid)
