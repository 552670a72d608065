"""`iota-miner`: register a hotkey, and mine with it."""

from __future__ import annotations

from iota.console.command import run_command
from iota.console.program import program
from iota.console.settings_command import settings_command
from iota.registration.command import add_register
from iota.settings import MinerSettings

app = program("Host one pipeline stage of a run, and be paid for checked work.")


@settings_command(app, MinerSettings)
def start(settings: MinerSettings) -> None:
    """Join a run and train until it ends. Ctrl-C stops; starting again continues from the data directory."""
    import asyncio

    from miner.run import mine  # takes seconds: a wrong setting is refused before

    asyncio.run(mine(settings))


add_register(app, "miner")


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
