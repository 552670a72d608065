"""What peers' words about this endpoint's address come to."""

from __future__ import annotations

import pytest

from iota.wire.iroh_status import EndpointStatus, NatKind, PeerPath, nat_kind, seen_addresses
from tests.support.iroh_links import iroh_ends

LOCAL = ("192.168.0.2:4433", "[fe80::1]:4433")


def endpoint(*sees: str) -> EndpointStatus:
    """An endpoint with a peer for each of `sees`."""
    peers = tuple(
        PeerPath(key=f"{number:064x}", path="direct", address="1.2.3.4:5", rtt_ms=1, sees=each)
        for number, each in enumerate(sees)
    )
    return EndpointStatus(key="0" * 64, bound=("0.0.0.0:4433",), addresses=LOCAL, relay=None, peers=peers)


@pytest.mark.parametrize(
    ("sees", "kind"),
    [
        ([], NatKind.UNKNOWN),
        (["", ""], NatKind.UNKNOWN),
        (["192.168.0.2:4433"], NatKind.NONE),
        (["127.0.0.1:4433", "127.0.0.1:4433"], NatKind.NONE),
        (["198.51.100.1:4433"], NatKind.UNKNOWN),
        (["198.51.100.1:4433", "198.51.100.1:4433", "192.168.0.2:4433"], NatKind.CONE),
        (["198.51.100.1:4433", "198.51.100.1:4434"], NatKind.SYMMETRIC),
    ],
)
def test_the_kind_of_nat_shows_in_what_peers_see(sees: list[str], kind: NatKind) -> None:
    assert nat_kind(endpoint(*sees), ()) is kind


def test_an_address_that_was_given_is_not_this_machines_own() -> None:
    seen = endpoint("198.51.100.1:4433", "198.51.100.1:4433")
    known = seen.model_copy(update={"addresses": (*LOCAL, "198.51.100.1:4433")})
    assert nat_kind(known, ["198.51.100.1:4433"]) is NatKind.CONE


def test_one_peer_alone_is_not_believed_but_about_a_known_host() -> None:
    lone = endpoint("203.0.113.5:1", "198.51.100.1:4433", "", "[2001:db8::5]:7")
    assert seen_addresses(lone, ()) == []
    assert seen_addresses(lone, {"198.51.100.1"}) == ["198.51.100.1:4433"]
    assert seen_addresses(lone, {"2001:db8::5"}) == ["[2001:db8::5]:7"]
    assert seen_addresses(endpoint("203.0.113.5:1", "203.0.113.5:1"), ()) == ["203.0.113.5:1"]


async def test_connected_peers_say_where_they_see_each_other() -> None:
    async with iroh_ends(2) as (one, other):
        one.link.prepare(other.contact)
        for end in (one, other):
            await end.until(lambda end=end: end.link.status.nat is NatKind.NONE)
            end.link.add_addresses([end.link.status.endpoint.peers[0].sees])  # as the orchestrator sees it
            assert end.link.status.nat is NatKind.NONE
            assert end.link.status.endpoint.peers[0].sees in end.contact.iroh.addresses
