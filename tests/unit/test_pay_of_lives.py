"""What a miner is paid of an epoch in which it took the base anew."""

from __future__ import annotations

from iota.protocol.receipts import OpKind
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from tests.unit.test_all_receipts import resealed


def test_an_earlier_life_is_paid_for_what_used_its_base_alone() -> None:
    world = World(small_run(schedule={"pipeline": "delayed", "steps": 4}, optimizer={"state": "carry"}))
    world.train(rejoin=(1, 3))
    sealed = resealed(world)
    hotkey = world.miners[1].hotkey
    paid = {(r.step, r.version) for r in sealed.paid(hotkey)}
    assert paid == {(0, 0), (1, 0), (3, 3)}
    did = {(r.step, r.version) for r in sealed.receipts[hotkey] if r.kind is OpKind.FORWARD}
    assert did - paid == {(2, 1)}
