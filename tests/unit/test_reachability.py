"""A miner says where it can be reached, what that means for its frames, and what its operator can do."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from iota.settings import MinerSettings
from iota.wire.iroh_status import NatKind
from miner.links import addresses, open_links
from miner.reachability import Line, Reached, line_found, meaning, nat_meaning

LINE = Line(round_trip_s=0.023, up=2.5e6, down=60e6, seen="52.12.3.4")


def _reached(**changes: object) -> Reached:
    given: dict[str, object] = {
        "direct": ("10.0.0.7:8760",),
        "public": None,
        "udp_port": 8760,
        "relay": None,
    }
    return Reached(**{**given, **changes})  # type: ignore[arg-type]


def test_the_line_is_told_in_words_that_people_use() -> None:
    assert line_found(LINE) == "line to the orchestrator: 23 ms, 20 Mbps up, 480 Mbps down"
    here = Line(0.001, math.inf, 6e7, "127.0.0.1")
    assert line_found(here) == "line to the orchestrator: 1 ms, too fast to measure up, 480 Mbps down"


@pytest.mark.parametrize(
    ("reached", "words"),
    [
        (_reached(), ["behind a router", "52.12.3.4", "over iroh", "TCP 8760 and UDP 8760"]),
        (_reached(relay="https://relay.example"), ["by the relay https://relay.example"]),
        (_reached(udp_port=None), ["peers cannot reach it", "object store"]),
        (_reached(direct=("52.12.3.4:8760",)), ["at its own address", "firewall"]),
        (_reached(public="my.host:8760"), ["at my.host:8760", "forwarded"]),
    ],
    ids=["router", "relay", "tcp-alone", "public", "forwarded"],
)  # fmt: skip
def test_each_place_has_its_meaning(reached: Reached, words: list[str]) -> None:
    said = " / ".join(meaning(LINE, reached))
    assert all(word in said for word in words), said


def test_a_miner_beside_its_orchestrator_is_not_behind_a_router() -> None:
    said = meaning(Line(0.001, 1e8, 1e8, "192.168.1.5"), _reached(direct=("192.168.1.5:8760",)))
    assert "at its own address" in said[0]


def test_a_symmetric_nat_is_told_with_the_port_that_helps() -> None:
    assert "Forward UDP port 8760" in str(nat_meaning(NatKind.SYMMETRIC, 8760))
    assert "iroh passes" in str(nat_meaning(NatKind.CONE, 8760))
    assert nat_meaning(NatKind.NONE, 8760) is nat_meaning(NatKind.UNKNOWN, 8760) is None


def test_addresses_of_loopback_are_for_a_swarm_on_one_machine_alone() -> None:
    assert addresses("127.0.0.1", 8760, None, loopback=False) == ["127.0.0.1:8760"]
    here = addresses("0.0.0.0", 8760, None, loopback=True)
    assert "127.0.0.1:8760" in here
    assert "127.0.0.1:8760" not in addresses("0.0.0.0", 8760, None, loopback=False)


def test_the_operators_address_comes_first() -> None:
    found = addresses("0.0.0.0", 8760, "my.host:443", loopback=True)
    assert found[0] == "my.host:443"
    assert len(found) > 1


async def test_a_miner_that_takes_no_connections_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    unused: Any = None
    async with open_links(MinerSettings.load(transport="store"), unused, unused, unused) as links:
        assert links is None
    assert "object store alone" in caplog.text


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({"transport": "store", "tls": True, "listen": "0.0.0.0:8760"}, ["--tls", "--listen"]),
        ({"transport": "store", "public_address": "203.0.113.7:8760"}, ["--public-address"]),
        ({"transport": "store", "relay": "https://relay.example"}, ["--relay"]),
        ({"transport": "store"}, []),
    ],
)
async def test_flags_that_do_nothing_are_named(
    given: dict[str, Any], idle: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    unused: Any = None
    async with open_links(MinerSettings.load(**given), unused, unused, unused):
        pass
    named = [f"{flag} does nothing with --transport store" for flag in idle]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == named
