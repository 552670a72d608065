"""`iota-validator`: register a hotkey, and validate with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.chain.register_command import add_register
from iota.console.command import run_command, start_logging
from iota.settings.flags import (
    SOURCES,
    ChainEndpoint,
    LogLevel,
    Netuid,
    Network,
    Orchestrator,
    WalletHotkey,
    WalletName,
    WalletPath,
)

app = typer.Typer(
    help="Re-execute sampled work of a run, score its miners, set weights.", no_args_is_help=True
)


@app.command(epilog=SOURCES)
def start(
    orchestrator: Orchestrator = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Seed, verdicts and scores; one per validator.  (env IOTA_DATA_DIR; default: ~/.iota)"
        ),
    ] = None,
    compute_share: Annotated[
        float | None,
        typer.Option(
            help="Most of this machine's compute to use.  (env IOTA_VALIDATOR_COMPUTE_SHARE; default: 0.1)"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a replay.  (env IOTA_THREADS; default: 1)")
    ] = None,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: ChainEndpoint = None,
    netuid: Netuid = None,
    log_level: LogLevel = None,
) -> None:
    """Audit a run until it ends. Ctrl-C stops; starting again continues from the data directory."""
    given = dict(locals())
    import asyncio

    from iota.settings import ValidatorSettings

    settings = ValidatorSettings.load(**given)
    start_logging(settings.log_level)
    from validator.run import validate

    asyncio.run(validate(settings))


add_register(app, "validator")


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
