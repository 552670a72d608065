"""The orchestrator's log of its run: a line each half minute, and one for each join, loss and merge."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from iota.console.counts import counted
from iota.console.durations import LINE_EVERY_S
from iota.protocol.messages import Role
from orchestrator.coordinator import Coordinator, Entry, Joined, Left, Lost, Returned, Revoked

_log = logging.getLogger(__name__)


class ProgressLog:
    """Logs what a person who runs an orchestrator wants to read. Nothing depends on it."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._merges = len(coordinator.state.totals.merges)

    def observe(self, entry: Entry) -> None:
        """Log a change of membership, and a merge that an entry completed."""
        match entry:
            case Joined():
                member = self._coordinator.members.get(entry.hotkey)
                if member is not None:
                    place = "validator" if member.role is Role.VALIDATOR else f"miner of stage {member.stage}"
                    if member.owner != member.hotkey:
                        place += f", a worker of {member.owner}"
                    how = "joined again from its disk" if member.resume else "joined"
                    _log.info("%s %s as %s, on %s", entry.hotkey, how, place, member.device)
            case Left():
                _log.info("%s left", entry.hotkey)
            case Revoked():
                owner, worker = entry.revocation.owner, entry.revocation.worker
                known = self._coordinator.members.get(worker)
                joined = known is not None and known.owner == owner
                what = "its worker" if joined else "a key that has not joined as its worker:"
                _log.info("%s revoked %s %s", owner, what, worker)
            case Lost():
                _log.warning("%s is lost: it was silent for too long", entry.hotkey)
            case Returned():
                _log.info("%s is back", entry.hotkey)
            case _:
                pass
        merges = self._coordinator.state.totals.merges
        if len(merges) > self._merges:
            self._merges = len(merges)
            _log.info("epoch %d is merged, after step %d of the run", len(merges) - 1, merges[-1])

    async def run(self) -> None:
        """Log a line when one is due, until cancelled."""
        totals = self._coordinator.state.totals
        before, at = totals.tokens, time.monotonic()
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            now, tokens = time.monotonic(), totals.tokens
            losses = self._coordinator.losses()["losses"]
            _log.info("%s", progress_line(self._coordinator.status(), losses, tokens - before, now - at))
            before, at = tokens, now


def progress_line(status: dict[str, Any], losses: list[float], tokens: int, passed_s: float) -> str:
    """One line on a status: progress, members, `tokens` settled in the last `passed_s` seconds. Pure."""
    miners = [m for m in status["members"] if m["role"] == "miner"]
    late = sum(m["stalled"] for m in miners)
    audits, live = status["audits"], sum(m["live"] for m in miners)
    validators = sum(m["live"] for m in status["members"]) - live
    return (
        f"{status['phase']}: epoch {status['epoch']} step {status['step']}/{status['steps']}"
        f"{f', loss {losses[-1]:.4f}' if losses else ''}, {tokens / max(passed_s, 1e-9):,.0f} tokens/s;"
        f" {live} of {counted(len(miners), 'miner')} live"
        f"{f', {late} late' if late else ''},"
        f" {counted(validators, 'validator')};"
        f" {status['dropped']} dropped, {status['rerouted']} re-routed;"
        f" audits {audits['passed']}+ {audits['failed']}- {audits['undelivered']}! {audits['inconclusive']}?"
        f"{'; waits: ' + status['waiting'] if status['waiting'] else ''}"
    )
