"""What a swarm needs before its nodes start: keys, data, places on the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iota.protocol.messages import Role

if TYPE_CHECKING:
    from iota.data import Manifest
    from iota.identity.keys import Hotkey

WALLET = "swarm"
ORCHESTRATOR = "orchestrator"
VALIDATOR = "validator"


@dataclass(frozen=True)
class Crew:
    """The hotkeys of a swarm, by name; the names are those of the hotkey files."""

    hotkeys: Mapping[str, Hotkey]
    roles: Mapping[str, Role]
    """Members of the subnet; the orchestrator is none."""

    @property
    def addresses(self) -> dict[str, str]:
        return {name: hotkey.ss58 for name, hotkey in self.hotkeys.items()}


def miner_names(count: int) -> list[str]:
    return [f"miner-{i:02d}" for i in range(count)]


def make_crew(wallets: Path, miners: int, validator: bool) -> Crew:
    """Load the swarm's hotkeys, creating those that are not there.

    Raises:
        ValueError: a hotkey file that is damaged or locked.
    """
    from iota.identity.keys import create_hotkey, hotkey_path, load_hotkey

    roles = dict.fromkeys(miner_names(miners), Role.MINER)
    if validator:
        roles[VALIDATOR] = Role.VALIDATOR
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
    """Tokenize `source` below `out`, unless that was done. Blocking.

    Raises:
        ValueError: a source that is empty, unreadable or too small, or an unknown tokenizer.
    """
    from iota.data import Progress, open_source, open_tokenizer, prepare

    told = 0

    def progress(now: Progress) -> None:
        nonlocal told
        if now.tokens >= told + 10_000_000:
            told = now.tokens
            say(f"data: {now.documents:,} documents, {now.tokens:,} tokens")

    return prepare(open_source(source), open_tokenizer(tokenizer), out, progress=progress)


async def register(crew: Crew, ledger: str, netuid: int) -> None:
    """Give every member of the crew its place on the ledger; who has one keeps it.

    Raises:
        ChainError: the ledger cannot be reached, or refuses.
    """
    from iota.chain import open_chain

    for name, role in crew.roles.items():
        async with open_chain(ledger, crew.hotkeys[name]) as chain:
            if await chain.uid(netuid, crew.hotkeys[name].ss58) is None:
                (await chain.register(netuid, role)).check()


async def ledger_weights(crew: Crew, ledger: str, netuid: int) -> dict[str, float]:
    """Each miner's weight on the ledger: the mean of the validators' rows, each of sum 1.

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
