"""Frames are moved while they are wanted, and taken only when they are what was announced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from iota.codec.shapes import payload_size
from iota.identity.keys import Hotkey
from iota.protocol.events import Delivered
from iota.protocol.frames import FrameNotice
from iota.simulate.names import fake_hotkey
from iota.wire.frame import SIGNATURE_BYTES, FrameError, decode_frame, encode_frame, make_header
from iota.wire.transport import IncomingFrame, OutgoingFrame, TransferRefused, TransportError, Unreachable
from miner.activity import Activity
from miner.core.effects import FetchFrame, SendAgain, SendFrame
from miner.core.facts import FrameLost, FrameNotStored, FrameStored
from miner.frames import FrameMover
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

    def on_event(self, delivered: Delivered) -> None:
        raise NotImplementedError

    async def send(self, frame: OutgoingFrame, to: str) -> None:
        self.tries += 1
        if self.tries <= self.times:
            raise self._error

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        await self.send(OutgoingFrame(notice, b""), sender)

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def _mover(transport: Failing, wanted_tries: int = 1000, kept: Path = Path("/nowhere")) -> FrameMover:
    return FrameMover(
        SPEC, transport, lambda effect: transport.tries < wanted_tries, Activity(), lambda name: kept, 0.0
    )


def _receiver(folder: Path, *, wants: bool = True) -> FrameMover:
    """A mover that keeps what arrives in `folder`."""
    return _mover(Failing(Unreachable("away"), 0), 1 if wants else 0, folder / "kept" / "frame")


async def test_a_frame_that_the_store_lost_is_sent_again_from_the_disk(tmp_path: Path) -> None:
    file, transport = tmp_path / "frame", Failing(Unreachable("down"), 1)
    name = frame_name()
    payload = bytes(payload_size(SPEC))
    header = make_header(SPEC, name, blake3(payload).hexdigest(), SENDER.ss58, RECEIVER.ss58)
    data = encode_frame(header, payload, SENDER.sign)
    file.write_bytes(data)
    found = await _mover(transport, kept=file).send_again(SendAgain(name))
    notice = FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data))
    assert found == FrameStored(notice)
    file.write_bytes(data[:-1])
    assert await _mover(transport, kept=file).send_again(SendAgain(name)) == FrameNotStored(name)


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


def _arrived(fill: bytes = b"\x00") -> IncomingFrame:
    """A frame as it must be."""
    payload = fill * payload_size(SPEC)
    digest = blake3(payload).hexdigest()
    header = make_header(SPEC, frame_name(), digest, SENDER.ss58, RECEIVER.ss58)
    data = encode_frame(header, payload, SENDER.sign)
    notice = FrameNotice(name=frame_name(), digest=blake3(data).hexdigest(), size=len(data))
    return IncomingFrame(notice, SENDER.ss58, data)


async def test_a_frame_that_is_what_was_announced_is_kept_as_it_arrived(tmp_path: Path) -> None:
    arrived = _arrived()
    frame = await _receiver(tmp_path).keep(arrived)
    assert frame == decode_frame(arrived.data, SPEC)
    assert (tmp_path / "kept" / "frame").read_bytes() == arrived.data


async def test_the_first_frame_of_a_name_stands_also_after_a_restart(tmp_path: Path) -> None:
    """Its op may have read it: the receipt names its header, and an audit asks for its content."""
    first, second = _arrived(), _arrived(b"\x01")
    await _receiver(tmp_path).keep(first)
    assert await _receiver(tmp_path).keep(second) == decode_frame(first.data, SPEC)
    assert (tmp_path / "kept" / "frame").read_bytes() == first.data


async def test_a_kept_frame_that_was_damaged_is_replaced(tmp_path: Path) -> None:
    await _receiver(tmp_path).keep(_arrived())
    file = tmp_path / "kept" / "frame"
    file.write_bytes(file.read_bytes()[:-1])
    second = _arrived(b"\x01")
    assert await _receiver(tmp_path).keep(second) == decode_frame(second.data, SPEC)
    assert file.read_bytes() == second.data


async def test_a_frame_that_no_op_reads_any_more_takes_no_disk(tmp_path: Path) -> None:
    arrived = _arrived()
    assert await _receiver(tmp_path, wants=False).keep(arrived) == decode_frame(arrived.data, SPEC)
    assert not (tmp_path / "kept").exists()


async def test_other_bytes_another_name_or_another_sender_than_announced_are_refused(tmp_path: Path) -> None:
    frame = _arrived()
    with pytest.raises(FrameError, match="not the bytes"):
        await _receiver(tmp_path).keep(replace(frame, data=frame.data[:-1] + b"\x01"))
    other = frame.notice.model_copy(update={"name": frame_name(1)})
    for wrong in (replace(frame, notice=other), replace(frame, sender=RECEIVER.ss58)):
        with pytest.raises(FrameError, match="another frame, or another sender"):
            await _receiver(tmp_path).keep(wrong)
    assert not (tmp_path / "kept").exists()


async def test_a_frame_that_its_sender_did_not_sign_is_refused(tmp_path: Path) -> None:
    frame = _arrived()
    forged = bytearray(frame.data)
    forged[-payload_size(SPEC) - SIGNATURE_BYTES] ^= 1
    notice = frame.notice.model_copy(update={"digest": blake3(bytes(forged)).hexdigest()})
    with pytest.raises(FrameError, match="not signed"):
        await _receiver(tmp_path).keep(IncomingFrame(notice, frame.sender, bytes(forged)))
