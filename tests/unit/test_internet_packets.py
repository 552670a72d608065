"""Packets of the emulated internet: checksums, and segments apart."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.internet.packets import (
    ACK,
    FIN,
    NEEDS_CSUM,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    VIRTIO,
    Endpoint,
    Packet,
)

HERE, THERE, ELSEWHERE = Endpoint(0xC0A80002, 40_000), Endpoint(0xC6120002, 80), Endpoint(0xC6120009, 51_111)


def sum16(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def frame(protocol: int, body: bytes, *, partial: bool, segment: int = 0, flags: int = ACK) -> bytes:
    """A packet from HERE to THERE as a kernel makes it, its checksum complete or left to the device."""
    at = 16 if protocol == TCP else 6
    head = bytearray(
        struct.pack("!HHIIBBHHH", HERE.port, THERE.port, 1000, 7, 5 << 4, flags, 9, 0, 0)
        if protocol == TCP
        else struct.pack("!HHHH", HERE.port, THERE.port, 8 + len(body), 0)
    )
    pseudo = struct.pack("!IIHH", HERE.address, THERE.address, protocol, len(head) + len(body))
    value = sum16(pseudo) if partial else ~sum16(pseudo + head + body) & 0xFFFF
    struct.pack_into("!H", head, at, value)
    size = 20 + len(head) + len(body)
    ip = bytearray(
        struct.pack("!BBHHHBBHII", 0x45, 0, size, 5, 0x4000, 64, protocol, 0, HERE.address, THERE.address)
    )
    struct.pack_into("!H", ip, 10, ~sum16(bytes(ip)) & 0xFFFF)
    kind = (1 if protocol == TCP else 5) if segment else 0
    return (
        VIRTIO.pack(NEEDS_CSUM if partial else 0, kind, 0, segment, 20 if partial else 0, at)
        + ip
        + head
        + body
    )


def check(packet: Packet) -> None:
    """Its lengths and checksums are right."""
    data = b"".join(map(bytes, packet.parts()))[VIRTIO.size :]
    ip, transport = data[:20], data[20:]
    assert sum16(ip) == 0xFFFF
    assert struct.unpack_from("!H", ip, 2)[0] == len(data)
    pseudo = ip[12:20] + struct.pack("!HH", ip[9], len(transport))
    at = 16 if ip[9] == TCP else 6
    (value,) = struct.unpack_from("!H", transport, at)
    if packet.head[0] & NEEDS_CSUM:
        assert value % 0xFFFF == sum16(pseudo) % 0xFFFF
    else:
        assert sum16(pseudo + transport) == 0xFFFF


@given(st.sampled_from([TCP, UDP]), st.binary(max_size=99), st.booleans())
def test_a_rewritten_packet_is_as_right_as_before(protocol: int, body: bytes, partial: bool) -> None:
    packet = Packet(frame(protocol, body, partial=partial))
    assert (packet.source, packet.target, bytes(packet.body)) == (HERE, THERE, body)
    check(packet)
    packet.rewrite(ELSEWHERE, THERE)
    check(packet)
    again = Packet(b"".join(map(bytes, packet.parts())))
    assert (again.source, again.target, bytes(again.body)) == (ELSEWHERE, THERE, body)


@given(st.sampled_from([TCP, UDP]), st.integers(101, 950), st.data())
def test_segments_apart_are_what_they_were_together(protocol: int, length: int, data: st.DataObject) -> None:
    body = bytes(place % 251 for place in range(length))
    whole = Packet(frame(protocol, body, partial=True, segment=100, flags=ACK | PSH | FIN))
    count = whole.segments
    assert count == -(-length // 100)
    assert whole.size == length + count * (40 if protocol == TCP else 28)
    first = data.draw(st.integers(0, count - 1))
    end = data.draw(st.integers(first + 1, count))
    (piece,) = whole.pieces([(first, end)])
    check(piece)
    assert bytes(piece.body) == body[first * 100 : end * 100]
    assert piece.segments == end - first
    if protocol == TCP:
        assert struct.unpack_from("!I", piece.head, piece.transport_at + 4)[0] == 1000 + first * 100
        last = bool(piece.head[piece.transport_at + 13] & FIN)
        assert last is (end == count)


def test_a_syn_is_refused_and_a_connection_reset() -> None:
    syn = Packet(frame(TCP, b"", partial=True, flags=SYN)).reset()
    middle = Packet(frame(TCP, b"abc", partial=True, flags=ACK)).reset()
    assert syn is not None
    assert middle is not None
    for answer in (syn, middle):
        check(answer)
        assert (answer.source, answer.target) == (THERE, HERE)
    assert struct.unpack_from("!IIBB", syn.head, syn.transport_at + 4) == (0, 1001, 5 << 4, RST | ACK)
    assert struct.unpack_from("!IIBB", middle.head, middle.transport_at + 4) == (7, 0, 5 << 4, RST)
    assert middle.reset() is None
    assert Packet(frame(UDP, b"", partial=True)).reset() is None


@pytest.mark.parametrize("length", range(0, 49, 4))
def test_what_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Packet(frame(TCP, b"", partial=False)[:length])


def test_no_fragment_and_no_ipv6_is_routed() -> None:
    fragment = bytearray(frame(UDP, b"", partial=False))
    fragment[VIRTIO.size + 6] = 0x20
    version_6 = bytearray(frame(UDP, b"", partial=False))
    version_6[VIRTIO.size] = 0x60
    for data in (fragment, version_6):
        with pytest.raises(ValueError, match=r"\w"):
            Packet(bytes(data))
