"""Frames are moved while they are wanted, and taken only when they are what was announced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from iota.codec.shapes import payload_size
from iota.identity.keys import Hotkey
from iota.protocol.events import Delivered
from iota.protocol.frames import FrameNotice
from iota.simulate.names import fake_hotkey
from iota.wire.expectation import EarliestStep, Expectation, Expects
from iota.wire.frame import SIGNATURE_BYTES, encode_frame, make_header
from iota.wire.transport import IncomingFrame, OutgoingFrame, TransferRefused, TransportError, Unreachable
from miner.activity import Activity
from miner.core.effects import FetchFrame, ResendFrame, SendAgain, SendFrame, Sending
from miner.core.facts import FrameArrived, FrameLost, FrameNotStored, FrameStored, Pushed
from miner.frames import FrameMover
from miner.kept_frames import KeptFrames
from miner.retry import FEW_TRIES
from tests.support.frames import frame_name, outgoing
from tests.support.small_spec import small_spec

SPEC = small_spec()
SENDER, RECEIVER = Hotkey.from_seed(b"s" * 32), Hotkey.from_seed(b"r" * 32)
SEND = SendFrame(outgoing(), fake_hotkey(1))
FETCH = FetchFrame(SEND.frame.notice, fake_hotkey(1))


class Failing:
    """A transport whose first `times` tries end with `error`."""

    def __init__(self, error: TransportError, times: int) -> None:
        self._error, self.times, self.tries = error, times, 0
        self.to: list[str] = []

    def on_event(self, delivered: Delivered) -> None:
        raise NotImplementedError

    def listen_for(self, expects: Expects, earliest_step: EarliestStep) -> None:
        raise NotImplementedError

    def expectations_changed(self) -> None:
        raise NotImplementedError

    async def send(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        self.to.append(to)
        self.tries += 1
        if self.tries <= self.times:
            raise self._error
        return frame.notice

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        return await self.send(frame, "the store")

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        await self.send(OutgoingFrame(notice, b""), sender)

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def _mover(
    transport: Failing,
    wanted_tries: int = 1000,
    kept: Path = Path("/nowhere"),
    expected: Expectation = Expectation.EXPECTED,
) -> FrameMover:
    frames = KeptFrames(SPEC, lambda name: kept)

    def wants(effect: Sending | FetchFrame) -> bool:
        return transport.tries < wanted_tries

    return FrameMover(transport, wants, lambda header: expected, frames, Activity(), 0.0)


def _receiver(
    folder: Path, *, wants: bool = True, expected: Expectation = Expectation.EXPECTED
) -> FrameMover:
    """A mover that keeps what arrives in `folder`."""
    away = Failing(Unreachable("away"), 0)
    return _mover(away, 1 if wants else 0, folder / "kept" / "frame", expected)


@pytest.mark.parametrize(
    ("effect", "to"), [(SendAgain(frame_name()), "the store"), (ResendFrame(frame_name(), "carol"), "carol")]
)
async def test_a_frame_is_sent_again_from_the_disk(
    tmp_path: Path, effect: SendAgain | ResendFrame, to: str
) -> None:
    file, transport, arrived = tmp_path / "frame", Failing(Unreachable("down"), 1), _arrived()
    file.write_bytes(arrived.data)
    assert await _mover(transport, kept=file).send_kept(effect) == FrameStored(arrived.notice)
    assert transport.to == [to, to]
    file.write_bytes(arrived.data[:-1])
    assert await _mover(transport, kept=file).send_kept(effect) == FrameNotStored(frame_name())


async def test_an_outage_is_ridden_out_both_ways() -> None:
    assert await _mover(Failing(Unreachable("away"), 9)).send(SEND) == FrameStored(SEND.frame.notice)
    assert await _mover(Failing(Unreachable("away"), 9)).fetch(FETCH) is None


async def test_a_frame_that_is_wanted_no_longer_is_given_up() -> None:
    transport = Failing(Unreachable("away"), 9)
    assert await _mover(transport, 3).send(SEND) == FrameNotStored(SEND.frame.notice.name)
    assert transport.tries == 3
    transport = Failing(Unreachable("away"), 9)
    assert await _mover(transport, 3).fetch(FETCH) is None
    assert transport.tries == 3


@pytest.mark.parametrize(
    ("error", "tries"), [(TransferRefused("late"), 1), (TransportError("missing"), FEW_TRIES)]
)
async def test_a_frame_that_cannot_be_moved_is_lost(error: TransportError, tries: int) -> None:
    transport = Failing(error, 100)
    assert await _mover(transport).send(SEND) == FrameNotStored(SEND.frame.notice.name)
    assert transport.tries == tries
    transport = Failing(error, 100)
    lost = await _mover(transport).fetch(FETCH)
    assert lost == FrameLost(FETCH.notice.name, f"{type(error).__name__}: {error}")
    assert transport.tries == tries


def _arrived(fill: bytes = b"\x00", **fields: Any) -> IncomingFrame:
    """A frame as it must be."""
    payload = fill * payload_size(SPEC)
    digest = blake3(payload).hexdigest()
    header = make_header(SPEC, frame_name(), digest, SENDER.ss58, RECEIVER.ss58)
    data = encode_frame(header, payload, SENDER.sign)
    notice = FrameNotice(name=frame_name(), digest=blake3(data).hexdigest(), size=len(data))
    return IncomingFrame(notice, SENDER.ss58, data, **fields)


class Push:
    """A frame that is pushed, and what its sender hears."""

    def __init__(self, fill: bytes = b"\x00") -> None:
        self.heard: list[str | None] = []
        self.frame = _arrived(fill, pushed=True, settle=self.heard.append)

    def of(self, frame: IncomingFrame) -> Push:
        """The same, of these bytes: signatures are randomised."""
        self.frame = replace(frame, settle=self.heard.append)
        return self


async def _kept(receiver: FrameMover, arrived: IncomingFrame) -> FrameArrived:
    found = await receiver.keep(arrived)
    assert isinstance(found, tuple)
    fact, taken = found
    assert receiver.kept.file(fact.name).read_bytes().endswith(taken.payload_N.numpy().tobytes())
    return fact


async def test_a_frame_that_is_what_was_announced_is_kept_as_it_arrived(tmp_path: Path) -> None:
    arrived = _arrived()
    assert await _kept(_receiver(tmp_path), arrived) == FrameArrived(frame_name())
    assert (tmp_path / "kept" / "frame").read_bytes() == arrived.data


async def test_the_first_frame_of_a_name_stands_also_after_a_restart(tmp_path: Path) -> None:
    """Its op may have read it: the receipt names its header, and an audit asks for its content."""
    first, second = _arrived(), _arrived(b"\x01")
    await _kept(_receiver(tmp_path), first)
    fact = await _kept(_receiver(tmp_path), second)
    assert fact == FrameArrived(frame_name(), Pushed(SENDER.ss58, first.notice.digest)), "not what is stored"
    assert (tmp_path / "kept" / "frame").read_bytes() == first.data


async def test_a_frame_that_was_denied_is_replaced_once(tmp_path: Path) -> None:
    receiver = _receiver(tmp_path)
    await _kept(receiver, _arrived())
    receiver.kept.deny(frame_name())
    second = _arrived(b"\x01")
    assert await _kept(receiver, second) == FrameArrived(frame_name())
    assert (await _kept(receiver, _arrived())).pushed is not None
    assert (tmp_path / "kept" / "frame").read_bytes() == second.data


async def test_a_kept_frame_that_was_damaged_is_replaced(tmp_path: Path) -> None:
    await _kept(_receiver(tmp_path), _arrived())
    file = tmp_path / "kept" / "frame"
    file.write_bytes(file.read_bytes()[:-1])
    second = _arrived(b"\x01")
    assert await _kept(_receiver(tmp_path), second) == FrameArrived(frame_name())
    assert file.read_bytes() == second.data


async def test_a_frame_that_no_op_reads_any_more_takes_no_disk(tmp_path: Path) -> None:
    assert await _receiver(tmp_path, wants=False).keep(_arrived()) is None
    assert not (tmp_path / "kept").exists()


async def test_other_bytes_another_name_or_another_sender_than_announced_are_refused(tmp_path: Path) -> None:
    frame = _arrived()
    other = frame.notice.model_copy(update={"name": frame_name(1)})
    wrong = replace(frame, data=frame.data[:-1] + b"\x01")
    for given, why in (
        (wrong, "not the bytes"),
        (replace(frame, notice=other), "another frame, or another sender"),
        (replace(frame, sender=RECEIVER.ss58), "another frame, or another sender"),
    ):
        lost = await _receiver(tmp_path).keep(given)
        assert isinstance(lost, FrameLost)
        assert why in lost.reason
    assert not (tmp_path / "kept").exists()


async def test_a_frame_that_its_sender_did_not_sign_is_refused(tmp_path: Path) -> None:
    frame = _arrived()
    forged = bytearray(frame.data)
    forged[-payload_size(SPEC) - SIGNATURE_BYTES] ^= 1
    notice = frame.notice.model_copy(update={"digest": blake3(bytes(forged)).hexdigest()})
    lost = await _receiver(tmp_path).keep(IncomingFrame(notice, frame.sender, bytes(forged)))
    assert isinstance(lost, FrameLost)
    assert "not signed" in lost.reason


# ---- pushed frames ----------------------------------------------------------------------------------


async def test_a_pushed_frame_is_acknowledged_when_it_is_on_disk(tmp_path: Path) -> None:
    arrived, receiver = Push(), _receiver(tmp_path)
    fact = await _kept(receiver, arrived.frame)
    assert fact == FrameArrived(frame_name(), Pushed(SENDER.ss58, arrived.frame.notice.digest))
    assert arrived.heard == [None]
    assert (tmp_path / "kept" / "frame").read_bytes() == arrived.frame.data


async def test_a_pushed_frame_that_comes_again_is_acknowledged_again_also_after_a_restart(
    tmp_path: Path,
) -> None:
    first = Push()
    await _kept(_receiver(tmp_path), first.frame)
    again = Push().of(first.frame)
    assert await _receiver(tmp_path, expected=Expectation.OVER).keep(again.frame) is None
    assert again.heard == [None]
    assert (await _kept(_receiver(tmp_path), again.frame)).pushed is not None
    assert again.heard == [None, None]


@pytest.mark.parametrize("expected", [Expectation.EXPECTED, Expectation.OVER])
async def test_other_bytes_under_the_name_of_a_kept_frame_are_not_acknowledged(
    tmp_path: Path, expected: Expectation
) -> None:
    first, second = Push(), Push(b"\x01")
    await _kept(_receiver(tmp_path), first.frame)
    await _receiver(tmp_path, expected=expected).keep(second.frame)
    [why] = second.heard
    assert why is not None
    assert (tmp_path / "kept" / "frame").read_bytes() == first.frame.data


@pytest.mark.parametrize("expected", [Expectation.EARLY, Expectation.OVER, Expectation.WRONG])
async def test_a_pushed_frame_that_is_not_expected_takes_no_disk(
    tmp_path: Path, expected: Expectation
) -> None:
    arrived = Push()
    assert await _receiver(tmp_path, expected=expected).keep(arrived.frame) is None
    assert arrived.heard == [f"it is {expected}"]
    assert not (tmp_path / "kept").exists()


async def test_what_is_wrong_with_a_pushed_frame_is_told_to_its_sender_alone(tmp_path: Path) -> None:
    arrived = Push()
    assert await _receiver(tmp_path).keep(replace(arrived.frame, data=arrived.frame.data[:-1])) is None
    [why] = arrived.heard
    assert why is not None


async def test_a_disk_that_is_full_acknowledges_nothing(tmp_path: Path) -> None:
    arrived = Push()
    (tmp_path / "kept").write_text("no folder")
    with pytest.raises(OSError, match="kept"):
        await _receiver(tmp_path).keep(arrived.frame)
    assert arrived.heard == ["this disk does not take it"]


async def test_frames_of_before_are_found_as_inputs_if_they_are_intact(tmp_path: Path) -> None:
    receiver, arrived = _receiver(tmp_path), _arrived()
    assert await receiver.find(frame_name(), SENDER.ss58) is None
    await _kept(receiver, arrived)
    found = await receiver.find(frame_name(), SENDER.ss58)
    assert found is not None
    assert found[0] == FrameArrived(frame_name(), Pushed(SENDER.ss58, arrived.notice.digest))
    assert await receiver.find(frame_name(), RECEIVER.ss58) is None, "of another sender"
    assert await receiver.find(frame_name(1), SENDER.ss58) is None, "of another name"
    file = tmp_path / "kept" / "frame"
    file.write_bytes(file.read_bytes()[:-1])
    assert await receiver.find(frame_name(), SENDER.ss58) is None
