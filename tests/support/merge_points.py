"""The points of a merge at which a process of a swarm is killed, and how its processes hear of them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from iota.files import write_whole

LONGEST_HOLD_S: Final = 60.0
"""A process that is held longer has no test any more that would let it go."""


class Point(StrEnum):
    """Where a process is held; `tests.support.held_process` has the call that each stands for."""

    HALF_ENCODED = "miner: the first part of its pseudo-gradient is encoded"
    ENCODED = "miner: pseudo-gradient and feedback are on disk, the COMMIT is not receipted"
    COMMITTED = "miner: the last COMMIT is receipted, nothing is uploaded"
    HALF_UPLOADED = "miner: one part of its pseudo-gradient is uploaded"
    UPLOADED = "miner: its pseudo-gradient is uploaded and not reported"
    ASSIGNED = "miner: it has heard that it merges a part"
    FETCHED = "miner: it has fetched the contributions to a part"
    MERGED = "miner: it has merged a part"
    MERGED_UPLOADED = "miner: its merged part is uploaded and not signed"
    SIGNED = "miner: its MERGE receipt is on disk"
    MERGE_FETCHED = "miner: it has fetched the first part of the merge"
    NEXT_BASE_MADE = "miner: the next base is in memory"
    START_SAVED = "miner: the next start state is on disk, the base is not"
    BASE_FILLED = "miner: the next base is written and not renamed"
    BASE_RENAMED = "miner: the next base is on disk"
    READY_DUE = "miner: it is about to say that it is ready"
    BASE_HALF_STORED = "miner: one part of the base that it keeps is uploaded"
    BASE_STORED = "miner: the base that it keeps is uploaded and not reported"

    DELTA_JOURNALED = "orchestrator: a pseudo-gradient is journaled and not applied"
    DRAWN = "orchestrator: mergers are drawn, nobody has heard"
    COPY_TAKEN = "orchestrator: a merged copy is recorded"
    COPY_DUE = "orchestrator: it is about to read a copy"
    COPY_READ = "orchestrator: it has read a copy and not recorded it"
    PUBLISHED = "orchestrator: a stage's merge is ready"
    READY_TAKEN = "orchestrator: a replica is recorded as ready"
    BASE_DUE = "orchestrator: it is about to read a base that was stored"
    BASE_READ = "orchestrator: it has read a base and not recorded it"
    BASE_RECORDED = "orchestrator: a base is recorded as stored"
    BEGUN = "orchestrator: the next epoch has begun"
    SEALED = "orchestrator: the epoch is sealed"

    DISPUTED = "orchestrator: it is about to merge a disputed part itself"
    REMERGED = "orchestrator: it has merged a disputed part, in memory"
    REMERGE_STORED = "orchestrator: its own merge is stored and not recorded"
    SETTLED = "orchestrator: its own merge is recorded"

    DELTA_WRITTEN = "store: a part of a pseudo-gradient is written, and not under its key"
    DELTA_LINKED = "store: a part of a pseudo-gradient is under its key, and nobody has heard"
    MERGED_WRITTEN = "store: a merged part is written, and not under its key"
    MERGED_LINKED = "store: a merged part is under its key, and nobody has heard"
    BASE_WRITTEN = "store: a part of a base is written, and not under its key"
    BASE_LINKED = "store: a part of a base is under its key, and nobody has heard"

    @property
    def place(self) -> str:
        """The kind of process that gets there: `miner`, `orchestrator` or `store`."""
        return self.value.partition(":")[0]


DISPUTES: Final = (Point.DISPUTED, Point.REMERGED, Point.REMERGE_STORED, Point.SETTLED)
"""Only reached where mergers differ."""
HONEST: Final = tuple(point for point in Point if point not in DISPUTES)
"""Reached in each merge of an honest swarm."""


class Victim(StrEnum):
    """Which process is killed while another one, or it itself, is held."""

    CONCERNED = "the miner that is there, or that it is about"
    OTHER = "another miner"
    ORCHESTRATOR = "the orchestrator"
    VALIDATOR = "the validator"
    STORE = "the store"


@dataclass(frozen=True)
class Kill:
    """One kill in the merge of one epoch."""

    point: Point
    victim: Victim
    again: bool = False
    """It is killed twice more: at the end of its recovery, and at the same point if it gets there again."""


@dataclass(frozen=True)
class Hit:
    """A process is held."""

    epoch: int
    time: int
    """0 for the first, 1 at the end of a recovery, 2 for the same point again."""
    point: str
    name: str
    """The process that is held."""
    about: str
    """Hotkey of the miner that the point is about; empty for the held process itself, or for nobody."""


class Board:
    """The folder in which a test and the processes of its swarm tell each other of kills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, kills: Sequence[Kill], steps: int) -> None:
        """Say which kill the merge of each epoch has: the first one that of epoch 0, and so on."""
        self.folder.mkdir(parents=True)
        told = {"steps": steps, "kills": [[kill.point, kill.again] for kill in kills]}
        (self.folder / "kills.json").write_text(json.dumps(told))

    def read(self) -> tuple[list[tuple[str, bool]], int]:
        """The points with `Kill.again` by epoch, and the steps of an epoch."""
        told = json.loads((self.folder / "kills.json").read_bytes())
        return [(point, again) for point, again in told["kills"]], told["steps"]

    def hold(self, hit: Hit) -> None:
        """Wait for the test's word, unless another process was held in this place. Blocks."""
        path = self.folder / f"hit-{hit.epoch}-{hit.time}"
        try:
            write_whole(path, json.dumps(asdict(hit)).encode(), replace=False)
        except FileExistsError:
            return
        end = time.monotonic() + LONGEST_HOLD_S
        while not self._go(hit).exists():
            assert time.monotonic() < end, f"held for too long: {hit}"
            time.sleep(0.005)

    def hits(self) -> list[Hit]:
        """Where processes were or are held, in the order of epochs."""
        found = [Hit(**json.loads(path.read_bytes())) for path in self.folder.glob("hit-*")]
        return sorted(found, key=lambda hit: (hit.epoch, hit.time))

    def kill(self, hit: Hit, victim: str) -> None:
        """Note whom the first kill of an epoch has hit."""
        (self.folder / f"killed-{hit.epoch}").write_text(victim)

    def killed(self, epoch: int) -> str | None:
        """Whom the first kill of an epoch has hit, once it has."""
        path = self.folder / f"killed-{epoch}"
        return path.read_text() if path.exists() else None

    def go_on(self, hit: Hit) -> None:
        """Let the held process go on, if it still lives."""
        self._go(hit).touch()

    def _go(self, hit: Hit) -> Path:
        return self.folder / f"go-{hit.epoch}-{hit.time}"
