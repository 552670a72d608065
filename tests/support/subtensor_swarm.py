"""A whole swarm of real processes on a loopback subtensor node: the real SDK, its wire and signatures."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iota.swarm.options import SwarmOptions
from iota.swarm.preparation import VALIDATOR, WALLET
from iota.swarm.programs import NETUID, Programs
from tests.support.live_swarm import LiveSwarm
from tests.support.subtensor.process import NodeProcess

PASSWORD: Final = "correct horse Battery 1"
TOKEN: Final = "c0ffee11c0ffee22"
STAKE: Final = 1000.0
_FUNDS: Final = 1000.0
_COMMAND_S: Final = 60.0


@dataclass(frozen=True)
class _OnNode(Programs):
    """The same command lines, with a node of a chain in the ledger's place."""

    chain_url: str = ""

    def url(self, server: str) -> str:
        return self.chain_url if server == "ledger" else super().url(server)


class SubtensorSwarm(LiveSwarm):
    """A swarm whose chain is `node`; what is done on the chain is done by our own commands."""

    def __init__(self, root: Path, options: SwarmOptions, node: NodeProcess) -> None:
        super().__init__(root, options, validator=True)
        self.node = node
        self.said = ""
        """All that the commands have said."""

    def make_programs(self, ports: dict[str, int]) -> Programs:
        return _OnNode(self.run_dir, ports, threads=1, device="cpu", chain_url=self.chain_url)

    async def start_chain(self) -> None:
        """A funded coldkey that registers everybody; the validator gets stake and permit."""
        words = self.run_dir.root / "mnemonic"
        await self.command(
            "iota.cli.main",
            "wallet",
            "new",
            "--coldkey",
            "--mnemonic-file",
            str(words),
            *self.wallet("spare"),
        )
        shown = await self.command("iota.cli.main", "wallet", "show", *self.wallet("spare"))
        coldkey = next(line.split()[1].rstrip(",") for line in shown.splitlines() if "coldkey" in line)
        await self.node.tell("fund", address=coldkey, tao=_FUNDS)
        for name in self.crew.roles:
            module = "validator.cli" if name == VALIDATOR else "miner.cli"
            said = await self.command(module, "register", "--yes", *self.wallet(name), *self.chain)
            assert f"{self.crew.hotkeys[name].ss58} is uid" in said
        for name in ("coldkey", "coldkeypub.txt"):
            (self.run_dir.wallets / WALLET / name).rename(self.run_dir.root / name)
        validator = self.crew.hotkeys[VALIDATOR].ss58
        await self.node.tell("stake", hotkey=validator, tao=STAKE)
        await self.node.tell("permit", hotkey=validator)

    def wallet(self, hotkey: str) -> tuple[str, ...]:
        folder = str(self.run_dir.wallets)
        return ("--wallet.path", folder, "--wallet.name", WALLET, "--wallet.hotkey", hotkey)

    @property
    def chain(self) -> tuple[str, ...]:
        return ("--network", self.chain_url, "--netuid", str(NETUID))

    @property
    def chain_url(self) -> str:
        """With an access token, as providers of nodes give them out; this node heeds none."""
        return f"{self.node.url}/v2/{TOKEN}?key={TOKEN}"

    async def iota(self, *arguments: str) -> str:
        return await self.command("iota.cli.main", *arguments)

    async def command(self, module: str, *arguments: str) -> str:
        """What a command that succeeds says, on both of its outputs; as at a terminal with a password set."""
        program = [sys.executable, "-m", module, *arguments]
        said = await succeeded(program, {"BT_WALLET_PASSWORD": PASSWORD})
        self.said += said
        return said


async def succeeded(command: list[str], environment: dict[str, str] | None = None) -> str:
    """The output of a command, which must end with 0."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _COMMAND_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said.decode()
    return said.decode()
