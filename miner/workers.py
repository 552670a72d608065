"""`iota-miner certify` and `iota-miner revoke`: an owner's workers, on the machine that has its hotkey."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable
from iota.console.command import WorkFailed
from iota.console.counts import counted
from iota.identity.certificates import revoke as signed_revocation
from iota.identity.keys import Hotkey, load_hotkey
from iota.identity.signatures import is_address
from iota.identity.worker_file import make_worker
from iota.settings import MinerSettings
from iota.settings.spec_file import read_spec

_RETRY_FOR_S = 20.0
"""A person waits for the command."""


def certify(settings: MinerSettings, run: str, out: Path, count: int) -> list[str]:
    """Make `count` worker files; returns a line on each, and what comes next. Several get `-1`,
    `-2` and so on before the suffix.

    Raises ValueError for a wallet without a hotkey, or a file that exists; the files before it are kept.
    """
    owner = _hotkey(settings)
    serial = time.time_ns() // 1_000_000
    numbered = [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, count + 1)]
    lines = []
    for at, path in enumerate([out] if count == 1 else numbered):
        worker = make_worker(path, owner, run, serial + at)
        lines.append(f"{worker.key.ss58} works for {owner.ss58} in run {run[:12]}: {path}")
    what = (
        "the file to the machine that mines"
        if count == 1
        else f"each of the {counted(count, 'file')} to a machine"
    )
    start = "`iota-miner start --orchestrator URL --worker FILE --data-dir DIR`"
    return [*lines, f"next: move {what} (mode 600), and there run {start}, which needs no wallet"]


async def run_of(settings: MinerSettings, spec: Path | None) -> str:
    """The id of the run: of the spec's file, else of the orchestrator, which must have signed it.

    Raises WorkFailed where none answers.
    """
    if spec is not None:
        return read_spec(spec).id
    async with _asked(settings, None, ", or the run's --spec FILE") as client:
        return (await client.run()).run


async def revoke(settings: MinerSettings, worker: str) -> str:
    """Revoke a worker (ss58 address) in the orchestrator's run; returns a sentence.

    Raises ValueError for a text that is no address, Problem for a worker that is not this hotkey's, and
    WorkFailed where no orchestrator answers.
    """
    if not is_address(worker):
        raise ValueError(f"{worker[:80]!r} is no worker's address: `iota explain` of its owner lists them")
    owner = _hotkey(settings)
    async with _asked(settings, owner) as client:
        run = (await client.run()).run
        reply = await client.revoke(signed_revocation(owner, worker, run))
    if not reply.joined:  # nobody can tell a worker that is to come from a wrong address
        return (
            f"{worker} is no member of run {run[:12]}: if it is a worker of {owner.ss58}, it cannot join any"
            " more; if you meant another, see `iota explain` of this hotkey, and revoke that one too"
        )
    effect = "its unfinished work goes to others, and its work that has not vested is not paid any more"
    return f"{worker} is revoked in run {run[:12]}: {effect}"


def _hotkey(settings: MinerSettings) -> Hotkey:
    return load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)


@asynccontextmanager
async def _asked(
    settings: MinerSettings, hotkey: Hotkey | None, otherwise: str = ""
) -> AsyncIterator[OrchestratorClient]:
    """A client of the run's orchestrator. `otherwise` is what a user can give in its place."""
    client = OrchestratorClient(
        hotkey, settings.orchestrator, settings.orchestrator_hotkey, retry_for_s=_RETRY_FOR_S
    )
    try:
        async with client:
            yield client
    except OrchestratorUnreachable as error:
        why = f"no orchestrator answers ({error}): is the run going?"
        raise WorkFailed(f"{why} Give --orchestrator URL{otherwise}") from None
