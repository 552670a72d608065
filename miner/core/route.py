"""The route of one microbatch past one replica: the replicas beside it, and the frames between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.protocol.events import FrameReady
from iota.protocol.frames import Direction, FrameName, FrameNotice

Place = tuple[int, int]
"""(step, microbatch)"""


@dataclass
class Neighbour:
    """The replica at a stage beside this one."""

    hotkey: str
    """The one that has the microbatch now: frames of this replica go to it."""
    sends: int | None
    """The attempt whose frame is expected from there; None if it is not known."""
    newest: int
    """The newest attempt that may have been given at that stage as far as this replica knows."""
    given: dict[int, str] = field(default_factory=dict)
    """Attempt -> the replica that was given it. The frames of these may be used."""

    @classmethod
    def planned(cls, hotkey: str | None) -> Neighbour | None:
        """A neighbour by the plan."""
        return None if hotkey is None else cls(hotkey, 0, 0, {0: hotkey})

    @classmethod
    def taken_over(cls, hotkey: str | None, attempt: int) -> Neighbour | None:
        """A neighbour of a replica that takes a microbatch over as `attempt`.

        Attempts of a microbatch are numbered over all stages: before the first re-route all have attempt 0.
        """
        if hotkey is None:
            return None
        return cls(hotkey, 0, 0, {0: hotkey}) if attempt == 1 else cls(hotkey, None, attempt)

    def move(self, hotkey: str, attempt: int, *, sends: bool) -> None:
        """The microbatch is `hotkey`'s now. `sends`: also the frame comes from there, not from who had it."""
        self.hotkey, self.newest = hotkey, max(self.newest, attempt)
        self.given[attempt] = hotkey
        if sends:
            self.sends = attempt


@dataclass
class KnownFrame:
    """A frame for this replica, as far as it knows it."""

    digest: str | None = None
    """Of the bytes that were pushed; None if none were."""
    found: bool = False
    """Whether it was found on this disk: its sender may not have heard that it is here, and push it again."""
    fetched: bool = False
    """Whether its bytes are those that the store has."""
    announced: FrameReady | None = None
    """The orchestrator's last word that it is in the store."""
    denied: bool = False
    """Whether an op gave NaN or Inf on it, and it has not come from the store since."""

    @property
    def here(self) -> bool:
        """Whether it is on this disk."""
        return self.fetched or self.digest is not None

    @property
    def stored(self) -> bool:
        """Whether the store has the bytes that are here."""
        return self.fetched or (self.announced is not None and self.announced.notice.digest == self.digest)


@dataclass
class Route:
    """One microbatch that this replica has."""

    beside: dict[int, Neighbour]
    """By stage: those before and after this one, where there are such."""
    taken_over: bool = False
    """Whether it came by a re-route: frames that were made before name another receiver."""
    left: bool = False
    """Whether it was dropped or given to another. Its step may count what was done before that."""
    inputs: dict[Direction, FrameName] = field(default_factory=dict)
    """The frames that the ops read."""
    proofs: dict[Direction, FrameName] = field(default_factory=dict)
    """Inputs that receipts name and that are to be read again: not before these frames are in the store."""
    frames: dict[FrameName, KnownFrame] = field(default_factory=dict)
    sought: set[FrameName] = field(default_factory=set)
    """Frames that are looked for on this disk."""
    fetching: set[FrameName] = field(default_factory=set)
    """Frames that are fetched from the store."""
    made: dict[int, tuple[FrameName, FrameNotice | None]] = field(default_factory=dict)
    """By the stage that it goes to: this replica's frame on disk, and its notice if it is in the store."""

    def frame(self, name: FrameName) -> KnownFrame:
        """What is known of a frame."""
        return self.frames.setdefault(name, KnownFrame())

    def gave(self, name: FrameName, sender: str) -> bool:
        """Whether `sender` was given the attempt of a frame."""
        return self.beside[name.stage].given.get(name.attempt) == sender

    def current(self, name: FrameName) -> FrameName | None:
        """The frame that is expected in place of this one, or itself; None if that is not known."""
        attempt = self.beside[name.stage].sends
        return None if attempt is None else name.model_copy(update={"attempt": attempt})

    def others(self, denied: FrameName) -> list[FrameName]:
        """Frames that are here and can be used in place of a denied one."""
        return [name for name in self.usable() if name.direction is denied.direction]

    def usable(self) -> list[FrameName]:
        """Frames that are here and that no op has denied."""
        return [name for name, known in self.frames.items() if known.here and not known.denied]

    def remember(self, had: Route) -> None:
        """Take what was known when this replica had the microbatch before."""
        for stage, neighbour in had.beside.items():
            if self.beside[stage].hotkey == neighbour.hotkey:
                self.beside[stage] = neighbour
        self.frames = had.frames
