"""Evidence that one device class needs and another does not: it fails nobody that the other passes."""

from __future__ import annotations

import pytest
from blake3 import blake3

from iota.compute.state import StageState, state_bytes
from iota.objects import FrameKey
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import AuditKind, Outcome
from iota.spec import AuditSpec
from iota.wire.frame import decode_frame, encode_frame, make_header
from tests.support import audit_benches as benches
from tests.support.audited_miners import Miner
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from validator.audits.replay import OwnFingerprint
from validator.core.results import Result


def trained() -> World:
    world = World(small_run(audit=AuditSpec(commit_every=2)))
    world.train()
    return world


async def _by_both(world: World, monkeypatch: pytest.MonkeyPatch, **how: object) -> list[Result]:
    """The audit of a segment by a validator of the miner's class, and by one of another."""
    found = []
    for other in (False, True):
        if other:
            monkeypatch.setattr(OwnFingerprint, "equals", lambda *_: False)
        bench = await benches.bench(world, **how)
        found.append(await bench.audit(1, AuditKind.SEGMENT))
        bench.worker.close()
    return found


async def test_a_false_state_at_a_segments_end_does_not_set_validators_against_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deliver(miner: Miner, version: int) -> bytes:
        kept = miner.snapshots[version]
        return state_bytes(StageState(miner.snapshots[0].weights, kept.moments) if version == 2 else kept)

    exact, within = await _by_both(trained(), monkeypatch, deliver=deliver)
    assert (exact.outcome, within.outcome) == (Outcome.PASS, Outcome.UNDELIVERED)


async def test_another_frame_than_receipted_does_not_set_validators_against_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its receiver, of the same owner, names the true one."""
    world = trained()
    name = FrameName(epoch=0, step=0, microbatch=0, attempt=0, stage=1, direction=Direction.FORWARD)
    key = str(FrameKey(world.run, name))
    true = decode_frame(world.store[key], world.spec)
    payload = bytes(len(true.payload))
    names = (true.header.sender, true.header.receiver)
    header = make_header(world.spec, name, blake3(payload).hexdigest(), *names)
    world.store[key] = encode_frame(header, payload, world.miners[1].key.sign)
    exact, within = await _by_both(world, monkeypatch)
    assert (exact.outcome, within.outcome) == (Outcome.PASS, Outcome.PASS)
