"""What a run waits for in the words of `iota up`, which starts the run's nodes itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from iota.console.counts import counted
from iota.protocol.status_delta import Status

_NAMED = 3


def with_own_nodes(status: Status, names: Mapping[str, str]) -> Status:
    """`status` with what it waits for, where that is a node of this command: nobody else has to act.

    `names` gives the name of each hotkey of this command. The orchestrator knows nodes from their join on,
    and tells a person to start those that are missing.
    """
    if status["waiting"] is None or status["phase"] == "finished":
        return status
    live = {member["hotkey"]: member["live"] for member in status["members"]}
    miners = {hotkey: name for hotkey, name in names.items() if name.startswith("miner-")}
    absent = sorted(name for hotkey, name in miners.items() if hotkey not in live)
    silent = sorted(name for hotkey, name in miners.items() if not live.get(hotkey, True))
    if absent:
        joined = len(miners) - len(absent)
        text = f"{joined} of {counted(len(miners), 'miner')} joined; {_listed(absent)} still starting"
    elif silent:
        text = f"{_listed(silent)} not answering; a process that has ended is started again by this command"
    else:
        return status
    return {**status, "waiting": text}


def _listed(names: list[str]) -> str:
    """`miner-00 is` or `miner-00, miner-01 are`."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} {'is' if len(names) == 1 else 'are'}"
