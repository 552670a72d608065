"""`iota doctor`: checks a node before, or while, it does not work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota.settings.flags import (
    SOURCES,
    ChainEndpoint,
    Netuid,
    Network,
    Orchestrator,
    WalletHotkey,
    WalletName,
    WalletPath,
)

if TYPE_CHECKING:
    from iota.doctor import Facts, Finding
    from iota.protocol.messages import Role
    from iota.settings import MinerSettings, ValidatorSettings

app = typer.Typer()
_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


@app.command(epilog=SOURCES)
def doctor(
    role: Annotated[str, typer.Option(help="miner or validator.")] = "miner",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    orchestrator: Orchestrator = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The node's folder.  (env IOTA_DATA_DIR; default: ~/.iota)")
    ] = None,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: ChainEndpoint = None,
    netuid: Netuid = None,
) -> None:
    """Check versions, wallet, chain, clock, registration, orchestrator, disk and card: one line each.

    Takes the flags that the role starts with, and sends nothing but questions. Ends in 10 s, whoever does not
    answer: with code 0 if the role can work, and 1 if a problem has to be put right first.
    """
    given = {name: value for name, value in locals().items() if name not in ("role", "as_json")}
    import asyncio
    import json
    import logging
    from dataclasses import asdict

    from iota.doctor import Severity, findings
    from iota.protocol.messages import Role
    from iota.settings import MinerSettings, ValidatorSettings

    if role not in list(Role):
        raise ValueError(f"--role is miner or validator, not {role!r}")
    kind = MinerSettings if role == Role.MINER else ValidatorSettings
    settings = kind.load(**given)
    logging.basicConfig(level=logging.ERROR)  # what a library would warn of is a finding here
    found = findings(asyncio.run(_facts(settings, Role(role))))
    well = all(finding.verdict is not Severity.PROBLEM for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": well, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        for finding in found:
            typer.echo(_line(finding))
    raise typer.Exit(0 if well else 1)


async def _facts(settings: MinerSettings | ValidatorSettings, role: Role) -> Facts:
    import asyncio

    from iota.doctor import gather
    from iota.doctor.threads import DaemonThreads

    asyncio.get_running_loop().set_default_executor(DaemonThreads())
    return await gather(settings, role)


def _line(finding: Finding) -> str:
    verdict = typer.style(f"{finding.verdict:8}", fg=_COLOURS[finding.verdict])
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{verdict} {finding.check:15} {finding.found}{remedy}"
