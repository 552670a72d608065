"""`iota doctor`: checks a node's machine, wallet, chain and orchestrator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.settings import CHAIN, WALLET, MinerSettings, ValidatorSettings
from iota.settings.flags import SOURCES, with_flags

if TYPE_CHECKING:
    from iota.doctor import Facts, Finding
    from iota.protocol.messages import Role

app = typer.Typer()
_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


@app.command(epilog=SOURCES)
@with_flags(
    MinerSettings, only=("worker", "orchestrator", "orchestrator_hotkey", "data_dir", *WALLET, *CHAIN)
)
def doctor(
    role: Annotated[str, typer.Option(help="miner or validator.")] = "miner",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    spec: Annotated[
        Path | None, typer.Option(help="The run's spec, where its orchestrator does not run yet.")
    ] = None,
    **flags: Any,
) -> None:
    """Check versions, wallet, chain, clock, registration, orchestrator, disk and card: one line each.

    Takes the flags that the role starts with, and changes nothing. With --worker it asks the chain only where
    --network or --chain-endpoint names one. Ends within 10 s, also if a server does not answer: with code 0
    if the role can work, and 1 if there is a problem to solve first.
    """
    import asyncio
    import json
    import logging
    from dataclasses import asdict

    from iota.doctor import Severity, findings
    from iota.protocol.messages import Role

    if role not in list(Role):
        raise ValueError(f"--role is miner or validator, not {role!r}")
    kind = MinerSettings if role == Role.MINER else ValidatorSettings
    if role == Role.VALIDATOR and flags.pop("worker") is not None:
        raise ValueError("--worker is for miners: a validator acts by its own hotkey")
    settings = kind.load(**flags)
    logging.basicConfig(level=logging.ERROR)  # libraries warn of faults that are findings here
    found = findings(asyncio.run(facts_of(settings, Role(role), spec, ask_chain=_needs_chain(kind, flags))))
    well = all(finding.verdict is not Severity.PROBLEM for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": well, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        for finding in found:
            typer.echo(finding_line(finding, colour=True))
    raise typer.Exit(0 if well else 1)


async def facts_of(
    settings: MinerSettings | ValidatorSettings,
    role: Role,
    spec: Path | None = None,
    *,
    ask_chain: bool = True,
) -> Facts:
    """The facts about a node; ends within the doctor's deadline, whatever hangs."""
    import asyncio

    from iota.doctor import gather
    from iota.settings.spec_file import read_spec
    from iota.system.daemon_threads import DaemonThreads

    asyncio.get_running_loop().set_default_executor(DaemonThreads())
    return await gather(settings, role, None if spec is None else read_spec(spec), ask_chain=ask_chain)


def _needs_chain(kind: type[MinerSettings] | type[ValidatorSettings], flags: dict[str, Any]) -> bool:
    """Whether to ask the chain: with a worker file only one that is named, since a worker needs none."""
    from iota.settings.environment import from_variables

    named = from_variables(kind) | kind.given(flags)
    return "worker" not in named or "network" in named or "chain_endpoint" in named


def finding_line(finding: Finding, *, colour: bool = False) -> str:
    """A finding on one line."""
    verdict = f"{finding.verdict:8}"
    if colour:
        verdict = typer.style(verdict, fg=_COLOURS[finding.verdict])
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{verdict} {finding.check:15} {finding.found}{remedy}"
