"""Flags that several commands share, spelled as Bittensor operators know them: dotted and dashed.

Each is None where it was not given: `iota.settings` then looks at the environment, `.env` and its defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WalletName = Annotated[
    str | None,
    typer.Option(
        "--wallet.name",
        "--wallet-name",
        help="Wallet that holds the hotkey.  (env IOTA_WALLET_NAME, BT_WALLET)",
    ),
]
WalletHotkey = Annotated[
    str | None,
    typer.Option(
        "--wallet.hotkey",
        "--wallet-hotkey",
        help="The hotkey's name.  (env IOTA_WALLET_HOTKEY, BT_WALLET_HOTKEY)",
    ),
]
WalletPath = Annotated[
    Path | None,
    typer.Option(
        "--wallet.path", "--wallet-path", help="Folder of wallets.  (env IOTA_WALLET_PATH, BT_WALLET_PATH)"
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--subtensor.network",
        "--subtensor-network",
        "--network",
        help="The chain, or the URL of an embedded ledger.  (env IOTA_NETWORK, BT_NETWORK)",
    ),
]
ChainEndpoint = Annotated[
    str | None,
    typer.Option(
        "--subtensor.chain_endpoint",
        "--subtensor-chain-endpoint",
        "--chain-endpoint",
        help="Chain node.  (env IOTA_CHAIN_ENDPOINT, BT_CHAIN_ENDPOINT)",
    ),
]
Netuid = Annotated[int | None, typer.Option("--netuid", help="The subnet's number.  (env IOTA_NETUID)")]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", help="DEBUG, INFO, WARNING or ERROR.  (env IOTA_LOG_LEVEL)")
]
Orchestrator = Annotated[
    str | None,
    typer.Option("--orchestrator", help="The run's orchestrator, a URL.  (env IOTA_ORCHESTRATOR)"),
]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 and so on.  (env IOTA_DEVICE)")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads for compute; all cores if not given.  (env IOTA_THREADS)"),
]
