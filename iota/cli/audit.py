"""`iota audit`: checks that anyone can make: a verdict, a contradiction, an epoch's public record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.console.command import WorkFailed
from iota.console.counts import counted
from iota.console.redaction import one_line, printable
from iota.settings import CHAIN, NodeSettings
from iota.settings.flags import SOURCES, with_flags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from iota.chain import Chain
    from iota.protocol.messages import Verdict
    from validator.audits.epoch_check import EpochReport, ValidatorRow
    from validator.core.results import Result

app = typer.Typer(
    help="Check a verdict, a contradiction or an epoch by what is signed and public.", no_args_is_help=True
)
MAX_EVIDENCE_BYTES = 256 << 20
"""Largest contradiction file that is read; one may hold all receipts of a miner in an epoch."""
_BUNDLE_MARK = b"PK"
_NOT_ASKED = 3
"""Exit code where what has to be asked does not answer, so that nothing is proven or refuted."""
_NO_CHAIN = {
    "network": "none: no chain is asked",
    "netuid": "9",
    "chain_endpoint": "none: that of --network",
}
_RECORDS = "records"
"""The profile of a fault that the miner's own statements show."""
RETRY_FOR_S = 30.0
"""How long an orchestrator may be silent."""


@app.command(epilog=SOURCES)
@with_flags(
    NodeSettings,
    only=("orchestrator_hotkey", *CHAIN),
    unset={**_NO_CHAIN, "orchestrator_hotkey": "the one that the file names, which is then assumed"},
)
def verify(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A contradiction (.json) or the bundle of a verdict (.zip)."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Check token ids, too, in this folder that `iota data prepare` wrote.")
    ] = None,
    **flags: Any,
) -> None:
    """Repeat a verdict, or check a contradiction of an orchestrator, from its file alone.

    No server is asked. Without --orchestrator-hotkey the one in the file is taken for the run's; without
    --network or --chain-endpoint the block's hash and the validator's commitment are taken as given; without
    --data the token ids. All of it is printed as assumed. Exit code 0: it holds; 1: it does not; 3: the chain
    does not answer, so that nothing is proven or refuted.
    """
    from iota.settings.sentences import sentence

    if not file.is_file():
        raise ValueError(f"{file} is no file")
    with file.open("rb") as opened:
        is_bundle = opened.read(len(_BUNDLE_MARK)) == _BUNDLE_MARK
    if is_bundle:
        _repeat(file, data, flags)
        return
    if not file.stat().st_size:
        raise ValueError(f"{file} is empty")
    if file.suffix == ".zip":
        raise ValueError(f"{file} is no bundle: it does not begin as a zip does")
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
        f"verdict of {manifest.validator}: epoch {verdict.epoch}, miner {verdict.miner},"
        f" audit {manifest.task.name}: {_outcome(verdict, verdict.failed_seq or verdict.seq)}"
    )
    for line in found.checked:
        typer.echo(f"holds: {line}")
    for line in found.assumed:
        typer.echo(f"assumed: {line}")
    for line in found.faults:
        typer.echo(f"does not hold: {line}")
    if found.result is not None:
        result = found.result
        typer.echo(f"here: {_outcome(result, result.seq)}")
        for line in (_values("the verdict", verdict), _values("here", result)):
            typer.echo(f"  {line}")
    if not found.confirmed:
        raise WorkFailed("the verdict is not confirmed")
    typer.echo("the verdict is confirmed")


def _outcome(judged: Verdict | Result, seq: int) -> str:
    """The outcome, with the miner's receipt that it is about and the profile of the comparison."""
    return f"{judged.outcome} at receipt {seq}, profile {judged.profile or '-'}: {judged.reason}"


def _values(who: str, judged: Verdict | Result) -> str:
    """What a verdict or a result compares, and whose each value is."""
    if not judged.expected and not judged.found:
        return f"{who}: it states no values"
    if judged.profile == _RECORDS:
        right, given = "by what it signed or did before right is", "the miner gave"
    else:
        right, given = "the replay gives", "the receipt says"
    return f"{who}: {right} {judged.expected or '-'}, {given} {judged.found or '-'}"


@app.command(epilog=SOURCES)
@with_flags(
    NodeSettings,
    only=("orchestrator", "orchestrator_hotkey", "allow_private_urls", *CHAIN),
    unset={**_NO_CHAIN, "orchestrator_hotkey": "the first that answers"},
)
def epoch(
    number: Annotated[int, typer.Argument(metavar="EPOCH", help="The epoch.", min=0)],
    run_dir: Annotated[Path | None, typer.Option(help="The folder of a going `iota up`, instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    **flags: Any,
) -> None:
    """Check an epoch's public record: seal, plans, receipts, links and verdicts. It needs no key.

    With --network or --chain-endpoint, links are held against the chain, and each validator's draw against
    its verdicts. Exit code 0: all holds; 1: something contradicts itself, or a validator withholds something;
    3: the orchestrator, its store or the chain does not answer. While the audits are open, what is missing
    may still come, and counts as no fault.
    """
    from pydantic_core import to_json

    from iota.cli.orchestrator_calls import no_orchestrator, orchestrator_url
    from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable
    from iota.client.public_urls import PublicUrls
    from iota.client.run_objects import RunObjects
    from iota.http import Reach
    from iota.store.transfer import ObjectClient
    from validator.audits.epoch_check import check_epoch
    from validator.audits.public_chain import PublicChain

    settings, url = NodeSettings.load(**flags), orchestrator_url(run_dir, flags)
    reach = Reach(anywhere=settings.allow_private_urls)

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
        for line in report_lines(report):
            typer.echo(line)
    if not report.holds:
        raise WorkFailed(f"epoch {number} does not hold")


def report_lines(report: EpochReport) -> list[str]:
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
        lines.append(f"validator {row.hotkey}: {', '.join(_row_parts(report, row))}")
    lines += [f"contradiction: {each.who}: {each.what}" for each in report.contradictions]
    return lines


def _row_parts(report: EpochReport, row: ValidatorRow) -> Iterator[str]:
    """What is known of one validator. While the audits are open, what is missing may still come."""
    is_open = report.closed is False
    if not row.link:
        wrong = any(each.who == row.hotkey for each in report.contradictions)
        yield "a wrong link" if wrong else "link not revealed yet" if is_open else "WITHHOLDS ITS LINK"
    if row.drawn is not None:
        yield f"{row.drawn} drawn"
    elif row.link:
        yield "draw not followed"
    filed = sum(row.outcomes.values())
    outcomes = ", ".join(f"{count} {name}" for name, count in row.outcomes.items())
    besides = 0 if row.drawn is None or row.missing is None else filed - (row.drawn - row.missing)
    of = f"; {besides} of them on merges, bases, records and others' accusations" if besides > 0 else ""
    yield f"{counted(filed, 'verdict')} ({outcomes}{of})" if filed else "no verdicts"
    if row.missing:
        yield f"{row.missing} not filed yet" if is_open else f"WITHHOLDS {row.missing}"


def _with_chain(flags: dict[str, Any], work: Callable[[Chain | None], Awaitable[Any]]) -> Any:
    """Run `work` on the chain that flags or variables name, or on none where they name none.

    Ends the command with `_NOT_ASKED` where chain, orchestrator or store does not answer.
    """
    import asyncio

    from iota.chain import ChainError, open_chain
    from iota.cli.orchestrator_calls import NoOrchestrator
    from iota.client.orchestrator import OrchestratorUnreachable
    from iota.settings.environment import from_variables
    from iota.store.store import StoreError

    named = from_variables(NodeSettings) | NodeSettings.given(flags)

    async def run() -> Any:
        if "network" not in named and "chain_endpoint" not in named:
            return await work(None)
        async with open_chain(NodeSettings.load(**flags).chain) as chain:
            return await work(chain)

    try:
        return asyncio.run(run())
    except (ChainError, NoOrchestrator, OrchestratorUnreachable, StoreError) as error:
        typer.echo(f"error: {printable(one_line(str(error)))}; nothing is proven or refuted", err=True)
        raise typer.Exit(_NOT_ASKED) from None
