"""Registers a node's hotkey on its subnet, after the operator has confirmed the price."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from iota.chain.chain import Chain, ChainInfo, RegistrationTerms
from iota.chain.errors import Unavailable
from iota.chain.open_chain import open_chain
from iota.console.command_flags import chain_flags, command_line, wallet_flags
from iota.console.redaction import without_secrets
from iota.identity.coldkey import Coldkey, coldkey_address, coldkey_is_encrypted, coldkey_path, load_coldkey
from iota.identity.keys import load_hotkey
from iota.protocol.messages import Role
from iota.settings import ChainSettings

TOLERANCE: Final = 0.10
"""Share by which the price paid may exceed the price shown, unless a limit is given."""
FEES_TAO: Final = 0.001
"""Room for the transaction's fee, and for the least balance that keeps an account alive."""
_FINALITY_BLOCKS: Final = 10
"""Blocks that the newest finalized block may lag behind the head; usually 2 or 3."""


class Prompts(Protocol):
    """Messages to the operator, and questions (`iota.console.prompts.TerminalPrompts`)."""

    def show(self, text: str) -> None:
        """Show `text`."""

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question."""

    def password(self, path: Path) -> str:
        """Ask for the password of the key file at `path`."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """A possible registration: hotkey, role, chain, and the terms as just read."""

    settings: ChainSettings
    role: Role
    hotkey: str
    info: ChainInfo
    terms: RegistrationTerms


async def register(
    settings: ChainSettings,
    role: Role,
    prompts: Prompts,
    *,
    max_cost_tao: float | None = None,
    connect: Callable[..., Chain] = open_chain,
) -> str:
    """Register the hotkey unless it is registered; returns a sentence with its uid.

    Args:
        max_cost_tao: the most to pay; by default `TOLERANCE` above the price shown.
        connect: opens the chain, with the arguments of `open_chain`.

    Raises:
        ValueError: the wallet is unusable, the price too high, the balance too low, or the price was not
            confirmed; nothing was sent.
        ChainError: the chain cannot be reached, or refuses.
    """
    hotkey = load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    place = f"of subnet {settings.netuid}"
    async with connect(settings.chain) as chain:
        uid = await chain.uid(settings.netuid, hotkey.ss58)
        info, terms = await chain.info(), await chain.registration_terms(settings.netuid)
        offer = _Offer(settings, role, hotkey.ss58, info, terms)
        if uid is not None:
            prompts.show(await _next_step(chain, offer))
            return f"{hotkey.ss58} is uid {uid} {place}"
    if not terms.open:
        raise ValueError(
            f"registration on subnet {settings.netuid} is closed: ask its owner, or try again later"
        )
    coldkey, limit = None, max_cost_tao
    if terms.needs_coldkey:
        coldkey, limit = await _confirmed(offer, prompts, max_cost_tao, connect)
    async with connect(settings.chain, hotkey, coldkey=coldkey) as chain:
        uid = await _send(chain, offer, limit, prompts)
        prompts.show(await _next_step(chain, offer))
    return f"{hotkey.ss58} is uid {uid} {place}"


async def _confirmed(
    offer: _Offer, prompts: Prompts, max_cost_tao: float | None, connect: Callable[..., Chain]
) -> tuple[Coldkey, float]:
    """The unlocked coldkey and the most that may be paid, after the operator has confirmed the terms.

    No connection is open while a prompt waits, since it would time out.
    """
    settings, terms = offer.settings, offer.terms
    path = coldkey_path(settings.wallet_name, settings.wallet_path)
    here = path.exists()
    address = coldkey_address(settings.wallet_name, settings.wallet_path)
    coldkey = _unlock(settings, prompts) if here and address is None else None
    address = coldkey.ss58 if coldkey is not None else address
    balance = None
    if address is not None:
        async with connect(settings.chain) as chain:
            balance = await chain.balance(address)
    prompts.show(_terms_text(offer, address, balance))
    if max_cost_tao is not None and terms.cost_tao > max_cost_tao:
        raise ValueError(
            f"the price is {terms.cost_tao:.4f} TAO, above --max-burn {max_cost_tao:g}: nothing was sent; "
            "wait until it falls, or give a higher limit"
        )
    if not here or address is None or balance is None:
        raise ValueError(_without_coldkey(offer, path))
    if balance < terms.cost_tao + FEES_TAO:
        raise ValueError(
            f"the coldkey has {balance:.4f} TAO, and {terms.cost_tao:.4f} and {FEES_TAO:g} for fees are "
            f"needed: send TAO to {address}"
        )
    limit = terms.cost_tao * (1 + TOLERANCE) if max_cost_tao is None else max_cost_tao
    if not prompts.confirm(f"Pay {terms.cost_tao:.4f} TAO (at most {limit:.4f}), for good?"):
        raise ValueError("not agreed: nothing was sent")
    if coldkey is None:
        coldkey = _unlock(settings, prompts)
    if coldkey.ss58 != address:
        raise ValueError(
            f"{path} is the key of {coldkey.ss58}, and coldkeypub.txt beside it says {address}: "
            "restore the one that is wrong from your backup"
        )
    return coldkey, limit


def _unlock(settings: ChainSettings, prompts: Prompts) -> Coldkey:
    name, folder = settings.wallet_name, settings.wallet_path
    locked = coldkey_is_encrypted(name, folder)
    return load_coldkey(name, folder, prompts.password(coldkey_path(name, folder)) if locked else None)


async def _send(chain: Chain, offer: _Offer, limit: float | None, prompts: Prompts) -> int:
    """Send the registration; returns the uid, as read back from a finalized block."""
    netuid, hotkey, info = offer.settings.netuid, offer.hotkey, offer.info
    try:
        result = (await chain.register(netuid, offer.role, max_cost_tao=limit)).check()
        seen = f"the registration is in block {result.block}"
    except Unavailable as error:
        if not error.fate_unknown:
            raise
        seen = "the chain did not say whether it took the registration"
    except asyncio.CancelledError:
        prompts.show(
            "the chain may still take the registration: the same command, run again, looks first and does not"
            " pay twice"
        )
        raise
    wait_s = (info.write_lifetime_blocks + _FINALITY_BLOCKS) * info.block_time_s
    prompts.show(f"{seen}; the uid is shown once that is final, in {wait_s:.0f} s at most")
    uid = await _wait_for_uid(chain, netuid, hotkey, wait_s, info.block_time_s / 2)
    if uid is None:
        raise Unavailable(
            f"{seen}, but {hotkey} has no uid on subnet {netuid} after {wait_s:.0f} s: run the same command "
            "again, which looks first and does not pay twice"
        )
    return uid


async def _wait_for_uid(chain: Chain, netuid: int, hotkey: str, wait_s: float, pause_s: float) -> int | None:
    """The hotkey's uid, polled each `pause_s`; None if there is none after `wait_s` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    while True:
        try:
            uid = await chain.uid(netuid, hotkey)
        except Unavailable:
            uid = None  # the node may answer the next poll
        if uid is not None or loop.time() >= end:
            return uid
        await asyncio.sleep(pause_s)


def _terms_text(offer: _Offer, coldkey: str | None, balance_tao: float | None) -> str:
    info, terms = offer.info, offer.terms
    shielded = "hidden until it is in a block" if terms.shielded else "public at once: others see it"
    lines = [
        f"chain      {without_secrets(info.network)} ({info.version})",
        f"subnet     {offer.settings.netuid}",
        f"hotkey     {offer.hotkey}",
        f"coldkey    {coldkey or 'not on this machine'}",
        f"price      {terms.cost_tao:.4f} TAO, taken for good",
        f"sent       {shielded}",
    ]
    if balance_tao is not None:
        left = max(0.0, balance_tao - terms.cost_tao)
        lines.append(f"balance    {balance_tao:.4f} TAO, of which {left:.4f} would remain")
    return "\n".join(lines)


def _without_coldkey(offer: _Offer, path: Path) -> str:
    """Says where to register, and by which command, since the coldkey is not at `path`."""
    chain = chain_flags(offer.settings)
    missing = f"the coldkey is not on this machine ({path}), as it should be on a node"
    if offer.terms.shielded:
        return (
            f"{missing}: where it is, run `btcli subnets register {chain} --hotkey {offer.hotkey} "
            f"{command_line('--wallet', offer.settings.wallet_name)}` (or the wallet's name there)"
        )
    # btcli sends registrations only where the chain hides them until they are in a block.
    return (
        f"{missing}: copy the hotkey's file to where it is, and run there `iota-{offer.role} register "
        f"{chain}` (btcli refuses to, since this chain hides no registrations)"
    )


async def _next_step(chain: Chain, offer: _Offer) -> str:
    """The command that starts the node, and for a validator the way to its permit."""
    settings = offer.settings
    flags = chain_flags(settings)
    next_step = f"next: `iota-{offer.role} start --orchestrator URL {wallet_flags(settings)} {flags}`"
    if offer.role is Role.MINER:
        return next_step
    try:
        neurons = (await chain.subnet(settings.netuid)).neurons
    except Unavailable:
        neurons = ()  # the registration succeeded; only this advice needs them
    if any(n.hotkey == offer.hotkey and n.validator_permit for n in neurons):
        return f"{next_step}; it has a validator permit"
    if not offer.terms.needs_coldkey:
        return (
            f"{next_step}. It has no stake: a ledger gives some to a hotkey that is new, so register another"
        )
    stakes = [n.stake for n in neurons if n.validator_permit]
    least = f" (the least stake with one is {min(stakes):.1f})" if stakes else ""
    return (
        f"{next_step}. Weights need a validator permit, which the chain gives by stake at each epoch{least}; "
        f"where the coldkey is, add stake with `btcli stake add {flags} --hotkey {offer.hotkey} "
        "--amount-tao AMOUNT`"
    )
