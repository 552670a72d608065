"""Tells a miner's log what the run has on record about it: verdicts, weights, lateness."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable, UntrustedAnswer
from iota.console.counts import counted
from iota.protocol.member_records import WITHDRAWN_BECAUSE, MemberRecord, MemberState
from iota.protocol.messages import Outcome
from iota.protocol.problems import Problem

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 60.0
"""With 3,000 miners 50 looks a second, each the cost of one bounded record."""


class OwnRecord:
    """Reads the miner's own public record and logs what is new in it. Informational only."""

    def __init__(self, client: OrchestratorClient, hotkey: str) -> None:
        self._client, self._hotkey = client, hotkey
        self._before: MemberRecord | None = None
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now: audits were closed."""
        self._wake.set()

    async def watch(self) -> None:
        """Look at every `wake` and each `LOOK_EVERY_S`, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.look()

    async def look(self) -> None:
        """Read the record once, and log what is new."""
        try:
            now = await self._client.member(self._hotkey, retry_for_s=0.0)
        except (Problem, OrchestratorUnreachable, UntrustedAnswer) as error:
            log.debug("the run's record of this miner cannot be read: %s", error)
            return
        for level, text in news(self._before, now):
            log.log(level, "%s", text)
        self._before = now


def news(before: MemberRecord | None, now: MemberRecord) -> list[tuple[int, str]]:
    """(level, line) for what `now` has that `before` had not. Pure."""
    old = before.verdicts if before is not None else ()
    verdicts = [v for v in now.verdicts if v not in old]
    lines = [
        (
            logging.WARNING,
            f"audit of epoch {v.epoch} ({v.audit}): {v.outcome} by validator {v.validator[:8]}: {v.reason}",
        )
        for v in verdicts
        if v.outcome is not Outcome.PASS
    ]
    passed = Counter((v.epoch, v.audit) for v in verdicts if v.outcome is Outcome.PASS)
    lines += [
        (logging.INFO, f"audit of epoch {epoch} ({kind}): {count} passed")
        for (epoch, kind), count in passed.items()
    ]
    newest = {w.validator: w for w in now.weights}  # they are in the order of their reports
    posted = [w for w in newest.values() if before is None or w not in before.weights]
    lines += [
        (logging.INFO, f"weight {w.weight:.4f} by validator {w.validator[:8]} in block {w.block}")
        for w in posted
    ]
    counts = {} if before is None else before.withdrawals
    for why, count in now.withdrawals.items():
        if (more := count - counts.get(why, 0)) > 0:
            taken = f"{counted(more, 'microbatch')} withdrawn from this miner: {WITHDRAWN_BECAUSE[why]}"
            lines.append((logging.WARNING, taken))
    troubled = (MemberState.LATE, MemberState.LOST)
    if now.state in troubled and (before is None or before.state != now.state):
        lines.append((logging.WARNING, f"the run counts this miner as {now.state}: {now.why}"))
    return lines
