"""A miner that pushes NaN to its neighbour in one frame, and stores the frame that it has receipted."""

from __future__ import annotations

from blake3 import blake3

from iota.protocol.frames import Direction, FrameNotice
from iota.wire.frame import decode_frame, encode_frame
from iota.wire.peer_transport import PeerTransport
from iota.wire.transport import OutgoingFrame
from tests.support.miner_program import run_miner


def main() -> None:
    honest = PeerTransport.send

    async def send(self: PeerTransport, frame: OutgoingFrame, to: str) -> FrameNotice:
        name = frame.notice.name
        if (name.epoch, name.step, name.microbatch, name.direction) == (0, 1, 1, Direction.FORWARD):
            frame = _with_nan(self, frame)
        return await honest(self, frame, to)

    PeerTransport.send = send  # type: ignore[method-assign]
    run_miner()


def _with_nan(transport: PeerTransport, frame: OutgoingFrame) -> OutgoingFrame:
    sent = decode_frame(frame.data, transport.spec)
    payload = b"\xff" * len(sent.payload)
    header = sent.header.model_copy(update={"payload": blake3(payload).hexdigest()})
    data = encode_frame(header, payload, transport.sign)
    return OutgoingFrame(frame.notice.model_copy(update={"digest": blake3(data).hexdigest()}), data)
