"""Snapshots of an epoch: which were asked for, when, and which were delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from iota.protocol.events import SnapshotReady
from iota.protocol.messages import SnapshotWanted, StoredObject
from validator.core.effects import Effect, Say
from validator.core.jobs import Script, Snapshot, Wait
from validator.core.results import Undelivered


class Snapshots:
    """Asks once for each (miner, version). A miner has `retry_for_s` to deliver."""

    def __init__(self, epoch: int, retry_for_s: float, emit: Callable[[Effect], None]) -> None:
        self._epoch, self._retry_for_s, self._emit = epoch, retry_for_s, emit
        self._asked: dict[tuple[str, int], float] = {}
        self._delivered: dict[tuple[str, int], StoredObject] = {}
        self.now = 0.0
        """Monotonic seconds; the core updates it with every fact."""

    def ask(self, miner: str, versions: Iterable[int]) -> None:
        """Ask for snapshots ahead of time, so that they have arrived when their replay begins."""
        for version in versions:
            if (miner, version) not in self._asked:
                self._asked[miner, version] = self.now
                self._emit(Say(SnapshotWanted(epoch=self._epoch, miner=miner, version=version)))

    def deliver(self, event: SnapshotReady) -> None:
        """Record a delivered snapshot. The first one stands."""
        self._delivered.setdefault((event.miner, event.version), event.stored)

    def get(self, miner: str, stage: int, version: int, seq: int) -> Script[Snapshot]:
        """Wait for a snapshot. `seq` is the receipt under audit.

        Raises Undelivered if it did not come in time, also of a miner that left, perhaps for that.
        """
        self.ask(miner, (version,))
        key, overdue = (miner, version), False
        while key not in self._delivered:
            if overdue:
                raise Undelivered(f"its weights of version {version} did not come in time")
            overdue = yield Wait(self._asked[key] + self._retry_for_s)
        return Snapshot(miner, stage, version, seq, self._delivered[key])
