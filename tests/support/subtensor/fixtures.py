"""Fixtures for tests that need the real SDK against a chain. Import into a test module those it uses::

from tests.support.subtensor.fixtures import client, loopback_node, sdk_home, within

__all__ = ["loopback_node", "sdk_home"]

async def test_head(loopback_node: LoopbackNode) -> None:
    async with client(loopback_node) as sdk:
        assert await within(sdk.block()) == loopback_node.chain.head.number
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import bittensor as bt
import pytest

from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.node import LoopbackNode

NETUID = 9
DEADLINE_S = 10.0
"""Of one call in a test, where nothing is wrong."""

T = TypeVar("T")


@pytest.fixture
def sdk_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory and a metadata cache that are not the user's: the SDK writes both when it connects."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(home / "token-symbols.json"))
    # Shared by all tests of a session: it is keyed by genesis hash and spec version.
    monkeypatch.setenv("BITTENSOR_RUNTIME_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "runtime-cache"))
    return home


@pytest.fixture
async def loopback_node(sdk_home: Path) -> AsyncIterator[LoopbackNode]:
    """A node that makes a submission final at once, over a chain with plain weights."""
    async with LoopbackNode(Subtensor(netuid=NETUID), instant=True) as node:
        yield node


@pytest.fixture
def new_wallet(sdk_home: Path) -> Callable[[str], Any]:
    """Makes a wallet of the SDK, with unencrypted keys, by the name of its coldkey."""

    def create(name: str) -> Any:
        wallet = bt.Wallet(name, "hot", str(sdk_home / "wallets"))
        wallet.create_new_coldkey(use_password=False, suppress=True)
        wallet.create_new_hotkey(use_password=False, suppress=True)
        return wallet

    return create


def enrolled(node: LoopbackNode, wallet: Any) -> Any:
    """The wallet, now of a validator with stake and permit on the node's chain, and with TAO for fees."""
    hotkey, coldkey = wallet.hotkey.ss58_address, wallet.coldkey.ss58_address
    node.chain.fund(coldkey, 100)
    node.chain.enroll(hotkey, coldkey, stake=1000, permit=True)
    return wallet


@contextlib.asynccontextmanager
async def client(node: LoopbackNode, **options: Any) -> AsyncIterator[Any]:
    """The SDK's client of a node; it falls back to no other endpoint.

    The client's own end would hang on Python 3.11 if an answer arrived while it closes: its `wait_for`
    loses the one cancellation that it gets. The deadline cancels it once more.
    """
    sdk = await within(bt.Subtensor(node.url, fallback_endpoints=[], archive_endpoints=[], **options))
    try:
        yield sdk
    finally:
        await within(sdk.close(), 2.0)


async def within(call: Awaitable[T], seconds: float = DEADLINE_S) -> T:
    """A call with a deadline; the SDK's own are minutes."""
    return await asyncio.wait_for(call, seconds)
