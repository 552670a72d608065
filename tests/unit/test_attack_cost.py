"""What a record makes a validator compute grows with the record, and not with its square."""

from __future__ import annotations

import time

from iota.protocol.records import CountedList, EpochRecord, LifeRecord
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from tests.unit.test_all_receipts import resealed
from validator.core.receipt_checks import false_commit

LIVES = 6000
MINERS, STEPS = 3000, 10
BOUND_S = 2.0
"""Of the processor's time: what is linear takes a tenth of it, and what is not several times as much."""


def trained() -> World:
    world = World(small_run())
    world.train()
    return world


def test_a_record_of_many_lives_of_one_miner_costs_no_more_than_its_length() -> None:
    world = trained()
    hotkey = world.miners[1].hotkey

    def many(record: EpochRecord) -> EpochRecord:
        miners = []
        for miner in record.miners:
            later = LifeRecord(joined=0, first_receipt=miner.last_receipt + 1)
            lives = (*miner.lives, *[later] * LIVES) if miner.hotkey == hotkey else miner.lives
            miners.append(miner.model_copy(update={"lives": lives}))
        return record.model_copy(update={"miners": tuple(miners)})

    world.records[0] = many(world.records[0])
    sealed = resealed(world)
    began = time.process_time()
    assert false_commit(sealed, hotkey) is None
    assert sealed.paid(hotkey)
    assert time.process_time() - began < BOUND_S


def test_the_work_of_all_miners_is_counted_in_one_pass() -> None:
    world = trained()
    others = tuple(
        CountedList.model_construct(step=step, miner=f"miner {number}", counted=())
        for number in range(MINERS)
        for step in range(STEPS)
    )
    sealed = resealed(world, counted=(*world.records[0].counted, *others))
    began = time.process_time()
    ended = [sealed.ended_work(world.miners[0].hotkey) for _ in range(MINERS)]
    assert time.process_time() - began < BOUND_S
    assert set(ended) == {world.spec.schedule.steps * world.spec.schedule.microbatches}
