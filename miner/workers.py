"""`iota-miner certify` and `iota-miner revoke`: an owner's workers, on the machine that has its hotkey."""

from __future__ import annotations

import time
from pathlib import Path

from iota.client.orchestrator import OrchestratorClient
from iota.identity.certificates import revoke as signed_revocation
from iota.identity.keys import Hotkey, load_hotkey
from iota.identity.signatures import is_address
from iota.identity.worker_file import make_worker
from iota.settings import MinerSettings
from iota.settings.spec_file import read_spec

_RETRY_FOR_S = 20.0
"""A person waits for the command."""


def certify(settings: MinerSettings, run: str, out: Path, count: int) -> list[str]:
    """Make `count` worker files; returns a line on each. Several get `-1`, `-2` and so on before the suffix.

    Raises ValueError for a wallet without a hotkey, or a file that exists; the files before it are kept.
    """
    owner = _hotkey(settings)
    serial = time.time_ns() // 1_000_000
    numbered = [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, count + 1)]
    lines = []
    for at, path in enumerate([out] if count == 1 else numbered):
        worker = make_worker(path, owner, run, serial + at)
        lines.append(f"{worker.key.ss58} works for {owner.ss58} in run {run[:12]}: {path}")
    return lines


async def run_of(settings: MinerSettings, spec: Path | None) -> str:
    """The id of the run: of the spec's file, else of the orchestrator, which must have signed it."""
    if spec is not None:
        return read_spec(spec).id
    async with _client(settings, None) as client:
        return (await client.run()).run


async def revoke(settings: MinerSettings, worker: str) -> str:
    """Revoke a worker (ss58 address) in the orchestrator's run; returns a sentence.

    Raises ValueError for a text that is no address, Problem for a worker that is not this hotkey's.
    """
    if not is_address(worker):
        raise ValueError(f"{worker[:80]!r} is no worker's address: `iota explain` of its owner lists them")
    owner = _hotkey(settings)
    async with _client(settings, owner) as client:
        run = (await client.run()).run
        reply = await client.revoke(signed_revocation(owner, worker, run))
    effect = (
        "its unfinished work goes to others, and its work that has not vested is not paid any more"
        if reply.joined
        else "it has not joined, and cannot any more"
    )
    return f"{worker} is revoked in run {run[:12]}: {effect}"


def _hotkey(settings: MinerSettings) -> Hotkey:
    return load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)


def _client(settings: MinerSettings, hotkey: Hotkey | None) -> OrchestratorClient:
    return OrchestratorClient(
        hotkey, settings.orchestrator, settings.orchestrator_hotkey, retry_for_s=_RETRY_FOR_S
    )
