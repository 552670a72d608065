"""Snapshots of an epoch: which were asked for, and what the orchestrator decided about each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from iota.protocol.events import SnapshotMissed, SnapshotReady
from iota.protocol.messages import SnapshotWanted
from validator.core.effects import Effect, Say
from validator.core.jobs import Script, Snapshot
from validator.core.results import Undelivered


class Awaited(Exception):
    """It is not decided yet whether a snapshot comes: its audit begins again once that is."""


class Snapshots:
    """Asks once for each (miner, version).

    The orchestrator decides by each one's deadline whether it was delivered, so that it is one fact for all
    validators. Where it says nothing, the audit ends undecided with the epoch's own deadline.
    """

    def __init__(self, epoch: int, emit: Callable[[Effect], None]) -> None:
        self._epoch, self._emit = epoch, emit
        self._asked: set[tuple[str, int]] = set()
        self._decided: dict[tuple[str, int], SnapshotReady | SnapshotMissed] = {}
        self._awaited: defaultdict[str, set[int]] = defaultdict(set)
        """miner -> versions that were asked for and are not decided."""

    def ask(self, miner: str, versions: Iterable[int]) -> None:
        """Ask for snapshots ahead of time, so that they have arrived when their replay begins."""
        for version in versions:
            if (miner, version) not in self._asked:
                self._asked.add((miner, version))
                if (miner, version) not in self._decided:
                    self._awaited[miner].add(version)
                self._emit(Say(SnapshotWanted(epoch=self._epoch, miner=miner, version=version)))

    def decide(self, event: SnapshotReady | SnapshotMissed) -> None:
        """Record whether a snapshot was delivered. The first word stands."""
        self._decided.setdefault((event.miner, event.version), event)
        self._awaited[event.miner].discard(event.version)

    def awaited(self, miner: str) -> frozenset[int]:
        """Versions of the miner that were asked for and are not decided."""
        return frozenset(self._awaited.get(miner, ()))

    def expect(self, miner: str, versions: Iterable[int]) -> None:
        """Raise Awaited unless it is decided of each of these versions whether it comes."""
        wanted = set(versions)
        self.ask(miner, wanted)
        if not wanted.isdisjoint(self.awaited(miner)):
            raise Awaited

    def get(self, miner: str, stage: int, version: int, seq: int) -> Script[Snapshot]:
        """A snapshot. `seq` is the receipt under audit.

        Raises:
            Undelivered: it did not come in time; also of a miner that left, perhaps for that.
            Awaited: it is not decided yet.
        """
        self.ask(miner, (version,))
        decided = self._decided.get((miner, version))
        if decided is None:
            raise Awaited
        if isinstance(decided, SnapshotMissed):
            if decided.revoked:
                why = f"its owner has revoked its key, so that its weights of version {version} cannot come"
                raise Undelivered(why, revoked=True)
            raise Undelivered(f"its weights of version {version} did not come in time")
        yield from ()
        return Snapshot(miner, stage, version, seq, decided.stored)
