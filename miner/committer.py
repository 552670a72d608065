"""State commitments and snapshots of one replica life, made in a thread of their own.

The device thread gives a copy of the state and goes on. The committer's thread hashes the copy and writes the
snapshot. The receipt is then written where all receipts are: in the recorder's thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from iota.compute.commitment import commitment
from iota.compute.copy_thread import CopyThread
from iota.compute.host_copy import HostCopy
from iota.compute.state import StageState, save_state
from iota.objects import snapshot_bytes
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import Beginning, Commitment, Receipt
from iota.spec import RunSpec
from miner.delta_files import DeltaFiles, EpochStart
from miner.disk import MinerDisk

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Committed:
    """What the receipt of a COMMIT says."""

    epoch: int
    version: int
    made: Commitment
    started: float
    ended: float
    """Unix seconds of the hashing."""


class Committer:
    """Computes commitments in the order in which they are asked for, and keeps the snapshots of the versions.

    `give` is called in the device thread, `expect` and `take` in the recorder's: a version is copied before
    its STEP is receipted, and is bad if that fails.
    """

    def __init__(
        self,
        spec: RunSpec,
        stage: int,
        disk: MinerDisk,
        room: int | None,
        now: Callable[[], float],
    ) -> None:
        """`room` (bytes of disk) bounds the snapshots; None: what there is. `now` gives Unix seconds."""
        self._spec, self._stage, self._disk, self._room, self._now = spec, stage, disk, room, now
        self._deltas = DeltaFiles(spec, disk)
        self._thread = CopyThread("committer")
        self._expected: deque[tuple[Future[Committed], Receipt | None]] = deque()
        self.newest: Future[Committed] | None = None
        """The commitment that is expected last; when it is complete, those before it are."""

    def give(
        self,
        start: EpochStart,
        version: int,
        copy: Callable[[], HostCopy],
        beginning: Beginning | None = None,
    ) -> Future[Committed]:
        """Commit to the state of which `copy` starts a copy; it waits and raises as `CopyThread.give`.

        `beginning` is what a life shows at its first version. At the last one the pseudo-gradient is encoded.
        """
        return self._thread.give(copy, partial(self._commit, start, version, beginning))

    def expect(self, made: Future[Committed], earlier: Receipt | None) -> None:
        """Have `take` give this commitment, with the receipt of an earlier process for it, if there is."""
        self.newest = made
        self._expected.append((made, earlier))

    def take(self) -> list[tuple[Committed, Receipt | None]]:
        """The expected commitments that are complete and were not taken before, in order.

        Raises OSError where a snapshot or the pseudo-gradient could not be written, and PartError where the
        error feedback on this disk is damaged.
        """
        found = []
        while self._expected and self._expected[0][0].done():
            made, earlier = self._expected.popleft()
            found.append((made.result(), earlier))
        return found

    def close(self) -> None:
        """Finish the commitment in work, discard the others and their copies, and end the thread."""
        self._thread.close()

    def _commit(
        self, start: EpochStart, version: int, beginning: Beginning | None, state: StageState
    ) -> Committed:
        started, feedback = self._now(), EMPTY
        if version == self._spec.schedule.steps:
            feedback = self._deltas.write(start, state.weights)
        if beginning is not None:
            feedback = start.root
        made = commitment(state, self._spec.outer.part_elements, beginning, feedback)
        ended = self._now()
        if start.own and beginning is not None:
            self._keep_start(start.epoch, state, made)
        self._keep(start.epoch, version, state, made)
        return Committed(start.epoch, version, made, started, ended)

    def _keep_start(self, epoch: int, state: StageState, made: Commitment) -> None:
        """Have the own start of an epoch on the disk, for a restart, before the COMMIT to it is receipted."""
        path = self._disk.start_state(epoch)
        if not path.exists():
            save_state(state, path, made)
            self._disk.keep_names()
        self._disk.forget_used_delta(epoch - 1)

    def _keep(self, epoch: int, version: int, state: StageState, made: Commitment) -> None:
        """Write the snapshot of a version for audits; without room, log it and go on."""
        needed = snapshot_bytes(self._spec, self._stage)
        if self._room is not None and self._disk.snapshots_size() + needed > self._room:
            remedy = "raise --snapshot-bytes"
        elif not self._disk.has_room(needed):
            remedy = "make room on its disk"
        else:
            save_state(state, self._disk.snapshot(epoch, version), made)
            return
        log.error(
            "no room for the snapshot of version %d of epoch %d: audits of it will fail; %s",
            version, epoch, remedy,
        )  # fmt: skip
