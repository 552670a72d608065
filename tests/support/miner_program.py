"""`iota-miner start` with other parts than the product's."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from iota.console.command import run_command
from iota.console.settings_command import settings_command
from iota.settings import MinerSettings
from miner.run import mine


def run_miner(**parts: Any) -> None:
    """Run this process as a miner; `parts` replace those that `mine` has by default."""
    app = typer.Typer()
    app.callback()(lambda: None)  # keeps `start` a word of the command line

    @settings_command(app, MinerSettings)
    def start(settings: MinerSettings) -> None:
        asyncio.run(mine(settings, **parts))

    run_command(app)
