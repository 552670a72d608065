"""Tensor frames: the format of a boundary tensor in transit and in the store.

    magic "IOTA" | version u8 | header length u16 LE | header (canonical JSON)
    | 64-byte sender signature over the header | payload

The payload holds raw little-endian values (for int8 followed by one fp32 scale a token). Shape, dtype and
size follow from the RunSpec, so a receiver knows them before it reads anything.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blake3 import blake3
from pydantic import ValidationError

from iota.codec.shapes import payload_shape, payload_size
from iota.console.counts import counted
from iota.identity import signatures
from iota.identity.certificates import Verify
from iota.identity.signatures import SIGNATURE_BYTES, signing_bytes
from iota.protocol.frames import Direction, FrameName
from iota.protocol.messages import Hotkey
from iota.protocol.receipts import SignedHeader
from iota.spec import Frozen, Hex32, RunSpec, Small, WireDtype

MAGIC = b"IOTA"
FRAME_VERSION = 1
"""Version of the format, in the prefix and in the domain of the header's signature."""
DOMAIN = f"frame/{FRAME_VERSION}"

_PREFIX = struct.Struct("<4sBH")
PREFIX_BYTES = _PREFIX.size
"""Bytes of a frame that say how long its head is."""


class FrameError(Exception):
    """A malformed or unexpected frame; the message has the reason."""


class FrameHeader(Frozen):
    """The signed part of a frame; it commits to the payload by digest."""

    run: Hex32
    name: FrameName
    shape: tuple[Small, Small, Small]
    """(sequences, sequence_length, boundary width)"""
    dtype: WireDtype
    size: Small
    """Payload bytes."""
    payload: Hex32
    """BLAKE3 of the payload."""
    sender: Hotkey
    receiver: Hotkey


@dataclass(frozen=True)
class Frame:
    """A decoded frame."""

    header: FrameHeader
    signature: bytes
    payload: bytes

    @property
    def signed_header(self) -> SignedHeader:
        """The header with its signature, which receipts name as their input."""
        return _signed(self.header, self.signature)

    def encoded(self) -> bytes:
        """The bytes that it was decoded from."""
        return _joined(self.header.canonical(), self.signature, self.payload)


@dataclass(frozen=True)
class CheckedFrame:
    """A frame as it arrived, whose form, digest and signature hold. Nothing of it is copied."""

    header: FrameHeader
    signature: bytes
    data: bytes | bytearray
    """All of it."""
    start: int
    """First byte of the payload."""

    @property
    def payload(self) -> memoryview:
        """The payload, where it lies in `data`."""
        return memoryview(self.data)[self.start :]

    @property
    def signed_header(self) -> SignedHeader:
        """The header with its signature, which receipts name as their input."""
        return _signed(self.header, self.signature)


def leads_nowhere(spec: RunSpec, name: FrameName) -> bool:
    """Whether no replica has a use for such a frame: it leaves the model, or is a held-out one's gradient."""
    if name.direction is Direction.BACKWARD and spec.is_heldout(name.microbatch):
        return True
    return name.direction.destination(name.stage, spec.layout.stages) is None


def make_header(spec: RunSpec, name: FrameName, payload: str, sender: str, receiver: str) -> FrameHeader:
    """The header of a frame of this run. `payload` is the payload's BLAKE3 (hex)."""
    return FrameHeader(
        run=spec.id,
        name=name,
        shape=payload_shape(spec),
        dtype=spec.boundary.wire,
        size=payload_size(spec),
        payload=payload,
        sender=sender,
        receiver=receiver,
    )


def frame_size(spec: RunSpec, name: FrameName, sender: str, receiver: str) -> int:
    """Exact size of a whole frame. It is known beforehand, since all digests have the same length."""
    header = make_header(spec, name, "0" * 64, sender, receiver).canonical()
    return PREFIX_BYTES + len(header) + SIGNATURE_BYTES + payload_size(spec)


def encode_frame(header: FrameHeader, payload: bytes | memoryview, sign: Callable[[bytes], bytes]) -> bytes:
    """The bytes of a frame. `sign` makes the sender's 64-byte signature over the bytes it is given.

    They are the one copy of the payload that is made.
    """
    text = header.canonical()
    return _joined(text, sign(signing_bytes(DOMAIN, text)), payload)


def is_signed(header: bytes, signature: bytes, hotkey: str, verify: Verify = signatures.verify) -> bool:
    """Whether `signature` is that of `hotkey` over a frame's header (canonical JSON)."""
    return verify(signing_bytes(DOMAIN, header), signature, hotkey)


def decode_frame(data: bytes, spec: RunSpec) -> Frame:
    """Parse and check a frame as `check_frame` does, into memory of its own."""
    found = check_frame(data, spec)
    return Frame(found.header, found.signature, bytes(found.payload))


def check_frame(data: bytes | bytearray, spec: RunSpec) -> CheckedFrame:
    """Parse a frame and check its size, form, shape, digest and signature. Raises FrameError.

    The caller must check that this sender was to send this frame.
    """
    body = head_size(data)
    if len(data) != body + payload_size(spec):
        raise FrameError(f"{len(data)} bytes where the run's frames have {body + payload_size(spec)}")
    header = read_head(bytes(data[:body]), spec)
    if blake3(memoryview(data)[body:]).hexdigest() != header.payload:
        raise FrameError("the payload does not have the digest that its header names")
    return CheckedFrame(header, bytes(data[body - SIGNATURE_BYTES : body]), data, body)


def head_size(data: bytes | bytearray) -> int:
    """Bytes of a frame before its payload, by its first `PREFIX_BYTES`. Raises FrameError."""
    if len(data) < PREFIX_BYTES:
        raise FrameError("shorter than a frame's prefix")
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise FrameError("not a frame")
    if version != FRAME_VERSION:
        raise FrameError(f"a frame of version {version}, and this build reads version {FRAME_VERSION}")
    return PREFIX_BYTES + int(length) + SIGNATURE_BYTES


def read_head(head: bytes, spec: RunSpec) -> FrameHeader:
    """The header of a frame of this run, from the bytes before its payload.

    Raises FrameError: malformed, of another run, or not signed by the sender that it names.
    """
    if len(head) != head_size(head):
        raise FrameError("not the bytes before a frame's payload")
    text, signature = head[PREFIX_BYTES:-SIGNATURE_BYTES], head[-SIGNATURE_BYTES:]
    try:
        header = FrameHeader.model_validate_json(text)
    except ValidationError as error:
        raise FrameError(f"malformed header: {counted(error.error_count(), 'error')}") from error
    if header.canonical() != text:
        raise FrameError("the header is not in canonical form")
    form = (header.run, header.shape, header.dtype, header.size)
    if form != (spec.id, payload_shape(spec), spec.boundary.wire, payload_size(spec)):
        raise FrameError("the header's run, shape, dtype or size is not this run's")
    if not is_signed(text, signature, header.sender):
        raise FrameError("the header is not signed by its sender")
    return header


def _joined(header: bytes, signature: bytes, payload: bytes | memoryview) -> bytes:
    return b"".join((_PREFIX.pack(MAGIC, FRAME_VERSION, len(header)), header, signature, payload))


def _signed(header: FrameHeader, signature: bytes) -> SignedHeader:
    return SignedHeader(header=header.canonical().decode(), signature=signature.hex())


def split_frames(data: bytes, spec: RunSpec) -> Iterator[Frame]:
    """The frames that lie one after another in `data`, each checked as by `decode_frame`.

    Raises FrameError at the first that is malformed or cut short.
    """
    start = 0
    while start < len(data):
        end = start + head_size(data[start : start + PREFIX_BYTES]) + payload_size(spec)
        yield decode_frame(data[start:end], spec)
        start = end
