"""What others published of an epoch and, for a validator that came later, of the window before it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from iota.spec import RunSpec
from validator.core import effects, jobs
from validator.core.containment import contained
from validator.core.effects import Effect, Log
from validator.core.facts import TransportFailed
from validator.core.history import History
from validator.core.jobs import Script
from validator.core.pool import Pool
from validator.core.results import EvidenceMissing
from validator.core.segments import window_start
from validator.core.tasks import drawable, epoch_work


class Pooling:
    """Makes work and verdicts of a window known, up to an epoch whose audits are closed, as a script."""

    def __init__(
        self,
        spec: RunSpec,
        epoch: int,
        still_open: Collection[int],
        history: History,
        emit: Callable[[Effect], None],
    ) -> None:
        """Verdicts of the epochs in `still_open` are not complete yet: another pooling fetches them."""
        self.epoch = epoch
        self._spec, self._open, self._history, self._emit = spec, still_open, history, emit

    @property
    def activity(self) -> str:
        """The current work in words, for the status line."""
        return f"epoch {self.epoch}: fetching the verdicts of other validators"

    def script(self) -> Script[None]:
        """Fetch what is not known yet of the epochs that count, or that public draws follow from.

        What is not to be had is said, and left out.
        """
        scored = max(0, self.epoch - self._spec.audit.window + 1)
        first = min(scored, window_start(self._spec, self.epoch))
        kept: list[Effect] = []
        for epoch in (n for n in range(first, self.epoch + 1) if n not in self._open):
            if epoch not in self._history.worked:
                work = self._fetch_work(epoch)
                yield from contained(work, epoch, "its record", lambda reason: None, self._emit)
            if epoch >= scored and epoch not in self._history.pooled:
                verdicts, none = self._fetch_verdicts(epoch), partial(_nothing, epoch)
                kept.append((yield from contained(verdicts, epoch, "others' verdicts", none, self._emit)))
        # All at once, so that no weights are set from a part of the window.
        for effect in kept:
            self._emit(effect)

    def _fetch_work(self, epoch: int) -> Script[None]:
        try:
            seal, sealed = yield jobs.FetchPast(epoch)
            block_hash: str = yield jobs.AwaitBlock(seal.block)
        except (TransportFailed, EvidenceMissing) as error:
            self._log(epoch, f"its record is not to be had, so scores leave its work out: {error}")
            return
        work = epoch_work(sealed)
        self._history.keep_work(self._spec, epoch, drawable(sealed, block_hash))
        self._emit(effects.KeepDraw(epoch, block_hash))
        self._emit(effects.KeepWork(work))

    def _fetch_verdicts(self, epoch: int) -> Script[Effect]:
        try:
            pool: Pool = yield jobs.FetchVerdicts(epoch)
        except TransportFailed as error:
            self._log(epoch, f"others' verdicts are not to be had, so scores leave them out: {error}")
            return effects.KeepPool(epoch, None)
        if pool.complete:
            self._history.pooled.add(epoch)
        return effects.KeepPool(epoch, pool)

    def _log(self, epoch: int, text: str) -> None:
        self._emit(Log(f"epoch {epoch}: {text}"))


def _nothing(epoch: int, reason: str) -> Effect:
    return effects.KeepPool(epoch, None)
