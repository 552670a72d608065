"""`iota ledger`: the embedded chain for runs on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="The embedded ledger: a chain for one-machine runs and tests.", no_args_is_help=True)


@app.command()
def serve(
    db: Annotated[Path, typer.Option("--db", help="The ledger's file; created if it is not there.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 9944,
    block_time: Annotated[float | None, typer.Option(help="Seconds a block; 12 if not given.")] = None,
    tempo: Annotated[int | None, typer.Option(help="Blocks an epoch; 360 if not given.")] = None,
    netuid: Annotated[int | None, typer.Option(help="The subnet's number; 9 if not given.")] = None,
    weights_rate_limit: Annotated[
        int | None, typer.Option(help="Blocks between a validator's weights; 100 if not given.")
    ] = None,
    reveal_blocks: Annotated[
        int | None, typer.Option(help="Blocks that weights stay hidden; 0 (at once) if not given.")
    ] = None,
    faucet_stake: Annotated[
        float | None, typer.Option(help="Stake a validator gets when it registers; 1000 if not given.")
    ] = None,
) -> None:
    """Serve the ledger until interrupted.

    Parameters that are not given are as the file was created; others must agree with it. Block hashes are
    trusted: the ledger's operator could choose them.
    """
    import asyncio

    from iota.chain.ledger import server

    given: dict[str, Any] = {
        "block_time_s": block_time,
        "tempo": tempo,
        "netuid": netuid,
        "weights_rate_limit": weights_rate_limit,
        "reveal_blocks": reveal_blocks,
        "faucet_stake": faucet_stake,
    }
    choices = {name: value for name, value in given.items() if value is not None}

    def ready(url: str) -> None:
        typer.echo(f"embedded ledger at {url} (block hashes are trusted; for one machine and tests)")

    asyncio.run(server.serve(db, host, port, ready=ready, **choices))
