"""A member as the coordinator knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from iota.protocol.frames import Direction, EvidenceItem
from iota.protocol.messages import Role
from iota.protocol.receipts import GENESIS
from iota.protocol.workers import Certificate
from orchestrator.coordinator.event_log import EventLog
from orchestrator.coordinator.history import History

Owed = tuple[int, EvidenceItem, int]
"""Epoch, item and version of evidence of a miner."""


class Debt(NamedTuple):
    """When evidence is due that a miner was asked for."""

    deadline: float
    """Unix seconds."""
    rank: int = 0
    """How much evidence of the miner and epoch one that asked for it had asked for before: the least."""
    seconds: float = 0.0
    """That storing it takes."""


PendingKey = tuple[int, int, Direction]
"""(step, microbatch, direction) of an op whose inputs are all there."""


@dataclass(slots=True)
class Member:
    """State of one hotkey that joined the run. It is kept after the member has left."""

    hotkey: str
    """The key that signs its requests and receipts."""
    role: Role
    stage: int
    """-1 for a validator."""
    order: int
    """Its place in the order of first joins."""
    device: str
    """Its device class, as it reports it; unchecked."""
    addresses: tuple[str, ...] = ()
    """The addresses that it gave when it joined; unchecked."""
    certificate: Certificate | None = None
    """Of a worker: that of its first join. None for a hotkey that works by itself."""
    live: bool = False
    """It sends requests: neither lost nor left. Only `Roster` changes this, `left` and `ready_epoch`."""
    stalled: bool = False
    """It missed a deadline; nothing is planned for it until it makes progress again."""
    receipts: int = 0
    """Stored receipts, which is also the seq of the last one."""
    receipt_epoch: int = -1
    """Newest epoch of which it has receipts; -1 for none."""
    head: str = GENESIS
    """Digest of the last stored receipt."""
    events: EventLog = field(default_factory=EventLog)
    """The events that it may still ask for."""
    cursor_start: int = 0
    """A node that restarts from its disk needs the events after this number."""
    ready_epoch: int = -1
    """Newest epoch whose base it holds; -1 for none."""
    joined: tuple[int, int] | None = None
    """(epoch, step) from which it takes part."""
    admitted: int = 0
    """Number of the event that admitted it last."""
    ended: int = -1
    """With overlap: newest epoch whose last version it has committed to, and holds; -1 for none."""
    left: bool = False
    told_base: int = -1
    """Newest epoch for which it was sent the events that lead to the base."""
    work: dict[tuple[int, int], None] = field(default_factory=dict)
    """(step, microbatch) of the open microbatches that it has."""
    merging: set[tuple[int, int]] = field(default_factory=set)
    """(stage, part) of the parts of the current merge that it was drawn for."""
    pending: dict[PendingKey, float] = field(default_factory=dict)
    """Ready ops, and the time at which each became ready."""
    last_progress: float = 0.0
    """Time of its last progress: deadlines run from then, or from an op's readiness if that is later."""
    op_seconds: float = 0.0
    """Moving average of the seconds from an op's readiness to its receipt; 0 before the first."""
    own_s: float = 0.0
    """Its ops have at least so many seconds (`op_clocks.own_limit`, as it was at its last measured op)."""
    tokens: int = 0
    """Tokens of its counted work, all epochs."""
    worked: int = -1
    """Newest epoch in which work of it counted; -1 for none."""
    charged: bool = False
    """It signed a merged part that was wrong: it is drawn for no more merges in this run."""
    misloaded: int = -1
    """Newest epoch whose base it held with another digest than its stage."""
    withdrawn: int = 0
    """Microbatches that were taken from it through its own doing, all epochs."""
    given_receipts: int = 0
    """Receipts that the ops which it was ever given can have: more are refused."""
    bases_anew: tuple[int, ...] = ()
    """The newest epochs in whose middle it took the base anew, once for each time."""
    session: int = 0
    """The number of the process that joined last; 0 if it has given none."""
    joined_at: float = 0.0
    """Time of its last join."""
    resume: bool = False
    """Its last join continued from the state on its disk."""
    restarted: int = -1
    """Newest epoch in which it continued from its disk."""
    replayed: float = 0.0
    """Seconds for which it has repeated that epoch, over all of its restarts."""
    replay_s: float = 0.0
    """Seconds that repeating its epoch may take after a restart; 0 once it has done something new."""
    line: float = 0.0
    """The most bytes a second that it has stored a pseudo-gradient with; 0 before the first."""
    owed: dict[Owed, Debt] = field(default_factory=dict)
    """The evidence that it was asked for and has not delivered."""
    history: History = field(default_factory=History)
    """For people alone."""

    def forget_events(self) -> None:
        """A restart from its disk needs only later events, or it is sent the base that the others led to.

        Those since the last call are kept for an exchange in flight.
        """
        self.events.forget_through(self.cursor_start)
        self.cursor_start = self.events.next_seq - 1

    def forget_events_before_admission(self) -> None:
        """A restart from its disk begins with its last admission."""
        self.events.forget_through(self.cursor_start)
        self.cursor_start = max(self.cursor_start, self.admitted - 1)

    def end_replay(self, now: float) -> None:
        """It has repeated its epoch, or begins to do so again."""
        if self.replay_s:
            self.replayed += now - self.last_progress
        self.replay_s = 0.0

    @property
    def owner(self) -> str:
        """The hotkey that is admitted, paid and banned for this member: its own without a certificate."""
        return self.hotkey if self.certificate is None else self.certificate.owner
