"""What the boxes of the emulated internet let through, in virtual time."""

from __future__ import annotations

import random

import pytest

from tests.support.internet.nats import UDP_IDLE_S, Box, Nat
from tests.support.internet.packets import TCP, UDP, Endpoint

INSIDE, HERE = Endpoint(0xC0A80002, 4000), 0xC6120001
SERVER, PEER = Endpoint(0xC6120002, 80), Endpoint(0xC6120003, 7000)


def box(kind: Nat, *, keeps_ports: bool = False) -> Box:
    return Box(kind, HERE, random.Random(1), keeps_ports=keeps_ports)


def seen(of: Box, target: Endpoint, now: float = 0.0, protocol: int = UDP) -> Endpoint:
    found = of.outward(now, protocol, INSIDE, target)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", [Nat.FULL_CONE, Nat.PORT_RESTRICTED, Nat.SYMMETRIC])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_an_answer_finds_its_way_back(kind: Nat, protocol: int) -> None:
    nat = box(kind)
    outside = seen(nat, SERVER, protocol=protocol)
    assert outside.address == HERE
    assert nat.inward(1.0, protocol, SERVER, outside) == INSIDE


def test_a_cone_looks_the_same_to_all_and_a_symmetric_nat_to_nobody() -> None:
    for kind, same in ((Nat.FULL_CONE, True), (Nat.PORT_RESTRICTED, True), (Nat.SYMMETRIC, False)):
        nat = box(kind)
        assert (seen(nat, SERVER) == seen(nat, PEER)) is same


@pytest.mark.parametrize(
    ("kind", "let_in"),
    [(Nat.NONE, True), (Nat.FULL_CONE, True), (Nat.PORT_RESTRICTED, False), (Nat.SYMMETRIC, False)],
    ids=str,
)
def test_a_stranger_is_let_in_by_open_boxes_alone(kind: Nat, let_in: bool) -> None:
    nat = box(kind)
    outside = seen(nat, SERVER)
    assert (nat.inward(0.0, UDP, PEER, outside) is not None) is let_in


def test_who_was_sent_to_may_send_to_a_restricted_cone() -> None:
    nat = box(Nat.PORT_RESTRICTED)
    outside = seen(nat, SERVER)
    seen(nat, PEER)
    assert nat.inward(0.0, UDP, PEER, outside) == INSIDE
    assert nat.inward(0.0, UDP, Endpoint(PEER.address, PEER.port + 1), outside) is None


def test_a_flow_of_udp_is_forgotten_after_a_silence_and_one_of_tcp_is_not() -> None:
    nat = box(Nat.PORT_RESTRICTED)
    flows = {protocol: seen(nat, SERVER, protocol=protocol) for protocol in (TCP, UDP)}
    later = UDP_IDLE_S + 1
    assert nat.inward(later, TCP, SERVER, flows[TCP]) == INSIDE
    assert nat.inward(later, UDP, SERVER, flows[UDP]) is None
    assert seen(nat, SERVER, later) != flows[UDP]
    assert nat.inward(later, UDP, SERVER, flows[UDP]) is None


def test_udp_is_blocked_both_ways_while_tcp_passes() -> None:
    nat = box(Nat.FULL_CONE)
    outside, port = seen(nat, SERVER), seen(nat, SERVER, protocol=TCP)
    nat.udp_blocked = True
    assert nat.outward(0.0, UDP, INSIDE, SERVER) is None
    assert nat.inward(0.0, UDP, SERVER, outside) is None
    assert nat.inward(0.0, TCP, SERVER, port) == INSIDE


def test_a_forwarded_port_is_open_to_all_and_answers_come_from_it() -> None:
    nat = box(Nat.SYMMETRIC)
    nat.forward(TCP, 9000, INSIDE)
    assert nat.inward(0.0, TCP, PEER, Endpoint(HERE, 9000)) == INSIDE
    assert nat.outward(0.0, TCP, INSIDE, PEER) == Endpoint(HERE, 9000)


def test_a_cone_keeps_a_port_for_the_first_host_that_has_it() -> None:
    nat, other = box(Nat.PORT_RESTRICTED, keeps_ports=True), Endpoint(INSIDE.address + 1, INSIDE.port)
    assert seen(nat, SERVER) == Endpoint(HERE, INSIDE.port)
    drawn = nat.outward(0.0, UDP, other, SERVER)
    assert drawn is not None
    assert drawn != seen(nat, SERVER)
    assert nat.inward(0.0, UDP, SERVER, drawn) == other
    assert seen(box(Nat.SYMMETRIC, keeps_ports=True), SERVER).port != INSIDE.port


def test_a_restarted_box_knows_no_flow() -> None:
    nat = box(Nat.FULL_CONE)
    outside = seen(nat, SERVER)
    nat.forget()
    assert nat.inward(0.0, UDP, SERVER, outside) is None
