"""A run whose orchestrator does not answer, read from its folder's journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from iota.swarm.invocation import resume_command
from iota.swarm.run_dir import is_held, no_run

if TYPE_CHECKING:
    from iota.protocol.status_delta import Status
    from orchestrator.coordinator import Coordinator


def replayed(root: Path) -> Coordinator:
    """The coordinator at the end of the journal in the run's folder `root`. Costs the whole journal.

    Raises:
        ValueError: there is no run, or its journal cannot be read.
    """
    from orchestrator.journal import read_journal

    journal = root / "journal.db"
    if not journal.exists():
        raise no_run(root)
    return read_journal(journal)


def ended_status(coordinator: Coordinator, root: Path) -> Status:
    """The last status, with all losses, of the coordinator of the run in `root`.

    What its nodes do is unknown while an `iota up` holds the folder: the orchestrator alone may be away.
    """
    status = coordinator.status()
    state = "ended" if status["finished"] else "unknown" if is_held(root) else "stopped"
    stopped = {"state": state, "tokens_per_second": 0.0, "seconds": {}, "memory": 0}
    return {
        **status,
        "losses": list(coordinator.state.totals.losses),
        "losses_from": 0,
        "losses_total": len(coordinator.state.totals.losses),
        "nodes": {hotkey: stopped for hotkey in coordinator.members},
    }


def how_it_ended(status: Status, root: Path) -> str:
    """A sentence: the run in `root` has ended, is held by an `iota up`, or stands still and can go on."""
    if status["finished"]:
        return "the run has ended"
    done = f"epoch {status['epoch']}, step {status['step']} of {status['steps']}"
    if is_held(root):
        return f"the run is at {done}: an `iota up` is starting or stopping its orchestrator; ask again"
    return f"the run stands still at {done}: nothing runs; `{resume_command(root)}` goes on from here"
