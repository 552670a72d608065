"""Evidence that the miners of an epoch were asked for, and what the orchestrator decided about each piece."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from iota.protocol.events import EvidenceMissed, EvidenceReady
from iota.protocol.frames import EvidenceItem, StoredObject
from iota.protocol.messages import EvidenceWanted
from iota.protocol.receipts import Receipt
from validator.core.effects import Effect, Say
from validator.core.jobs import Feedback, Frames, Snapshot
from validator.core.results import Undelivered


class Piece(NamedTuple):
    """Evidence of one miner: a state by its version, the frames of a step, or its error feedback."""

    item: EvidenceItem
    version: int

    @classmethod
    def snapshot(cls, version: int) -> Piece:
        """The state at a version."""
        return cls(EvidenceItem.SNAPSHOT, version)

    @classmethod
    def frames(cls, step: int) -> Piece:
        """The frames of a step."""
        return cls(EvidenceItem.FRAMES, step)

    @classmethod
    def feedback(cls, joined: int) -> Piece:
        """The error feedback that a life began the epoch with at a version."""
        return cls(EvidenceItem.FEEDBACK, joined)

    def __str__(self) -> str:
        match self.item:
            case EvidenceItem.SNAPSHOT:
                return f"weights of version {self.version}"
            case EvidenceItem.FRAMES:
                return f"frames of step {self.version}"
            case EvidenceItem.FEEDBACK:
                return "error feedback at the epoch's start"


class Awaited(Exception):
    """It is not decided yet whether a piece comes: its audit begins again once that is."""


class Deliveries:
    """Asks once for each piece of a miner.

    The orchestrator decides by each one's deadline whether it was delivered, so that it is one fact for all
    validators. Where it says nothing, the audit ends undecided with the epoch's own deadline.
    """

    def __init__(self, epoch: int, emit: Callable[[Effect], None]) -> None:
        self._epoch, self._emit = epoch, emit
        self._asked: set[tuple[str, Piece]] = set()
        self._decided: dict[tuple[str, Piece], EvidenceReady | EvidenceMissed] = {}
        self._awaited: defaultdict[str, set[Piece]] = defaultdict(set)
        """miner -> what it was asked for and is not decided."""

    def ask(self, miner: str, pieces: Iterable[Piece]) -> None:
        """Ask for evidence ahead of time, so that it has arrived when its replay begins."""
        for piece in pieces:
            if (miner, piece) not in self._asked:
                self._asked.add((miner, piece))
                if (miner, piece) not in self._decided:
                    self._awaited[miner].add(piece)
                self._emit(
                    Say(
                        EvidenceWanted(epoch=self._epoch, miner=miner, item=piece.item, version=piece.version)
                    )
                )

    def decide(self, event: EvidenceReady | EvidenceMissed) -> None:
        """Record whether a piece was delivered. The first word stands."""
        piece = Piece(event.item, event.version)
        self._decided.setdefault((event.miner, piece), event)
        self._awaited[event.miner].discard(piece)

    def awaited(self, miner: str) -> frozenset[Piece]:
        """What the miner was asked for and is not decided."""
        return frozenset(self._awaited.get(miner, ()))

    def expect(self, miner: str, pieces: Iterable[Piece]) -> None:
        """Raise Awaited unless it is decided of each of these whether it comes."""
        wanted = set(pieces)
        self.ask(miner, wanted)
        if not wanted.isdisjoint(self.awaited(miner)):
            raise Awaited

    def snapshot(self, miner: str, stage: int, version: int, seq: int) -> Snapshot:
        """A state. `seq` is the receipt under audit. Raises as `frames`."""
        return Snapshot(miner, stage, version, seq, self._get(miner, Piece.snapshot(version)))

    def feedback(self, miner: str, stage: int, joined: int, commit: Receipt) -> Feedback:
        """The error feedback that a life began with, which `commit` commits to. Raises as `frames`."""
        return Feedback(miner, stage, commit, self._get(miner, Piece.feedback(joined)))

    def frames(self, miner: str, stage: int, step: int) -> Frames:
        """The frames of a step, which the store does not show.

        Raises:
            Undelivered: they did not come in time; also of a miner that left, perhaps for that.
            Awaited: it is not decided yet.
        """
        return Frames(miner, stage, step, self._get(miner, Piece.frames(step)))

    def _get(self, miner: str, piece: Piece) -> StoredObject:
        self.ask(miner, (piece,))
        decided = self._decided.get((miner, piece))
        if decided is None:
            raise Awaited
        if isinstance(decided, EvidenceReady):
            return decided.stored
        if decided.revoked:
            why = f"its owner has revoked its key, so that its {piece} cannot come"
            raise Undelivered(why, revoked=True)
        raise Undelivered(f"its {piece} did not come in time")
