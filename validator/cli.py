"""`iota-validator`: register a hotkey, and validate with it."""

from __future__ import annotations

from iota.console.command import run_command
from iota.console.program import program
from iota.console.settings_command import settings_command
from iota.registration.command import add_register
from iota.settings import ValidatorSettings
from validator.calibration.command import add_calibrate

app = program("Re-execute sampled work of a run, score its miners, set weights.")


@settings_command(app, ValidatorSettings)
def start(settings: ValidatorSettings) -> None:
    """Audit a run until it ends. Ctrl-C stops; starting again continues from the data directory."""
    import asyncio

    from validator.run import validate  # takes seconds: a wrong setting is refused before

    asyncio.run(validate(settings))


add_register(app, "validator")
add_calibrate(app)


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
