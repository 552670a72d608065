"""`iota bugreport`: one file for whoever helps: versions, settings, logs and findings, without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from iota.console.counts import counted
from iota.settings import CHAIN, WALLET, MinerSettings, NodeSettings, ValidatorSettings
from iota.settings.flags import SOURCES, with_flags

app = typer.Typer()
_UNITS = "journalctl -u iota-miner -u iota-validator -u iota-orchestrator --since -2h"


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=("orchestrator", "data_dir", *WALLET, *CHAIN))
def bugreport(
    out: Annotated[
        Path | None, typer.Option(help="The file to write.  (default: iota-bugreport-TIME.tar.gz)")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="The folder of a run of `iota up`: its logs.")] = None,
    log: Annotated[list[Path] | None, typer.Option(help="A log file to include; may be repeated.")] = None,
    role: Annotated[str, typer.Option(help="miner or validator.")] = "miner",
    **flags: Any,
) -> None:
    """Write versions, settings, the last logs, the doctor's findings and facts of the machine to one file.

    Keys, passwords, mnemonics, the store's secret, signed URLs and tokens are removed. Nothing is sent.
    """
    import time

    from iota.console.redactor import Redactor
    from iota.files import write_whole
    from iota.protocol.messages import Role
    from iota.settings.environment import secret_variables
    from iota.swarm import bugreport as report
    from iota.swarm.run_dir import no_run

    if role not in list(Role):
        raise ValueError(f"--role is miner or validator, not {role!r}")
    if run_dir is not None and not (run_dir / "logs").is_dir():
        raise no_run(run_dir)
    out = out or Path(f"iota-bugreport-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    if out.exists():
        raise ValueError(f"{out} exists: give another --out")
    kind = MinerSettings if role == Role.MINER else ValidatorSettings
    settings = kind.load(**{**_of_run(run_dir), **kind.given(flags)})
    texts = {
        "machine.txt": report.machine_text(settings.data_dir),
        "settings.txt": report.settings_text(settings),
        "doctor.txt": _doctor(settings, Role(role)),
        **(report.run_texts(run_dir) if run_dir is not None else {}),
        **{f"logs/{number}-{path.name}": _end_of(path) for number, path in enumerate(log or [])},
    }
    secrets = [*report.known_secrets(run_dir, settings.wallet_path), *secret_variables().values()]
    write_whole(out, report.archive(texts, Redactor(secrets)), mode=0o600)
    typer.echo(f"{out}: {out.stat().st_size / 1000:.0f} kB, with")
    for name, text in texts.items():
        typer.echo(f"  {name}: {counted(len(text.splitlines()), 'line')}")
    if run_dir is None and not log:
        typer.echo(f"No log is in it. Of a service: `{_UNITS} > node.log`, then --log node.log.")
    typer.echo(
        "Keys, passwords, signed URLs and tokens were removed. Nothing was sent: read it, then give it on."
    )


def _of_run(run_dir: Path | None) -> dict[str, Any]:
    """The settings of a miner of the run in the folder; empty without one."""
    from iota.swarm.preparation import WALLET as SWARM
    from iota.swarm.run_dir import read_info

    info = {} if run_dir is None else read_info(run_dir)
    if run_dir is None or "url" not in info:
        return {}
    return {
        "orchestrator": info["url"],
        "network": info["ledger"],
        "data_dir": run_dir / "nodes" / "miner-00",
        "wallet_path": run_dir / "wallets",
        "wallet_name": SWARM,
        "wallet_hotkey": "miner-00",
    }


def _doctor(settings: MinerSettings | ValidatorSettings, role: Any) -> str:
    import asyncio

    from iota.cli.doctor import facts_of, finding_line
    from iota.doctor import findings

    found = findings(asyncio.run(facts_of(settings, role)))
    return "".join(f"{finding_line(finding)}\n" for finding in found)


def _end_of(path: Path) -> str:
    from iota.swarm.bugreport import log_end

    try:
        return log_end(path)
    except OSError as error:
        raise ValueError(f"--log {path} cannot be read ({error.strerror})") from None
