"""From an audit's result to a verdict that is signed, remembered and said, once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from iota.identity.keys import Hotkey
from iota.protocol.messages import AuditKind, Outcome, Verdict
from validator.audits.audit import Result, Task
from validator.audits.verdicts import signed_verdict
from validator.notebook import Notebook

log = logging.getLogger(__name__)


class Filing:
    """Files verdicts of one run. `say` sends one to the orchestrator."""

    def __init__(self, run: str, hotkey: Hotkey, notebook: Notebook, say: Callable[[Verdict], None]) -> None:
        self._run, self._hotkey, self._notebook, self._say = run, hotkey, notebook, say

    def kept(self, epoch: int, hotkey: str, task: Task) -> Verdict | None:
        """What was decided before, perhaps by an earlier process: it stands."""
        return self._notebook.verdict(epoch, hotkey, task.name)

    def file(self, epoch: int, hotkey: str, task: Task, result: Result) -> None:
        """Remember, then say. A verdict of this name that was kept before stands and is said again."""
        verdict = signed_verdict(
            self._run,
            self._hotkey,
            epoch=epoch,
            miner=hotkey,
            audit=task.kind,
            outcome=result.outcome,
            seq=result.seq or task.seq,
            profile=result.profile,
            expected=result.expected,
            found=result.found,
            reason=result.reason,
        )
        kept = self._notebook.keep(task.name, verdict, unproven=result.unproven)
        if kept.outcome is Outcome.PASS:
            log.info("epoch %d: %s passes %s", epoch, hotkey, task.name)
        else:
            log.warning("epoch %d: %s: %s %s: %s", epoch, hotkey, task.name, kept.outcome, kept.reason)
        self._say(kept)

    def file_undrawn(self, epoch: int, hotkey: str, result: Result) -> None:
        """A verdict that no draw asked for: the records themselves show it."""
        self.file(epoch, hotkey, Task(AuditKind.OP, f"records:{result.seq}", result.seq), result)
