"""`iota-orchestrator`: plan and record one run."""

from __future__ import annotations

from iota.console.command import run_command
from iota.console.program import program
from iota.console.settings_command import settings_command
from iota.settings import OrchestratorSettings

app = program("Plan and record one training run.")


@settings_command(app, OrchestratorSettings)
def start(settings: OrchestratorSettings) -> None:
    """Start the orchestrator of a run, or go on from its journal."""
    import asyncio

    from orchestrator.run import orchestrate

    asyncio.run(orchestrate(settings))


def main() -> None:
    """Entry point of the `iota-orchestrator` command."""
    run_command(app)


if __name__ == "__main__":
    main()
