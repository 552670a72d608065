"""Frames whose content does not matter."""

from __future__ import annotations

import struct

from blake3 import blake3

from iota.identity.signatures import SIGNATURE_BYTES
from iota.protocol.frames import Direction, FrameName, FrameNotice
from iota.spec import RunSpec
from iota.wire.frame import FRAME_VERSION, MAGIC, check_frame
from iota.wire.transport import OutgoingFrame
from miner.kept_frames import OpInput


def frame_name(step: int = 0, microbatch: int = 0, **fields: int | Direction) -> FrameName:
    given = {"epoch": 0, "attempt": 0, "stage": 0, "direction": Direction.FORWARD, **fields}
    return FrameName.model_validate({"step": step, "microbatch": microbatch, **given})


def op_input(data: bytes, spec: RunSpec) -> OpInput:
    """A frame's bytes as its op reads them."""
    return OpInput.of(check_frame(data, spec), blake3(data).hexdigest())


def pushed(microbatch: int = 0, payload: bytes = b"values", sender: bytes = b"") -> OutgoingFrame:
    """A frame with a head as frames have, that says nothing but its name (and `sender`), unsigned."""
    text = frame_name(microbatch=microbatch).model_dump_json().encode() + sender
    data = struct.pack("<4sBH", MAGIC, FRAME_VERSION, len(text)) + text + bytes(SIGNATURE_BYTES) + payload
    return outgoing(microbatch, data)


def outgoing(microbatch: int = 0, data: bytes = b"values") -> OutgoingFrame:
    """A frame of step 0 that stage 0 sends."""
    digest = blake3(data).hexdigest()
    notice = FrameNotice(name=frame_name(microbatch=microbatch), digest=digest, size=len(data))
    return OutgoingFrame(notice, data)
