"""`iota audit`: checks that anyone can make: a verdict, a contradiction, an epoch's public record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.console.command import WorkFailed
from iota.console.counts import counted
from iota.settings import CHAIN, NodeSettings
from iota.settings.flags import SOURCES, with_flags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from iota.chain import Chain
    from validator.audits.epoch_check import EpochReport

app = typer.Typer(
    help="Check a verdict, a contradiction or an epoch by what is signed and public.", no_args_is_help=True
)
MAX_EVIDENCE_BYTES = 256 << 20
"""Largest contradiction file that is read; one may hold all receipts of a miner in an epoch."""
_BUNDLE_MARK = b"PK"
RETRY_FOR_S = 30.0
"""How long an orchestrator may be silent."""


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=("orchestrator_hotkey", *CHAIN))
def verify(
    file: Annotated[Path, typer.Argument(help="A contradiction (.json) or the bundle of a verdict (.zip).")],
    data: Annotated[
        Path | None, typer.Option(help="Check token ids, too, in this folder that `iota data prepare` wrote.")
    ] = None,
    **flags: Any,
) -> None:
    """Repeat a verdict, or check a contradiction of an orchestrator, from its file alone.

    No server is asked. Without --orchestrator-hotkey the one in the file is taken for the run's; without
    --network or --chain-endpoint the block's hash and the validator's commitment are taken as given; without
    --data the token ids. All of it is printed as assumed. Exit code 0: it holds; 1: it does not.
    """
    from iota.settings.sentences import sentence

    if not file.is_file():
        raise ValueError(f"{file} is no file")
    with file.open("rb") as opened:
        is_bundle = opened.read(len(_BUNDLE_MARK)) == _BUNDLE_MARK
    if is_bundle:
        _repeat(file, data, flags)
        return
    from pydantic import ValidationError

    from iota.client.evidence_files import signed_by
    from iota.protocol.evidence import Evidence, fault

    if file.stat().st_size > MAX_EVIDENCE_BYTES:
        raise ValueError(f"{file} is larger than {MAX_EVIDENCE_BYTES} bytes")
    try:
        evidence = Evidence.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{file} is neither a bundle nor a contradiction: {sentence(error)[:300]}") from None
    known = NodeSettings.load(**flags).orchestrator_hotkey
    reason = fault(evidence, signed_by(evidence.orchestrator))
    if known not in (None, evidence.orchestrator):
        reason = f"the run's orchestrator is {known}"
    if reason is not None:
        raise WorkFailed(f"not proven against {evidence.orchestrator}: {reason}")
    what = WHAT[evidence.kind.value]
    typer.echo(
        f"proven against {evidence.orchestrator}: in epoch {evidence.epoch} of run {evidence.run[:16]} {what}"
    )


WHAT = {
    "two-seals": "it signed two different seals",
    "two-plans": "it signed one plan for a miner and sealed another one",
    "other-counted": "it signed one counted list for a miner and sealed another one",
    "left-out": "it acknowledged receipts before the seal and left them out of it",
}
"""What each kind of contradiction proves (`iota.protocol.evidence.EvidenceKind`)."""


def _repeat(file: Path, data: Path | None, flags: dict[str, Any]) -> None:
    """Repeat the verdict of a bundle. Raises WorkFailed where it does not come out the same."""
    import os

    from validator.audits.replay import ReplayOptions
    from validator.bundles.outside import Outside, Repeated
    from validator.bundles.repeat import repeat

    options = ReplayOptions(max_threads=os.cpu_count() or 1)
    settings = NodeSettings.load(**flags)

    async def work(chain: Chain | None) -> Repeated:
        outside = Outside(settings.orchestrator_hotkey, chain, settings.netuid, data)
        return await repeat(file, options, outside)

    found = _with_chain(flags, work)
    verdict, manifest = found.verdict, found.manifest
    typer.echo(
        f"verdict of {manifest.validator}: epoch {verdict.epoch}, {verdict.miner}, {manifest.task.name},"
        f" {verdict.outcome}, receipt {verdict.seq}, {verdict.profile or '-'}: {verdict.reason}"
    )
    for line in found.checked:
        typer.echo(f"holds: {line}")
    for line in found.assumed:
        typer.echo(f"assumed: {line}")
    for line in found.faults:
        typer.echo(f"does not hold: {line}")
    if found.result is not None:
        result = found.result
        typer.echo(f"here: {result.outcome}, receipt {result.seq}, {result.profile or '-'}: {result.reason}")
        for who, expected, given in (
            ("the verdict", verdict.expected, verdict.found),
            ("here", result.expected, result.found),
        ):
            typer.echo(f"  {who}: expected {expected or '-'}, found {given or '-'}")
    if not found.confirmed:
        raise WorkFailed("the verdict is not confirmed")
    typer.echo("the verdict is confirmed")


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=("orchestrator", "orchestrator_hotkey", "allow_private_urls", *CHAIN))
def epoch(
    number: Annotated[int, typer.Argument(metavar="EPOCH", help="The epoch.", min=0)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    **flags: Any,
) -> None:
    """Check an epoch's public record: seal, plans, receipts, links and verdicts. It needs no key.

    With --network or --chain-endpoint, links are held against the chain, and each validator's draw against
    its verdicts. Exit code 0: all holds; 1: something contradicts itself, or a validator withholds something.
    """
    from pydantic_core import to_json

    from iota.cli.orchestrator_calls import no_orchestrator
    from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable
    from iota.client.public_urls import PublicUrls
    from iota.client.run_objects import RunObjects
    from iota.http import Reach
    from iota.store.transfer import ObjectClient
    from validator.audits.epoch_check import check_epoch
    from validator.audits.public_chain import PublicChain

    settings = NodeSettings.load(**flags)
    url, reach = settings.orchestrator, Reach(anywhere=settings.allow_private_urls)

    async def work(chain: Chain | None) -> EpochReport:
        async with (
            OrchestratorClient(
                None, url, settings.orchestrator_hotkey, retry_for_s=RETRY_FOR_S, reach=reach
            ) as client,
            ObjectClient(reach) as store,
        ):
            try:
                info = await client.run()
            except OrchestratorUnreachable as error:
                raise no_orchestrator(url, error) from None
            public = None if chain is None else PublicChain(chain, settings.netuid, info.run)
            objects = RunObjects(PublicUrls(client), store)
            return await check_epoch(info.spec, info.orchestrator, number, client, objects, public)

    report: EpochReport = _with_chain(flags, work)
    if as_json:
        typer.echo(to_json({**vars(report), "withheld": report.withheld, "holds": report.holds}).decode())
    else:
        for line in _report_lines(report):
            typer.echo(line)
    if not report.holds:
        raise WorkFailed(f"epoch {number} does not hold")


def _report_lines(report: EpochReport) -> list[str]:
    """The report for people: a line for each validator and contradiction."""
    sealed = f"sealed by {report.orchestrator}: {counted(report.miners, 'miner')}"
    lines = [
        f"epoch {report.epoch} of run {report.run[:16]}, {sealed}, {counted(report.receipts, 'receipt')}",
        f"block {report.block}: {report.block_hash or 'its hash is not known, so no draw was followed'}",
    ]
    if not report.verdicts:
        lines.append("the orchestrator has no verdicts of it")
    if report.closed is not None:
        lines.append(f"its audits are {'closed' if report.closed else 'open'}")
    for row in report.validators:
        outcomes = ", ".join(f"{count} {name}" for name, count in row.outcomes.items()) or "no verdicts"
        drawn = "draw not followed" if row.drawn is None else f"{row.drawn} drawn"
        owed = f", WITHHOLDS {row.missing}" if row.missing else ""
        link = "" if row.link else "WITHHOLDS ITS LINK, "
        lines.append(f"validator {row.hotkey}: {link}{drawn}, {outcomes}{owed}")
    lines += [f"contradiction: {each.who}: {each.what}" for each in report.contradictions]
    return lines


def _with_chain(flags: dict[str, Any], work: Callable[[Chain | None], Awaitable[Any]]) -> Any:
    """Run `work` on the chain that the flags name, or on none where they name none."""
    import asyncio

    from iota.chain import open_chain

    async def run() -> Any:
        if flags.get("network") is None and flags.get("chain_endpoint") is None:
            return await work(None)
        async with open_chain(NodeSettings.load(**flags).chain) as chain:
            return await work(chain)

    return asyncio.run(run())
