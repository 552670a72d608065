"""What a replica owes the run is tried until it is done, or until the run has gone on without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from iota.client.run_objects import RunObjects
from iota.codec.shapes import payload_size
from iota.compute.commitment import commitment
from iota.compute.state import StageState, load_state, save_state, tensors_digest
from iota.identity.keys import Hotkey
from iota.objects import BaseKey, DeltaKey, EvidenceKey, MergedKey
from iota.protocol.events import (
    Admit,
    AuditsClosed,
    BaseAssign,
    Contribution,
    Event,
    EvidenceRequest,
    MergeAssign,
    MergeReady,
)
from iota.protocol.frames import Direction, EvidenceItem, FrameName, StoredObject
from iota.protocol.messages import EvidenceStored, ObjectReply, ObjectRequest
from iota.protocol.problems import Problem, ProblemType
from iota.simulate.names import fake_hotkey
from iota.store import ObjectClient
from iota.wire.frame import decode_frame, encode_frame, make_header
from miner.core.duties import Duties
from miner.core.effects import Duty, MergePart, StoreBase, StoreDelta, StoreEvidence
from miner.core.facts import DutyEnded
from miner.disk import MinerDisk
from miner.duty_worker import DutyWorker
from tests.support.damage import DAMAGES, Damage
from tests.support.small_spec import small_spec
from tests.support.store_servers import StoreUrls, embedded

AWAY = Problem(ProblemType.UNAVAILABLE, "away")
SNAPSHOT = StoreEvidence(3, EvidenceItem.SNAPSHOT, 1)
ME = fake_hotkey(0)
SENDER = Hotkey.from_seed(b"s" * 32)
SPEC = small_spec()
STATE = StageState.initial(SPEC, 0)


def _assign(stage: int) -> MergeAssign:
    stored = StoredObject(key="a/delta", digest="0" * 64, size=4)
    given = Contribution(hotkey=fake_hotkey(1), tokens=1, joined=0, stored=stored)
    return MergeAssign(epoch=3, stage=stage, part=0, contributions=(given,))


# ---- the core's decisions ------------------------------------------------------------------------


def test_a_duty_that_is_given_again_while_it_is_under_way_is_done_once() -> None:
    duties, event = (
        Duties(stage=0),
        EvidenceRequest(epoch=3, item=EvidenceItem.SNAPSHOT, version=1, rank=0, deadline=1.0),
    )
    assert duties.on_event(event) == [SNAPSHOT]
    assert duties.on_event(event) == []
    duties.end(SNAPSHOT)
    assert duties.on_event(event) == [SNAPSHOT]


@pytest.mark.parametrize(
    ("event", "duty"),
    [
        (_assign(1), MergePart(_assign(1))),
        (BaseAssign(epoch=3), StoreBase(3)),
        (EvidenceRequest(epoch=3, item=EvidenceItem.SNAPSHOT, version=1, rank=0, deadline=1.0), SNAPSHOT),
        (AuditsClosed(epoch=3), None),
    ],
)
def test_orders_give_duties(event: Event, duty: Duty | None) -> None:
    assert Duties(stage=0).on_event(event) == ([] if duty is None else [duty])


def test_a_duty_whose_object_is_missing_in_the_store_is_done_again_while_it_is_wanted() -> None:
    duties = Duties(stage=0)
    duties.on_event(_assign(1))
    duties.end(MergePart(_assign(1)))
    run, me = "0" * 64, fake_hotkey(1)
    assert duties.again(MergedKey(run, 3, 1, 0, me)) == [MergePart(_assign(1))]
    assert duties.again(MergedKey(run, 3, 1, 0, me)) == []  # it is under way
    assert duties.again(MergedKey(run, 3, 2, 0, me)) == []  # it was never given
    assert duties.again(EvidenceKey(run, 3, me, EvidenceItem.SNAPSHOT, 1)) == [SNAPSHOT]
    assert duties.again(DeltaKey(run, 3, 0, me, 5)) == [StoreDelta(3)]
    assert duties.again(BaseKey(run, 3, 0, 2)) == [StoreBase(3)]
    duties.on_event(AuditsClosed(epoch=2))
    assert duties.again(EvidenceKey(run, 2, me, EvidenceItem.SNAPSHOT, 1)) == []


MERGED, LEFT = MergeReady(epoch=3, stage=0, parts=()), Admit(epoch=4, step=0, carries=True)
BEFORE, STILL = MergeReady(epoch=2, stage=0, parts=()), Admit(epoch=3, step=0, carries=True)
CLOSED = AuditsClosed(epoch=3)


@pytest.mark.parametrize(
    ("duty", "heard", "wanted"),
    [
        (StoreDelta(3), MERGED, False),
        (StoreDelta(3), LEFT, False),
        (StoreDelta(3), BEFORE, True),
        (StoreDelta(3), STILL, True),
        (MergePart(_assign(0)), MERGED, False),
        (MergePart(_assign(0)), LEFT, False),
        (MergePart(_assign(1)), MERGED, True),
        (MergePart(_assign(1)), LEFT, False),
        (StoreBase(3), LEFT, True),
        (StoreBase(3), CLOSED, False),
        (SNAPSHOT, LEFT, True),
        (SNAPSHOT, CLOSED, False),
        (SNAPSHOT, AuditsClosed(epoch=4), True),
    ],
)
def test_a_duty_is_wanted_until_the_run_has_no_use_for_it(duty: Duty, heard: Event, wanted: bool) -> None:
    duties = Duties(stage=0)
    assert duties.wants(duty)
    duties.on_event(heard)
    assert duties.wants(duty) is wanted


# ---- the shell's tries ---------------------------------------------------------------------------


class Refusing:
    """Gives no URL, and counts how often it was asked."""

    def __init__(self, error: Problem) -> None:
        self._error, self.tries = error, 0

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        self.tries += 1
        raise self._error


async def _do(
    root: Path,
    urls: Any,
    wants: Callable[[Duty], bool],
    duty: Duty = SNAPSHOT,
    damage: Damage = lambda path: None,
) -> DutyEnded:
    with MinerDisk(root) as disk:
        save_state(STATE, disk.snapshot(3, 1), commitment(STATE, SPEC.outer.part_elements))
        damage(disk.snapshot(3, 1))
        async with ObjectClient() as client:
            objects: Any = RunObjects(urls, client)
            nothing: Any = None  # neither a pseudo-gradient nor a merge is asked for
            worker = DutyWorker(
                SPEC,
                0,
                fake_hotkey(0),
                disk,
                objects,
                nothing,
                wants,
                lambda duty: 0.0,
                first_pause_s=0.0,
            )
            return await worker.do(duty, {})


async def test_a_duty_is_tried_for_as_long_as_it_is_wanted(tmp_path: Path) -> None:
    urls = Refusing(AWAY)
    assert await _do(tmp_path, urls, lambda duty: urls.tries < 3) == DutyEnded(SNAPSHOT, None)
    assert urls.tries == 3


async def test_a_refused_duty_is_not_tried_again(tmp_path: Path) -> None:
    urls = Refusing(Problem(ProblemType.FORBIDDEN, "no"))
    assert await _do(tmp_path, urls, lambda duty: True) == DutyEnded(SNAPSHOT, None)
    assert urls.tries == 1


async def test_what_nobody_waits_for_any_more_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    urls = Refusing(Problem(ProblemType.LATE, "it is stored"))
    assert await _do(tmp_path, urls, lambda duty: True) == DutyEnded(SNAPSHOT, None)
    [said] = caplog.records
    assert said.levelname == "WARNING"
    assert said.getMessage().endswith("is not needed now: it is stored")


async def test_what_is_not_on_disk_any_more_is_left_to_others(tmp_path: Path) -> None:
    gone = StoreEvidence(3, EvidenceItem.SNAPSHOT, 2)
    assert await _do(tmp_path, Refusing(AWAY), lambda duty: True, gone) == DutyEnded(gone, None)


async def test_a_stored_snapshot_is_reported_with_its_digest(tmp_path: Path) -> None:
    async with embedded(tmp_path / "store") as store:
        done = await _do(tmp_path / "miner", StoreUrls(store), lambda duty: True)
        assert isinstance(done.report, EvidenceStored)
        assert (done.report.epoch, done.report.version) == (3, 1)
        stored = load_state(await store.get(done.report.stored.key), SPEC, 0)
        assert tensors_digest(stored.weights) == tensors_digest(STATE.weights)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_snapshot_that_was_damaged_on_disk_is_not_delivered(tmp_path: Path, damage: Damage) -> None:
    """An audit would take its bytes for this miner's lie."""
    async with embedded(tmp_path / "store") as store:
        done = await _do(tmp_path / "miner", StoreUrls(store), lambda duty: True, damage=damage)
        assert done == DutyEnded(SNAPSHOT, None)
        assert await store.list("") == []
    assert not list((tmp_path / "miner").rglob("*.safetensors"))


# ---- frames --------------------------------------------------------------------------------------

FRAMES = StoreEvidence(3, EvidenceItem.FRAMES, 1)


def _keep(disk: MinerDisk, step: int = 1, microbatch: int = 0) -> bytes:
    """A gradient that stage 1 has sent to this miner."""
    name = FrameName(
        epoch=3, step=step, microbatch=microbatch, attempt=0, stage=1, direction=Direction.BACKWARD
    )
    payload = bytes(payload_size(SPEC))
    header = make_header(SPEC, name, blake3(payload).hexdigest(), SENDER.ss58, ME)
    data = encode_frame(header, payload, SENDER.sign)
    disk.save_frame(name, data)
    return data


async def test_the_frames_of_a_step_are_delivered_after_a_restart(tmp_path: Path) -> None:
    with MinerDisk(tmp_path / "miner") as disk:
        kept = _keep(disk) + _keep(disk, microbatch=1)
        _keep(disk, step=2)
    async with embedded(tmp_path / "store") as store:
        done = await _do(tmp_path / "miner", StoreUrls(store), lambda duty: True, FRAMES)
        assert isinstance(done.report, EvidenceStored)
        assert (done.report.item, done.report.version) == (EvidenceItem.FRAMES, 1)
        assert done.report.stored.key.endswith("/frames/1")
        assert await store.get(done.report.stored.key) == kept


async def test_a_frame_that_was_damaged_on_disk_is_left_out_of_a_delivery(tmp_path: Path) -> None:
    with MinerDisk(tmp_path / "miner") as disk:
        kept, lost = _keep(disk), _keep(disk, microbatch=1)
        disk.frame(decode_frame(lost, SPEC).header.name).write_bytes(lost[:-1])
    async with embedded(tmp_path / "store") as store:
        done = await _do(tmp_path / "miner", StoreUrls(store), lambda duty: True, FRAMES)
        assert isinstance(done.report, EvidenceStored)
        assert await store.get(done.report.stored.key) == kept


async def test_who_has_lost_all_frames_of_a_step_delivers_nothing(tmp_path: Path) -> None:
    async with embedded(tmp_path / "store") as store:
        done = await _do(tmp_path / "miner", StoreUrls(store), lambda duty: True, FRAMES)
        assert done == DutyEnded(FRAMES, None)
        assert await store.list("") == []
