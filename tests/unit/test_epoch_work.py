"""What an epoch's records pay: ops of settled microbatches, and weight gradients through STEPs."""

from __future__ import annotations

from iota.model.layout import stage_flops
from iota.protocol.merkle import merkle_root
from iota.protocol.receipts import OpKind, Receipt
from tests.support.audited_runs import World
from tests.support.validator_shells import run
from validator.core.sealed import SealedEpoch
from validator.core.tasks import epoch_work, step_seqs


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
    assert less.steps == work.steps[:-1] == step_seqs(without, miner.hotkey)
    assert work.owner == miner.hotkey
