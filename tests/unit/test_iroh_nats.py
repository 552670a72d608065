"""Iroh links through NATs, in network namespaces."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.emulated_internet import MISSING, EmulatedInternet, Host, Nat

pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"an emulated internet {MISSING}")
WITHIN_S = 60.0


@dataclass
class Talker:
    """A link in a host."""

    process: subprocess.Popen[str]
    contact: dict[str, Any]

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    async def ask(self, **order: Any) -> dict[str, Any]:
        self.tell(**order)
        return await answer(self.process)

    async def knows_its_nat(self) -> str:
        """Its NAT, once two peers have said what they see; its contact is then as others need it."""
        async with asyncio.timeout(WITHIN_S):
            while (said := await self.ask(status=True))["nat"] == "unknown":  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.2)
        self.contact = said["contact"]
        return said["nat"]

    async def push(self, to: Talker) -> str | None:
        return (await self.ask(push=to.contact))["error"]


async def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return json.loads(await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), WITHIN_S))


async def talker(host: Host, seed: int) -> Talker:
    argv = [sys.executable, "-m", "tests.support.iroh_host", str(seed), host.public_address]
    process = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return Talker(process, await answer(process))


async def four(internet: EmulatedInternet, kinds: list[Nat]) -> list[Talker]:
    """Two links behind `kinds`, and two public ones, which have told them how they see them."""
    boxes = [await internet.nat(kind) for kind in kinds]
    hosts = [await internet.host(f"home{n}", behind=box) for n, box in enumerate(boxes)]
    hosts += [await internet.host(f"public{n}") for n in range(2)]
    links = [await talker(host, n + 1) for n, host in enumerate(hosts)]
    for link in links[:2]:
        for public in links[2:]:
            link.tell(prepare=public.contact)
    return links


@pytest.mark.parametrize(
    ("kinds", "natures"),
    [
        ([Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED], ["cone", "cone"]),
        ([Nat.FULL_CONE, Nat.SYMMETRIC], ["cone", "symmetric"]),
    ],
    ids=["two cones", "a full cone and a symmetric one"],
)
async def test_two_behind_nats_push_directly_once_both_dial(kinds: list[Nat], natures: list[str]) -> None:
    async with EmulatedInternet() as internet:
        one, other, *_ = await four(internet, kinds)
        assert [await each.knows_its_nat() for each in (one, other)] == natures
        one.tell(prepare=other.contact)
        other.tell(prepare=one.contact)
        async with asyncio.timeout(WITHIN_S):
            for sender, receiver in ((one, other), (other, one)):
                while await sender.push(receiver) is not None:  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.2)
            key = other.contact["iroh"]["key"]
            while (await one.ask(status=True))["paths"].get(key) != "direct":  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.2)


async def test_whom_two_nats_keep_apart_is_unreachable_and_public_peers_are_not() -> None:
    async with EmulatedInternet() as internet:
        one, other, public, _ = await four(internet, [Nat.PORT_RESTRICTED, Nat.SYMMETRIC])
        assert [await each.knows_its_nat() for each in (one, other)] == ["cone", "symmetric"]
        one.tell(prepare=other.contact)
        other.tell(prepare=one.contact)
        assert "did not answer" in (await one.push(other) or "")
        assert await one.push(public) is None
        assert await public.push(other) is None


async def test_where_udp_is_blocked_nobody_is_reached() -> None:
    async with EmulatedInternet() as internet:
        box = await internet.nat(Nat.PORT_RESTRICTED)
        home = await talker(await internet.host("home", behind=box), 1)
        public = await talker(await internet.host("public"), 2)
        assert await home.push(public) is None
        await box.block_udp()
        assert await home.push(public) is not None
        await box.block_udp(False)
        async with asyncio.timeout(WITHIN_S):
            while await home.push(public) is not None:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.2)
