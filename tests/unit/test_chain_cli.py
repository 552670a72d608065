"""`iota chain`: what it prints of a subnet, and the one thing it writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner, Result

from iota.chain import open_chain
from iota.chain.ledger.server import make_app
from iota.cli.chain import app
from iota.identity.keys import create_hotkey
from iota.protocol.messages import Role


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with TestServer(make_app(tmp_path / "ledger.db", netuid=9, weights_rate_limit=0)) as server:
        yield str(server.make_url("/"))


async def iota_chain(url: str, *arguments: str) -> Result:
    """In a thread of its own: the command runs its own event loop, and the ledger lives in this one."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, [*arguments, "--network", url]))


async def test_the_subnet_its_weights_and_a_commitment_are_shown(url: str, tmp_path: Path) -> None:
    validator, miner = (create_hotkey("w", name, tmp_path) for name in ("validator", "miner"))
    async with open_chain(url, miner) as chain:
        (await chain.register(9)).check()
    async with open_chain(url, validator) as chain:
        (await chain.register(9, Role.VALIDATOR)).check()
        (await chain.set_weights(9, {1: 3.0, 0: 1.0})).check()
        (await chain.commit(9, b"tip")).check()
    shown = await iota_chain(url, "show")
    assert shown.exit_code == 0
    assert validator.ss58 in shown.output
    assert "3 of 256 uids, owner uid 0" in shown.output
    printed = json.loads((await iota_chain(url, "show", "--json")).output)
    assert [n["hotkey"] for n in printed["subnet"]["neurons"]][1:] == [miner.ss58, validator.ss58]
    assert "0: 0.2500, 1: 0.7500" in (await iota_chain(url, "weights")).output
    assert (await iota_chain(url, "commitment", validator.ss58)).output.endswith(f" {b'tip'.hex()}\n")


async def test_serve_publishes_an_address(url: str, tmp_path: Path) -> None:
    hotkey = create_hotkey("w", "h", tmp_path)
    async with open_chain(url, hotkey) as chain:
        (await chain.register(9)).check()
    wallet = ("--wallet.path", str(tmp_path), "--wallet.name", "w", "--wallet.hotkey", "h")
    served = await iota_chain(url, "serve", "203.0.113.7", "8091", *wallet)
    assert served.exit_code == 0, served.output
    assert "203.0.113.7:8091" in (await iota_chain(url, "show")).output


async def test_what_is_not_there_is_said(url: str) -> None:
    assert "no validator of subnet 9 has weights" in (await iota_chain(url, "weights")).output
    nobody = await iota_chain(url, "commitment", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
    assert "has committed nothing" in str(nobody.exception)
    assert "subnet 77" in str((await iota_chain(url, "show", "--netuid", "77")).exception)
