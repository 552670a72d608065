"""IPv4 packets as a TUN device with a virtio header gives and takes them: parsed, rewritten, split. Pure.

The kernel hands over many segments of TCP, or datagrams of UDP, as one packet with one header (`gso_size`
bytes of each), and takes such packets: so a router in Python costs as little for small segments as for large.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

TCP, UDP, ICMP = 6, 17, 1
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
VIRTIO = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset: `virtio_net_hdr` of <linux/virtio_net.h>."""
NEEDS_CSUM, GSO_NONE = 1, 0
_IP = VIRTIO.size
"""Where the IP header begins."""
_CHECKSUM_AT = {TCP: 16, UDP: 6}
_PORTS = struct.Struct("!HH")
_FIRST = struct.Struct("!BBHHHBBHII")
"""The fixed part of an IPv4 header."""


class Endpoint(NamedTuple):
    """An IPv4 address as a number, and a port (0 for ICMP)."""

    address: int
    port: int


class Packet:
    """One packet, or many that share a header: `head`, all before the payload, and `body`."""

    __slots__ = (
        "body",
        "head",
        "per_segment",
        "protocol",
        "segments",
        "size",
        "source",
        "target",
        "transport_at",
    )

    def __init__(self, frame: bytes) -> None:
        """Raises ValueError for what is no whole IPv4 packet of TCP, UDP or ICMP, and for fragments."""
        if len(frame) < _IP + 20 or frame[_IP] >> 4 != 4:
            raise ValueError("no IPv4 packet")
        version, _, self.size, _, fragment, _, self.protocol, _, source, target = _FIRST.unpack_from(
            frame, _IP
        )
        if fragment & 0x3FFF:
            raise ValueError("a fragment")
        at = self.transport_at = _IP + 4 * (version & 15)
        if self.protocol == TCP and len(frame) >= at + 20:
            end = at + 4 * (frame[at + 12] >> 4)
        elif self.protocol == UDP and len(frame) >= at + 8:
            end = at + 8
        elif self.protocol == ICMP:
            end = at
        else:
            raise ValueError("another protocol, or cut short")
        ports = _PORTS.unpack_from(frame, at) if self.protocol != ICMP else (0, 0)
        self.source, self.target = Endpoint(source, ports[0]), Endpoint(target, ports[1])
        self.head, self.body = bytearray(frame[:end]), memoryview(frame)[end:]
        self.per_segment, self.segments = VIRTIO.unpack_from(frame)[3], 1
        if self.per_segment and self.body.nbytes > self.per_segment:
            self.segments = -(-self.body.nbytes // self.per_segment)
            # each segment has a header of its own on the line
            self.size += (self.segments - 1) * (end - _IP)

    def parts(self) -> tuple[bytearray, memoryview]:
        """What is written to a TUN device."""
        return self.head, self.body

    def rewrite(self, source: Endpoint, target: Endpoint) -> None:
        """Put other endpoints into the headers, with their checksums."""
        if source == self.source and target == self.target:
            return
        old = _addresses(self.head)
        struct.pack_into("!II", self.head, _IP + 12, source.address, target.address)
        new = _addresses(self.head)
        self._update_checksum(_IP + 10, old, new, partial=False)
        if self.protocol != ICMP:
            partial = bool(self.head[0] & NEEDS_CSUM)
            checksum_at = self.transport_at + _CHECKSUM_AT[self.protocol]
            if partial:  # the sum so far, of addresses and length; the kernel adds the rest
                self._update_checksum(checksum_at, old, new, partial=True)
            elif self.protocol == TCP or self.head[checksum_at : checksum_at + 2] != b"\0\0":
                both = (*old, *self.source[1:], *self.target[1:]), (*new, *source[1:], *target[1:])
                self._update_checksum(checksum_at, *both, partial=False)
            _PORTS.pack_into(self.head, self.transport_at, source.port, target.port)
        self.source, self.target = source, target

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> Iterator[Packet]:
        """The segments of each range `(first, end)` as a packet of their own."""
        for first, end in ranges:
            yield self if (first, end) == (0, self.segments) else self._piece(first, end)

    def reset(self) -> Packet | None:
        """The answer of a host that knows nothing of this connection; None where no answer is due."""
        flags = self.head[self.transport_at + 13] if self.protocol == TCP else RST
        if flags & RST:
            return None
        sequence, acknowledged = struct.unpack_from("!II", self.head, self.transport_at + 4)
        taken = self.body.nbytes + bool(flags & SYN) + bool(flags & FIN)
        unknown = (0, (sequence + taken) & 0xFFFFFFFF, RST | ACK)
        answer = (acknowledged, 0, RST) if flags & ACK else unknown
        return Packet(_tcp(self.target, self.source, *answer))

    def _piece(self, first: int, end: int) -> Packet:
        body = self.body[first * self.per_segment : end * self.per_segment]
        head, at = bytearray(self.head), self.transport_at
        flags, gso_type, *rest = VIRTIO.unpack_from(head)
        rest[1] = self.per_segment if end - first > 1 else 0
        VIRTIO.pack_into(head, 0, flags, gso_type if end - first > 1 else GSO_NONE, *rest)
        if self.protocol == TCP:
            (sequence,) = struct.unpack_from("!I", head, at + 4)
            struct.pack_into("!I", head, at + 4, (sequence + first * self.per_segment) & 0xFFFFFFFF)
            if end < self.segments:
                head[at + 13] &= ~(FIN | PSH)
        else:
            struct.pack_into("!H", head, at + 4, 8 + body.nbytes)
        struct.pack_into("!HH", head, _IP + 2, len(head) - _IP + body.nbytes, 0)
        struct.pack_into("!H", head, _IP + 10, 0)
        struct.pack_into("!H", head, _IP + 10, ~_sum(_words(head[_IP:at])) & 0xFFFF)
        # the sum over the pseudo header: super-packets always leave the rest to the kernel
        length = len(head) - at + body.nbytes
        pseudo = _sum((*_words(head[_IP + 12 : _IP + 20]), self.protocol, length))
        struct.pack_into("!H", head, at + _CHECKSUM_AT[self.protocol], pseudo)
        return Packet(bytes(head) + bytes(body))

    def _update_checksum(self, at: int, old: Sequence[int], new: Sequence[int], *, partial: bool) -> None:
        """RFC 1624, on a checksum (the complement of a sum), or on a sum that is `partial`."""
        (value,) = struct.unpack_from("!H", self.head, at)
        total = value if partial else ~value & 0xFFFF
        total = _sum((total, *(~word & 0xFFFF for word in old), *new))
        struct.pack_into("!H", self.head, at, total if partial else ~total & 0xFFFF)


def _tcp(source: Endpoint, target: Endpoint, sequence: int, acknowledged: int, flags: int) -> bytes:
    """A frame of a TCP segment without payload, whose checksum is left to the kernel."""
    ip = bytearray(_FIRST.pack(0x45, 0, 40, 0, 0, 64, TCP, 0, source.address, target.address))
    struct.pack_into("!H", ip, 10, ~_sum(_words(ip)) & 0xFFFF)
    pseudo = _sum((*_words(ip[12:20]), TCP, 20))
    tcp = struct.pack(
        "!HHIIBBHHH", source.port, target.port, sequence, acknowledged, 5 << 4, flags, 0, pseudo, 0
    )
    return VIRTIO.pack(NEEDS_CSUM, GSO_NONE, 0, 0, 20, _CHECKSUM_AT[TCP]) + bytes(ip) + tcp


def _addresses(head: bytearray) -> tuple[int, int, int, int]:
    return struct.unpack_from("!HHHH", head, _IP + 12)


def _words(data: bytes | bytearray) -> tuple[int, ...]:
    return struct.unpack(f"!{len(data) // 2}H", data)


def _sum(words: Sequence[int]) -> int:
    """Sum in ones' complement, of 16-bit words."""
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
