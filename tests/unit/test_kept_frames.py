"""A miner is audited by the frames that it has kept, whatever its neighbours left in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from iota.codec.shapes import payload_size
from iota.objects import EvidenceKey, FrameKey, max_bytes
from iota.protocol.frames import Direction, EvidenceItem, FrameName
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import AuditSpec
from iota.wire.frame import FrameError, decode_frame, encode_frame, make_header, split_frames
from tests.support import audit_benches as benches
from tests.support import audited_miners as miners
from tests.support.audit_benches import Open
from tests.support.audited_runs import THREADS, World
from tests.support.bundles import Desk
from tests.support.evidence_answers import kept_frames
from tests.support.small_runs import small_run
from validator.audits.replay import ReplayOptions
from validator.bundles.outside import Outside
from validator.bundles.repeat import repeat

OFTEN = AuditSpec(commit_every=2, window_steps=3, extra_every=1)
OTHER = "cuda/Some GPU/cuda1/torch1"
MIDDLE = 1


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


@cache
def trained() -> World:
    """Honest; tests change its store alone, which `store` gives back."""
    world = World(small_run(audit=OFTEN))
    world.train()
    return world


@pytest.fixture
def world() -> World:
    found = World.__new__(World)
    found.__dict__ = {**trained().__dict__, "store": dict(trained().store)}
    return found


def junk(world: World, step: int) -> None:
    """What the neighbours of the middle stage leave under their keys: bytes that are no frames."""
    for key in world.store:
        if key.startswith(f"{world.run}/frames/0/{step}/") and key.endswith(("/0.f", "/2.b")):
            world.store[key] = bytes(len(world.store[key]))


async def _op(bench: benches.Bench, step: int = 0) -> Any:
    return await bench.audit(MIDDLE, AuditKind.OP, step=step, seq=bench.op(MIDDLE, OpKind.BACKWARD, step).seq)


# ---- audits --------------------------------------------------------------------------------------


async def test_who_is_honest_passes_from_its_own_frames_where_its_neighbours_stored_junk(
    world: World, open_bench: Open
) -> None:
    junk(world, 0)
    bench = await open_bench(world)
    assert (await _op(bench)).outcome is Outcome.PASS
    assert (await bench.audit(MIDDLE, AuditKind.SEGMENT)).outcome is Outcome.PASS


async def test_a_frame_that_the_store_lost_is_asked_of_its_receiver_once_for_all_of_its_step(
    world: World, open_bench: Open
) -> None:
    for key in [key for key in world.store if "/frames/0/1/" in key]:
        del world.store[key]
    bench = await open_bench(world)
    assert (await bench.audit(MIDDLE, AuditKind.SEGMENT)).outcome is Outcome.PASS
    assert bench.asked.count((EvidenceItem.FRAMES, 1)) == 1
    assert [version for item, version in bench.asked if item is EvidenceItem.FRAMES] == [1]


async def test_a_liar_whose_neighbour_stored_junk_fails_or_has_not_delivered(open_bench: Open) -> None:
    found = World(small_run(audit=OFTEN), {MIDDLE: miners.ZeroBackward()})
    found.train()
    junk(found, 0)
    outcomes = [
        (await _op(await open_bench(found, **frames))).outcome
        for frames in ({}, {"frames": lambda miner, step: None})
    ]
    assert outcomes == [Outcome.FAIL, Outcome.UNDELIVERED]


def _other_frame(world: World, sender: int, payload: bytes) -> Callable[[miners.Miner, int], bytes]:
    """Delivers other content for the activations of microbatch 0, signed by the miner of stage `sender`."""
    name = FrameName(epoch=0, step=0, microbatch=0, attempt=0, stage=0, direction=Direction.FORWARD)

    def deliver(miner: miners.Miner, step: int) -> bytes:
        key, signer = world.miners[0].hotkey, world.miners[sender].key
        header = make_header(world.spec, name, blake3(payload).hexdigest(), key, miner.hotkey)
        forged = encode_frame(header, payload, signer.sign)
        true = world.kept[miner.hotkey][name]
        return kept_frames(world, miner, step).replace(true, forged)

    return deliver


@pytest.mark.parametrize("sender", [0, MIDDLE])
async def test_a_delivered_frame_with_another_header_than_the_receipts_is_refused(
    world: World, open_bench: Open, sender: int
) -> None:
    """Whoever signed it: the neighbour that made it up later, or the miner itself."""
    junk(world, 0)
    deliver = _other_frame(world, sender, bytes(payload_size(world.spec)))
    result = await _op(await open_bench(world, frames=deliver))
    assert result.outcome is Outcome.UNDELIVERED
    assert ("another frame" if sender == 0 else "not signed") in result.reason


@pytest.mark.parametrize("data", [b"", b"junk", bytes(1000)], ids=["nothing", "junk", "zeros"])
async def test_who_delivers_bytes_that_are_no_frames_has_not_delivered(
    world: World, open_bench: Open, data: bytes
) -> None:
    junk(world, 0)
    assert (await _op(await open_bench(world, frames=lambda m, s: data))).outcome is Outcome.UNDELIVERED


async def test_frames_above_the_runs_bound_are_not_read(
    world: World, open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    junk(world, 0)
    monkeypatch.setattr("validator.audits.evidence.max_bytes", lambda spec, key, stage: 100)
    result = await _op(await open_bench(world))
    assert result.outcome is Outcome.UNDELIVERED
    assert "at most 100" in result.reason


async def test_its_own_frame_is_shown_by_who_sent_it_across_device_classes(open_bench: Open) -> None:
    found = World(small_run(audit=OFTEN), device=OTHER)
    found.train()
    for key in [key for key in found.store if "/frames/0/0/" in key]:
        del found.store[key]
    bench = await open_bench(found)
    assert (await bench.audit(MIDDLE, AuditKind.SEGMENT)).outcome is Outcome.PASS
    assert (EvidenceItem.FRAMES, 0) in bench.asked


async def test_a_bundle_has_the_frames_that_were_delivered(tmp_path: Path) -> None:
    found = World(small_run(audit=OFTEN), {2: miners.FalseLoss()})
    found.train()
    for key in [key for key in found.store if "/frames/0/" in key]:
        del found.store[key]
    path = await (await Desk.over(found, tmp_path)).accuse(2, AuditKind.OP)
    again = await repeat(path, ReplayOptions(threads=THREADS, max_threads=THREADS), Outside())
    assert (again.faults, again.confirmed) == ([], True)
    assert [given.item for given in again.manifest.delivered].count(EvidenceItem.FRAMES) == 1


# ---- the form --------------------------------------------------------------------------------------


def test_the_frames_of_a_step_fit_into_the_runs_bound(world: World) -> None:
    for miner in world.miners:
        key = EvidenceKey(world.run, 0, miner.hotkey, EvidenceItem.FRAMES, 1)
        assert len(kept_frames(world, miner, 1)) <= max_bytes(world.spec, key, miner.stage)


def test_frames_that_lie_one_after_another_are_split_and_checked(world: World) -> None:
    data = kept_frames(world, world.miners[MIDDLE], 0)
    frames = list(split_frames(data, world.spec))
    kept = world.kept[world.miners[MIDDLE].hotkey]
    assert [frame == decode_frame(kept[frame.header.name], world.spec) for frame in frames] == [True] * len(
        frames
    )
    for wrong in (data[:-1], data + b"x", data[1:], data + data[:100]):
        with pytest.raises(FrameError):
            list(split_frames(wrong, world.spec))
    assert str(FrameKey(world.run, frames[0].header.name)) in world.store
