"""Registering a node's hotkey on its subnet."""

from __future__ import annotations

from iota.chain.open_chain import open_chain
from iota.protocol.keys import load_hotkey
from iota.protocol.messages import Role
from iota.settings import ChainSettings


async def register(settings: ChainSettings, role: Role) -> str:
    """Register the hotkey, unless it is; a sentence about its place.

    Raises:
        ValueError: the wallet is not there, or cannot be read.
        ChainError: the chain cannot be reached, or refuses.
    """
    hotkey = load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    async with open_chain(settings.chain, hotkey) as chain:
        if await chain.uid(settings.netuid, hotkey.ss58) is None:
            (await chain.register(settings.netuid, role)).check()
        uid = await chain.uid(settings.netuid, hotkey.ss58)
    return f"{hotkey.ss58} is uid {uid} of subnet {settings.netuid}"
