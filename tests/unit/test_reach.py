"""URLs that an orchestrator names lead to no service that only the node can reach."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from iota.client.orchestrator import OrchestratorClient
from iota.http import AddressRefused, Reach
from iota.http.reach import Place, place_of
from iota.store import ObjectClient, UrlRefused
from tests.support.hostile_http import Hostile, hostile
from tests.support.orchestrators import orchestrator

PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK = "203.0.114.7", "10.1.2.3", "169.254.1.1", "127.0.0.1"


async def good(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")


@pytest.fixture
async def service() -> AsyncIterator[Hostile]:
    """A service of this machine, which no stranger can reach."""
    async with hostile(good) as server:
        yield server


def reach_of(*addresses: str | None, anywhere: bool = False) -> Reach:
    reach = Reach(anywhere=anywhere)
    for address in addresses:
        reach.orchestrator_at(address)
    return reach


async def get(reach: Reach | None, url: str) -> bytes:
    async with ObjectClient(reach) as client:
        return await client.get(url, 100, 10)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "0.0.0.0", "0x7f000001", "localhost", "LOCALHOST", "[::ffff:127.0.0.1]"],
)
@pytest.mark.parametrize("seen", [(PUBLIC,), (None,), (PRIVATE,), (), (LOOPBACK, PUBLIC)], ids=str)
async def test_an_orchestrator_elsewhere_cannot_send_a_node_to_its_own_machine(
    service: Hostile, host: str, seen: tuple[str | None, ...]
) -> None:
    port = urlsplit(service.url).port
    with pytest.raises(UrlRefused, match="--allow-private-urls") as caught:
        await get(reach_of(*seen), f"http://{host}:{port}/k?secret")
    assert service.requests == []
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0177.0.0.1"])
async def test_an_address_in_an_odd_form_is_refused(service: Hostile, host: str) -> None:
    with pytest.raises(UrlRefused, match="no HTTP URL"):
        await get(reach_of(LOOPBACK), f"http://{host}:{urlsplit(service.url).port}/k")
    assert service.requests == []


async def test_an_orchestrator_on_this_machine_and_a_store_of_ones_own_may_name_it(service: Hostile) -> None:
    for reach in (reach_of(LOOPBACK), None, reach_of(PUBLIC, anywhere=True)):
        assert await get(reach, f"{service.url}/k") == b"good"
    assert len(service.requests) == 3


async def test_a_name_that_resolves_to_another_address_at_the_second_look_is_refused(
    service: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, answers = socket.getaddrinfo, [LOOPBACK, PUBLIC, LOOPBACK]

    def rebinding(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up(answers.pop(0) if host == "store.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = urlsplit(service.url).port
    with pytest.raises(UrlRefused):
        await get(reach_of(PUBLIC), f"http://store.example:{port}/k")
    assert answers == [PUBLIC, LOOPBACK], "the address that was refused is the one that was looked up"
    assert service.requests == []


async def test_a_real_orchestrator_on_loopback_opens_loopback_to_its_urls(
    service: Hostile, tmp_path: Path
) -> None:
    reach = Reach()
    with pytest.raises(UrlRefused):
        await get(reach, f"{service.url}/k")
    async with (
        orchestrator(tmp_path / "j.db") as running,
        OrchestratorClient(None, running.url, retry_for_s=0, reach=reach) as client,
    ):
        await client.run()
    assert await get(reach, f"{service.url}/k") == b"good"


async def test_a_proxy_on_this_machine_serves_for_public_names_and_not_for_private_addresses(
    service: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", service.url)
    monkeypatch.delenv("no_proxy", raising=False)
    reach = Reach()
    async with OrchestratorClient(None, "http://run.invalid", retry_for_s=0, reach=reach) as client:
        with pytest.raises(Exception, match="no RunInfo"):
            await client.run()
    assert await get(reach, "http://store.invalid/k") == b"good"
    asked = len(service.requests)
    for host in ("169.254.169.254", "10.0.0.1", "[fd00:ec2::254]", "2852039166"):
        with pytest.raises(UrlRefused, match="--allow-private-urls"):
            await get(reach, f"http://{host}/latest/meta-data")
    assert len(service.requests) == asked


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/k", "//host/k", "gopher://127.0.0.1/", "/k"]
)
async def test_a_url_of_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused, match="no HTTP URL"):
        await get(reach_of(LOOPBACK), url)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("8.8.8.8", Place.PUBLIC),
        ("2001:4860:4860::8888", Place.PUBLIC),
        ("64:ff9b::808:808", Place.PUBLIC),
        ("10.0.0.1", Place.PRIVATE),
        ("172.17.0.1", Place.PRIVATE),
        ("192.168.1.1", Place.PRIVATE),
        ("100.100.100.201", Place.PRIVATE),
        ("192.0.0.8", Place.PRIVATE),
        ("fd00:ec2::253", Place.PRIVATE),
        ("fec0::1", Place.PRIVATE),
        ("64:ff9b:1::a00:1", Place.PRIVATE),
        ("::a00:1", Place.PRIVATE),
        ("100.100.100.200", Place.LINK_LOCAL),
        ("168.63.129.16", Place.LINK_LOCAL),
        ("192.0.0.192", Place.LINK_LOCAL),
        ("fd00:ec2::254", Place.LINK_LOCAL),
        ("::ffff:168.63.129.16", Place.LINK_LOCAL),
        ("64:ff9b::a00:1", Place.PRIVATE),
        ("2002:a00:1::", Place.PRIVATE),
        ("169.254.169.254", Place.LINK_LOCAL),
        ("::ffff:169.254.169.254", Place.LINK_LOCAL),
        ("64:ff9b::a9fe:a9fe", Place.LINK_LOCAL),
        ("fe80::1%eth0", Place.LINK_LOCAL),
        ("127.8.8.8", Place.LOOPBACK),
        ("::1", Place.LOOPBACK),
        ("::", Place.LOOPBACK),
        ("0.0.0.0", Place.LOOPBACK),
        ("::ffff:127.0.0.1", Place.LOOPBACK),
        ("64:ff9b::7f00:1", Place.LOOPBACK),
        ("2002:7f00:1::", Place.LOOPBACK),
    ],
)
def test_where_an_address_is(address: str, place: Place) -> None:
    assert place_of(address) is place


@pytest.mark.parametrize(
    ("seen", "permitted"),
    [
        ((PUBLIC,), {PUBLIC}),
        ((None,), {PUBLIC}),
        ((PRIVATE,), {PUBLIC, PRIVATE}),
        ((LOOPBACK,), {PUBLIC, PRIVATE, LOOPBACK}),
        ((LINK_LOCAL,), {PUBLIC, PRIVATE, LINK_LOCAL}),
        ((LOOPBACK, PRIVATE), {PUBLIC, PRIVATE}),
        ((LOOPBACK, PUBLIC), {PUBLIC}),
        ((), {PUBLIC}),
    ],
)
def test_urls_lead_no_nearer_than_the_farthest_place_of_the_orchestrator(
    seen: tuple[str | None, ...], permitted: set[str]
) -> None:
    reach = reach_of(*seen)

    def permits(address: str) -> bool:
        try:
            reach.check(address)
        except AddressRefused:
            return False
        return True

    assert {a for a in (PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL) if permits(a)} == permitted
