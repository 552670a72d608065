"""Flags that several commands share, spelled as Bittensor operators know them: dotted and dashed.

Each is None where it was not given: `iota.settings` then looks at the environment, `.env` and its defaults.
The help names both, in words of its own, since the settings take too long to import for a `--help`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

SOURCES: Final = (
    "A value comes from its flag; else from the environment, by the first name that is set; else, by the "
    "same names, from .env in the folder that the command is started in; else it is the default."
)
"""Stands at the end of a command's help."""

WalletName = Annotated[
    str | None,
    typer.Option(
        "--wallet.name",
        "--wallet-name",
        help="Wallet that holds the hotkey.  (env IOTA_WALLET_NAME, BT_WALLET; default: default)",
    ),
]
WalletHotkey = Annotated[
    str | None,
    typer.Option(
        "--wallet.hotkey",
        "--wallet-hotkey",
        help="The hotkey's name.  (env IOTA_WALLET_HOTKEY, BT_WALLET_HOTKEY; default: default)",
    ),
]
WalletPath = Annotated[
    Path | None,
    typer.Option(
        "--wallet.path",
        "--wallet-path",
        help="Folder of wallets.  (env IOTA_WALLET_PATH, BT_WALLET_PATH; default: ~/.bittensor/wallets)",
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--network",  # the short name first: a narrow terminal cuts off the others in --help
        "--subtensor.network",
        "--subtensor-network",
        help="The chain: finney, test, local, a node's wss:// URL, or an embedded ledger's http:// URL."
        "  (env IOTA_NETWORK, BT_NETWORK; default: finney)",
    ),
]
ChainEndpoint = Annotated[
    str | None,
    typer.Option(
        "--chain-endpoint",
        "--subtensor.chain_endpoint",
        "--subtensor-chain-endpoint",
        help="URL of a chain node, in place of the network's own."
        "  (env IOTA_CHAIN_ENDPOINT, BT_CHAIN_ENDPOINT; default: none)",
    ),
]
Netuid = Annotated[
    int | None, typer.Option("--netuid", help="The subnet's number.  (env IOTA_NETUID; default: 9)")
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", help="DEBUG, INFO, WARNING or ERROR.  (env IOTA_LOG_LEVEL; default: INFO)"),
]
Orchestrator = Annotated[
    str | None,
    typer.Option(
        "--orchestrator",
        help="The run's orchestrator, a URL.  (env IOTA_ORCHESTRATOR; default: http://127.0.0.1:8400)",
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1 and so on.  (env IOTA_DEVICE; default: auto)"),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads for compute.  (env IOTA_THREADS; default: all cores)"),
]
MaxBurn = Annotated[
    float | None,
    typer.Option(
        "--max-burn", help="Most TAO to pay; 10 % above the price that is shown, if not given.", min=0.0
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to the price without being asked.")]
