"""`iota-validator`: register a hotkey, and validate with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.flags import (
    SOURCES,
    ChainEndpoint,
    LogLevel,
    MaxBurn,
    Netuid,
    Network,
    Orchestrator,
    WalletHotkey,
    WalletName,
    WalletPath,
    Yes,
)
from iota.terminal import run_command

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
    import logging

    from iota.settings import ValidatorSettings

    settings = ValidatorSettings.load(**given)
    logging.basicConfig(
        level=settings.log_level.value, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    from validator.run import validate

    asyncio.run(validate(settings))


@app.command("register", epilog=SOURCES)
def register_hotkey(
    max_burn: MaxBurn = None,
    yes: Yes = False,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: ChainEndpoint = None,
    netuid: Netuid = None,
    log_level: LogLevel = None,
) -> None:
    """Register the hotkey as a validator on the subnet; does nothing if it is registered already.

    The price is shown first and must be agreed to. The coldkey pays and signs: this is the only command that
    opens it, and the hotkey's node needs no copy of it.
    """
    given = {name: value for name, value in locals().items() if name not in ("max_burn", "yes")}
    import asyncio
    import logging

    from iota.asking import Person
    from iota.chain.registration import register
    from iota.protocol.messages import Role
    from iota.settings import WalletSettings

    settings = WalletSettings.load(**given)
    logging.basicConfig(
        level=settings.log_level.value, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    person = Person(settings, yes=yes)
    typer.echo(asyncio.run(register(settings, Role.VALIDATOR, person, max_cost_tao=max_burn)))


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
