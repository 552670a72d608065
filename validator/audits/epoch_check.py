"""Checks an epoch by public data alone, without a key and without a replay."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from iota.client.evidence_files import signed_by
from iota.console.counts import counted
from iota.protocol.events import EpochClose
from iota.protocol.messages import AuditKind, Outcome, Role
from iota.protocol.problems import Problem
from iota.protocol.seals import SEAL_DOMAIN, SignedSeal
from iota.protocol.status_delta import Status
from iota.protocol.verdicts import FiledVerdict, VerdictPage
from iota.spec import RunSpec
from iota.store import StoreError
from validator.audits.public_chain import PublicChain
from validator.audits.record_reader import RecordReader
from validator.audits.sources import Objects, Records
from validator.audits.verdicts import verify_verdict
from validator.core.epoch_before import EpochBefore, check_follows, epoch_before
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.segments import Drawable, Draws, window_start
from validator.core.tasks import drawable, drawn_tasks

MAX_PAGES: Final = 4096
"""Pages of verdicts that are read: four million verdicts."""
_NO_PAGE: Final = 404


class PublicRecords(Records, Protocol):
    """The public answers of an orchestrator: `OrchestratorClient` has the same methods."""

    async def seal(self, epoch: int) -> SignedSeal:
        """The seal of an epoch."""

    async def links(self, epoch: int) -> dict[str, str]:
        """validator -> the link that it revealed."""

    async def verdicts(self, epoch: int, page: int) -> VerdictPage:
        """A page of the verdicts of an epoch. Raises Problem where the server has none."""

    async def status(self) -> Status:
        """The public state of the run."""


@dataclass(frozen=True)
class Contradiction:
    """Something that cannot be so, and who is at fault."""

    who: str
    what: str


@dataclass
class ValidatorRow:
    """One validator's audits of the epoch."""

    hotkey: str
    link: bool = False
    """Whether it has revealed a link, which is right as far as was checked."""
    drawn: int | None = None
    """Audits that its draw demands; None where no draw follows."""
    missing: int | None = None
    """Those of them without a verdict; None where verdicts or the draw are not to be had."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Its verdicts by outcome."""


@dataclass
class EpochReport:
    """What was found."""

    run: str
    epoch: int
    orchestrator: str
    miners: int = 0
    receipts: int = 0
    block: int = 0
    block_hash: str | None = None
    """Of the seal's block; None without a chain, or while the block is not final."""
    closed: bool | None = None
    """Whether the audits are closed; None where the server does not say."""
    verdicts: bool = False
    """Whether the server has the verdicts."""
    contradictions: list[Contradiction] = field(default_factory=list)
    validators: list[ValidatorRow] = field(default_factory=list)

    @property
    def withheld(self) -> list[str]:
        """Validators without a link, or without a verdict that their draw demands."""
        return [row.hotkey for row in self.validators if not row.link or row.missing]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong: while the audits are open, what is missing may still come."""
        return not self.contradictions and not (self.withheld and self.closed is not False)


async def check_epoch(
    spec: RunSpec,
    orchestrator: str,
    epoch: int,
    client: PublicRecords,
    objects: Objects,
    chain: PublicChain | None,
) -> EpochReport:
    """Check an epoch; draws and links only with a `chain`.

    Raises Problem (NOT_FOUND for an epoch whose record is not kept), the errors of the client and the store,
    and ChainError.
    """
    report = EpochReport(spec.id, epoch, orchestrator)
    signed = await client.seal(epoch)
    seal = signed.seal
    report.block = seal.block
    sealed = await _sealed(spec, signed, client, objects, report)
    if sealed is not None:
        await _check_before(sealed, client, objects, report)
    if chain is not None:
        report.block_hash = await chain.block_hash(seal)
    links = await client.links(epoch)
    rows = {hotkey: ValidatorRow(hotkey) for hotkey in {*await _expected(client, chain, seal), *links}}
    for hotkey, link in sorted(links.items()):
        fault = None if chain is None else await chain.link_fault(seal, hotkey, link)
        if fault is None:
            rows[hotkey].link = True
        else:
            report.contradictions.append(Contradiction(hotkey, fault))
    filed = await _verdicts(client, seal, rows, report)
    if sealed is not None and chain is not None and report.block_hash is not None:
        earlier = await _earlier(spec, epoch, client, objects, chain)
        for row in rows.values():
            if row.link:
                draws = Draws(report.block_hash, links[row.hotkey], row.hotkey, earlier)
                await asyncio.to_thread(_draw, sealed, report, row, draws, filed)
    report.validators = sorted(rows.values(), key=lambda row: row.hotkey)
    return report


async def _sealed(
    spec: RunSpec, signed: SignedSeal, client: Records, objects: Objects, report: EpochReport
) -> SealedEpoch | None:
    """The sealed epoch, checked; None where it does not hold. Faults of miners are named too."""
    seal, who = signed.seal, report.orchestrator
    if seal.epoch != report.epoch or not signed_by(who)(
        SEAL_DOMAIN, signed.payload(spec.id), signed.signature
    ):
        report.contradictions.append(Contradiction(who, "its seal is not signed, or of another epoch"))
        return None
    reader = RecordReader(spec, client, objects)
    try:
        record = await reader.record(seal)
        report.miners, report.receipts = len(record.miners), record.receipts
        sealed = await reader.sealed(record)
    except SealBroken as error:
        report.contradictions.append(Contradiction(who, str(error)))
        return None
    report.contradictions += [
        Contradiction(fault.hotkey, f"receipt {fault.seq}: {fault.reason}") for fault in sealed.faults
    ]
    return sealed


async def _check_before(
    sealed: SealedEpoch, client: PublicRecords, objects: Objects, report: EpochReport
) -> None:
    """Hold what lives began with against the record of the epoch before, if that is still kept."""
    before, reader = EpochBefore(), RecordReader(sealed.spec, client, objects)
    try:
        if sealed.epoch:
            seal = (await client.seal(sealed.epoch - 1)).seal
            before = epoch_before(await reader.sealed(await reader.record(seal)))
    except (Problem, SealBroken, StoreError):
        return
    try:
        check_follows(sealed.spec, sealed.record, before)
    except SealBroken as error:
        report.contradictions.append(Contradiction(report.orchestrator, str(error)))


async def _earlier(
    spec: RunSpec, epoch: int, client: PublicRecords, objects: Objects, chain: PublicChain
) -> dict[int, Drawable]:
    """What the public draws of the epochs before in the window follow from, of those that are still kept."""
    found: dict[int, Drawable] = {}
    reader = RecordReader(spec, client, objects)
    for number in range(window_start(spec, epoch), epoch):
        with suppress(Problem, SealBroken, StoreError):
            seal = (await client.seal(number)).seal
            block_hash = await chain.block_hash(seal)
            if block_hash is not None:
                sealed = await reader.sealed(await reader.record(seal))
                found[number] = drawable(sealed, block_hash)
    return found


async def _expected(client: PublicRecords, chain: PublicChain | None, seal: EpochClose) -> list[str]:
    """The validators that owe a link: who had committed one on the chain; without it, those of the status."""
    if chain is not None:
        return await chain.committed(seal)
    return [m["hotkey"] for m in (await client.status())["members"] if m["role"] == Role.VALIDATOR.value]


_Filed = dict[str, set[tuple[str, AuditKind, int | None]]]
"""validator -> (miner, kind, seq) of its verdicts; without a seq for any failed one of that kind, since a
verdict may name the receipt that failed instead of the audited one."""


async def _verdicts(
    client: PublicRecords, seal: EpochClose, rows: dict[str, ValidatorRow], report: EpochReport
) -> _Filed:
    """Count the verdicts that their validators signed."""
    filed: _Filed = {hotkey: set() for hotkey in rows}
    outcomes: dict[str, Counter[str]] = {hotkey: Counter() for hotkey in rows}
    forged: Counter[str] = Counter()
    async for each in _pages(client, report):
        verdict, hotkey = each.verdict, each.validator
        signed = verdict.epoch == seal.epoch and verify_verdict(report.run, verdict, hotkey)
        if not signed or hotkey not in rows:
            forged[hotkey] += 1
            continue
        outcomes[hotkey][verdict.outcome.value] += 1
        filed[hotkey].add((verdict.miner, verdict.audit, verdict.seq))
        if verdict.outcome is Outcome.FAIL:
            filed[hotkey].add((verdict.miner, verdict.audit, None))
    for hotkey, row in rows.items():
        row.outcomes = dict(sorted(outcomes[hotkey].items()))
    report.contradictions += [
        Contradiction(
            report.orchestrator, f"it serves {counted(count, 'verdict')} that {hotkey} did not sign"
        )
        for hotkey, count in sorted(forged.items())
    ]
    return filed


async def _pages(client: PublicRecords, report: EpochReport) -> AsyncIterator[FiledVerdict]:
    for number in range(MAX_PAGES):
        try:
            page = await client.verdicts(report.epoch, number)
        except Problem as problem:
            if problem.status != _NO_PAGE:
                raise
            return
        report.verdicts, report.closed = True, page.closed
        if not page.verdicts:
            return
        for each in page.verdicts:
            yield each


def _draw(sealed: SealedEpoch, report: EpochReport, row: ValidatorRow, draws: Draws, filed: _Filed) -> None:
    """Count what a validator's draw demands, and what of it has no verdict.

    Segments of the public draw are left out where an epoch before in the window is not known: it may excuse
    them.
    """
    own, epoch = filed[row.hotkey], sealed.epoch
    known = len(draws.earlier) == epoch - window_start(sealed.spec, epoch)
    demanded = [
        {(hotkey, task.kind, task.seq), (hotkey, task.kind, None)}
        for hotkey in sealed.miners
        for task in drawn_tasks(sealed, draws, hotkey, public=known)
    ]
    row.drawn = len(demanded)
    row.missing = sum(not names & own for names in demanded) if report.verdicts else None
