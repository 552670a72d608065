"""Writes a bundle for each failed verdict of this validator, within bounds.

<data-dir>/<run>/verdicts/<epoch>-<miner>-<task>.zip
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from iota.client.orchestrator import OrchestratorUnreachable, UntrustedAnswer
from iota.data.manifest import DataError
from iota.files import remove_unfinished, whole_file
from iota.protocol.messages import Outcome, Verdict
from iota.protocol.problems import Problem
from iota.protocol.seals import SignedSeal
from iota.spec import RunSpec
from iota.store import StoreError
from validator.audits.evidence import Evidence
from validator.audits.sources import Objects, Records, TokenIds
from validator.bundles import form
from validator.bundles.archive import MAX_BUNDLE_BYTES, BundleTooLarge, BundleWriter
from validator.bundles.demands import demand_of
from validator.bundles.recording import Recording, delivered_of, parts_of, read_again
from validator.core import jobs
from validator.core.effects import FileVerdict
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import AuditTask

log = logging.getLogger(__name__)

BUNDLES_AN_EPOCH: Final = 16
"""Bundles that are written of one epoch: each costs a second download of what its audit read."""
KEPT_BYTES: Final = 4 * MAX_BUNDLE_BYTES
"""Bytes of all bundles (8 GiB); the oldest go first."""
SETTLE_S: Final = 60.0
"""How long an epoch waits for its last bundles, whose objects are deleted when its audits are closed."""
KEEP_S: Final = 600.0
"""How long the writing of one bundle may take."""
_REFUSALS: Final = (
    BundleTooLarge, StoreError, DataError, Problem, OrchestratorUnreachable, UntrustedAnswer, SealBroken,
    OSError,
)  # fmt: skip
"""Why there is no bundle of a verdict."""


@dataclass(frozen=True)
class _Epoch:
    """What the bundles of one epoch rest on."""

    sealed: SealedEpoch
    seal: SignedSeal
    block_hash: str | None = None
    """Of the seal's block; None before it is known."""


class BundleKeeper:
    """Follows the jobs of a membership, so that it knows what each audit read.

    Args:
        folder: the validator's folder of this run.
        orchestrator, validator: their hotkeys (ss58).
        link: the validator's link of an epoch.
        limit: bytes of the members of one bundle.
    """

    def __init__(
        self,
        folder: Path,
        orchestrator: str,
        validator: str,
        link: Callable[[int], str],
        sources: tuple[Records, Objects, TokenIds],
        limit: int = MAX_BUNDLE_BYTES,
    ) -> None:
        self._folder = folder / "verdicts"
        self._orchestrator, self._validator, self._link = orchestrator, validator, link
        self._sources, self._limit = sources, limit
        self._epoch: _Epoch | None = None
        self._trail: list[jobs.Job] = []
        """Jobs of the audit under way, or of the one that was filed last."""
        self._filed = False
        self._written: Counter[int] = Counter()
        self._writing = asyncio.Lock()

    # ---- what the membership does --------------------------------------------------------------

    def began(self, sealed: SealedEpoch, seal: SignedSeal) -> None:
        """The record of an epoch is at hand, and its audits begin."""
        self._epoch, self._trail = _Epoch(sealed, seal), []
        there = len(list(self._folder.glob(f"{sealed.epoch}-*.zip")))
        self._written[sealed.epoch] = max(there, self._written[sealed.epoch])

    def drawn(self, block: int, block_hash: str) -> None:
        """The hash of a block is known, which may be that of the epoch's seal."""
        if self._epoch is not None and self._epoch.seal.seal.block == block:
            self._epoch = replace(self._epoch, block_hash=block_hash)

    def did(self, job: jobs.Job) -> None:
        """An audit does this job. Those before the verdict that was filed last belong to it."""
        if self._filed:
            self._trail, self._filed = [], False
        self._trail.append(job)

    def filed(self, filing: FileVerdict, verdict: Verdict) -> Coroutine[Any, Any, None] | None:
        """A verdict was filed. Answers what writes its bundle, for the caller to run; None if none is due."""
        self._filed = True
        epoch = self._epoch
        if verdict.outcome is not Outcome.FAIL:
            return None
        if epoch is None or epoch.sealed.epoch != filing.epoch or epoch.block_hash is None:
            log.warning("epoch %d: a verdict gets no file: its record is not at hand", filing.epoch)
            return None
        draws = Draws(epoch.block_hash, self._link(filing.epoch), self._validator)
        if demand_of(epoch.sealed, draws, filing.miner, filing.task) is None:
            log.info(
                "epoch %d: %s of %s gets no file here: the own draw does not demand it, and who accused the"
                " miner of it has one",
                filing.epoch, filing.task.name, filing.miner,
            )  # fmt: skip
            return None
        path = self._folder / f"{filing.epoch}-{filing.miner}-{filing.task.name.replace(':', '-')}.zip"
        if path.exists():
            return None
        self._written[filing.epoch] += 1
        if self._written[filing.epoch] > BUNDLES_AN_EPOCH:
            log.warning("epoch %d: %s gets no file: it has %d", filing.epoch, path.name, BUNDLES_AN_EPOCH)
            return None
        trail = list(self._trail)
        return self._keep(path, lambda part: self._write(part, epoch, draws, filing.task, verdict, trail))

    async def settle(self) -> None:
        """Wait, within bounds, for the bundles under way: they are written one after the other."""
        try:
            async with asyncio.timeout(SETTLE_S), self._writing:
                pass
        except TimeoutError:
            log.warning("bundles of failed verdicts are still being written after %.0f s", SETTLE_S)

    # ---- writing -------------------------------------------------------------------------------

    async def _keep(self, path: Path, write: Callable[[Path], Awaitable[None]]) -> None:
        async with self._writing:
            try:
                await asyncio.to_thread(self._make_room)
                async with asyncio.timeout(KEEP_S):
                    with whole_file(path) as part:
                        await write(part)
            except _REFUSALS as error:
                reason = str(error) or type(error).__name__
                log.warning("%s is not written, so nobody can repeat that verdict: %s", path.name, reason)
            else:
                log.info("%s lets anyone repeat that verdict: iota audit verify FILE", path)

    async def _write(
        self,
        path: Path,
        epoch: _Epoch,
        draws: Draws,
        task: AuditTask,
        verdict: Verdict,
        trail: list[jobs.Job],
    ) -> None:
        """Read again what the audit read. Every read is checked as in the audit, so it is the same."""
        sealed, spec = epoch.sealed, epoch.sealed.spec
        with BundleWriter(path, self._limit) as writer:
            writer.check_room(_largest(spec, trail))
            source = Recording(writer, *self._sources)
            evidence = Evidence(spec, source, source, source)
            await asyncio.to_thread(writer.add, form.SPEC, spec.model_dump_json().encode())
            record = await evidence.record(epoch.seal.seal)
            if writer.members[form.RECORD].digest != epoch.seal.seal.record:
                raise SealBroken("another record than the sealed one was served first")
            await evidence.sealed(record, _needed(sealed, verdict))
            await read_again(evidence, trail)
            manifest = form.Manifest(
                run=spec.id,
                orchestrator=self._orchestrator,
                validator=self._validator,
                seal=epoch.seal,
                block_hash=draws.block_hash,
                link=draws.link,
                task=form.Task.of(task),
                verdict=verdict,
                delivered=delivered_of(trail),
                members=tuple(writer.members.values()),
            )
            await asyncio.to_thread(writer.finish, manifest.model_dump_json().encode())

    def _make_room(self) -> None:
        """Delete the oldest bundles until one more has room."""
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self._folder)
        kept = sorted(self._folder.glob("*.zip"), key=lambda path: path.stat().st_mtime)
        size = sum(path.stat().st_size for path in kept)
        while kept and size > KEPT_BYTES - self._limit:
            oldest = kept.pop(0)
            size -= oldest.stat().st_size
            oldest.unlink()


def _needed(sealed: SealedEpoch, verdict: Verdict) -> set[str]:
    """The miners whose receipts a verdict rests on: the audited one, and whose receipts show its fault."""
    shown = {f.witness for f in sealed.faults if f.hotkey == verdict.miner and f.witness is not None}
    return {verdict.miner} | shown


def _largest(spec: RunSpec, trail: list[jobs.Job]) -> int:
    """Bytes of what an audit read, as far as the records name it, so that no vain download begins."""
    found = {delivered.stored.key: delivered.stored.size for delivered in delivered_of(trail)}
    for job in trail:
        found |= {part.key: part.size for part in parts_of(spec, job)}
    return sum(found.values())
