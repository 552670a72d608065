"""Prepares a swarm before its nodes start: hotkeys, data, registrations on the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iota.console.counts import counted
from iota.console.durations import LINE_EVERY_S
from iota.protocol.messages import Role

if TYPE_CHECKING:
    from iota.data import Manifest
    from iota.identity.keys import Hotkey

WALLET = "swarm"
"""Name of the wallet in the run's folder; the names below are hotkeys in it."""
ORCHESTRATOR = "orchestrator"
VALIDATOR = "validator"


@dataclass(frozen=True)
class Crew:
    """The hotkeys of a swarm, by the names of their files."""

    hotkeys: Mapping[str, Hotkey]
    roles: Mapping[str, Role]
    """Roles of the members of the subnet; the orchestrator is not one of them."""

    @property
    def addresses(self) -> dict[str, str]:
        """The ss58 address of each hotkey, by name."""
        return {name: hotkey.ss58 for name, hotkey in self.hotkeys.items()}


def miner_names(count: int) -> list[str]:
    """Names of the miners' processes, hotkey files and logs."""
    return [f"miner-{i:02d}" for i in range(count)]


def make_crew(wallets: Path, miners: int, validators: Sequence[str]) -> Crew:
    """Load the hotkeys of the orchestrator and all nodes, creating those that are missing.

    `validators` are names, as `miner_names` gives those of miners.

    Raises:
        ValueError: a hotkey file is damaged or encrypted.
    """
    from iota.identity.keys import create_hotkey, hotkey_path, load_hotkey

    roles = dict.fromkeys(miner_names(miners), Role.MINER) | dict.fromkeys(validators, Role.VALIDATOR)
    hotkeys = {
        name: (
            load_hotkey(WALLET, name, wallets)
            if hotkey_path(WALLET, name, wallets).exists()
            else create_hotkey(WALLET, name, wallets)
        )
        for name in (ORCHESTRATOR, *roles)
    }
    return Crew(hotkeys, roles)


def prepare_data(source: str, tokenizer: str, out: Path, say: Callable[[str], None]) -> Manifest:
    """Tokenize `source` into `out`, unless that is done. Blocks; `say` gets a line each half minute.

    Raises:
        ValueError: the source is empty, unreadable or too small, or the tokenizer unknown.
    """
    from iota.data import Job, PackProgress, open_sources, open_tokenizer, prepare

    said_at = time.monotonic()

    def progress(now: PackProgress) -> None:
        nonlocal said_at
        if time.monotonic() >= said_at + LINE_EVERY_S:
            said_at = time.monotonic()
            say(f"data: {counted(now.documents, 'document')}, {counted(now.tokens, 'token')}")

    return prepare(Job(open_sources([source]), open_tokenizer(tokenizer)), out, progress)


async def register(crew: Crew, ledger: str, netuid: int) -> None:
    """Register every member of the crew on the ledger, unless it is registered.

    Raises:
        ChainError: the ledger cannot be reached, or refuses a registration.
    """
    from iota.chain import open_chain

    for name, role in crew.roles.items():
        async with open_chain(ledger, crew.hotkeys[name]) as chain:
            if await chain.uid(netuid, crew.hotkeys[name].ss58) is None:
                (await chain.register(netuid, role)).check()


async def ledger_weights(crew: Crew, ledger: str, netuid: int) -> dict[str, float]:
    """Each miner's weight by address: the mean over validators of their weights, normalised to sum 1.

    Raises:
        ChainError: the ledger cannot be reached.
    """
    from iota.chain import open_chain

    miners = {crew.hotkeys[n].ss58: 0.0 for n, role in crew.roles.items() if role is Role.MINER}
    async with open_chain(ledger) as chain:
        hotkeys = {neuron.uid: neuron.hotkey for neuron in (await chain.subnet(netuid)).neurons}
        rows = [row for row in await chain.weights(netuid) if any(row.weights.values())]
    for row in rows:
        total = sum(row.weights.values())
        for uid, weight in row.weights.items():
            hotkey = hotkeys.get(uid)
            if hotkey in miners:
                miners[hotkey] += weight / total / len(rows)
    return miners
