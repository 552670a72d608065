"""Command lines of the swarm's processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from iota.settings.roles import MAX_PASSES, Ways
from iota.swarm.ports import HOST
from iota.swarm.preparation import ORCHESTRATOR, VALIDATOR, WALLET, miner_names
from iota.swarm.processes import Program
from iota.swarm.run_dir import RunDir

NETUID = 9
BLOCK_TIME_S = 0.5
TEMPO_BLOCKS = 20
RATE_LIMIT_BLOCKS = 4
"""The embedded ledger's clock: audits and weights follow an epoch within seconds, so that a run of minutes
shows them."""
HEAD_POLL_S = BLOCK_TIME_S / 2
"""Half a block, so that the orchestrator sees each block while it is the head."""
HELDOUT_TOKENS = 1 << 16
"""The export measures the held-out loss on so many tokens: some seconds for the default run."""
SERVERS = (ORCHESTRATOR, "store", "ledger")


def preloaded(validator: bool) -> tuple[str, ...]:
    """Modules that the nodes share; the parent that forks them imports each once."""
    shared = (
        "torch",
        "iota.data",
        "bittensor.http_auth",
        "miner.cli",
        "miner.run",
    )
    return (*shared, "validator.cli", "validator.node") if validator else shared


@dataclass(frozen=True)
class Programs:
    """Makes each process's command line from the run's folder and ports."""

    run: RunDir
    ports: dict[str, int]
    threads: int
    device: str
    max_passes: float = MAX_PASSES
    transport: Ways = Ways.DIRECT

    def url(self, server: str) -> str:
        """Base URL of a server of `SERVERS`."""
        return f"http://{HOST}:{self.ports[server]}"

    def store(self) -> Program:
        """The embedded object store."""
        return self._plain(
            "store", "iota.cli.main:main", "store", "serve",
            "--root", self.run.store, "--secret-file", self.run.secret, *self._address("store"),
        )  # fmt: skip

    def ledger(self) -> Program:
        """The embedded ledger."""
        return self._plain(
            "ledger", "iota.cli.main:main", "ledger", "serve",
            "--db", self.run.ledger, "--netuid", NETUID, "--block-time", BLOCK_TIME_S,
            "--tempo", TEMPO_BLOCKS, "--weights-rate-limit", RATE_LIMIT_BLOCKS, *self._address("ledger"),
        )  # fmt: skip

    def orchestrator(self) -> Program:
        """The orchestrator; store and ledger have to run before it starts."""
        return self._plain(
            ORCHESTRATOR, "orchestrator.cli:main", "start",
            "--spec", self.run.spec_file, "--journal", self.run.journal, "--manifest", self.run.manifest_file,
            "--store", self.url("store"), "--store-secret-file", self.run.secret,
            "--max-passes", self.max_passes, "--head-poll", HEAD_POLL_S,
            *self._address(ORCHESTRATOR), *self._chain(ORCHESTRATOR),
        )  # fmt: skip

    def miners(self, count: int) -> list[Program]:
        """One miner for each replica of each stage."""
        links = ("--listen", f"{HOST}:0", "--transport", self.transport)
        return [
            self._node(name, "miner.cli:main", "--device", self.device, *links) for name in miner_names(count)
        ]

    def validator(self, name: str = VALIDATOR) -> Program:
        """A validator, on the CPU."""
        return self._node(name, "validator.cli:main", "--device", "cpu")

    def export(self) -> Program:
        """`iota export` of the run, in a process of its own for its memory."""
        arguments = (
            "export",
            "--run-dir",
            self.run.root,
            "--to",
            self.run.export,
            "--heldout-tokens",
            HELDOUT_TOKENS,
        )
        return self._plain("export", "iota.cli.main:main", *arguments)

    def baseline(self, out: Path) -> Program:
        """The measurement of `--compare`, which writes its result to `out`."""
        arguments = ("--spec", self.run.spec_file, "--data", self.run.store, "--threads", self.threads)
        return self._plain("baseline", "iota.swarm.baseline:main", *arguments, "--out", out)

    def _node(self, name: str, entry: str, *more: str) -> Program:
        plain = self._plain(
            name, entry, "start", "--orchestrator", self.url(ORCHESTRATOR), "--data-dir", self.run.node(name),
            "--threads", self.threads, *self._chain(name), *more,
        )  # fmt: skip
        return replace(plain, forked=True, ends=True)

    def _plain(self, name: str, entry: str, *arguments: object) -> Program:
        return Program(name, entry, tuple(map(str, arguments)), self.run.log(name))

    def _address(self, server: str) -> tuple[object, ...]:
        return ("--host", HOST, "--port", self.ports[server])

    def _chain(self, hotkey: str) -> tuple[object, ...]:
        return (
            "--wallet.name", WALLET, "--wallet.hotkey", hotkey, "--wallet.path", self.run.wallets,
            "--network", self.url("ledger"), "--netuid", NETUID,
        )  # fmt: skip
