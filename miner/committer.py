"""State commitments and snapshots of one replica life, made in a thread of their own.

The device thread gives a copy of the state and goes on. The committer's thread hashes the copy and writes the
snapshot. The receipt is then written where all receipts are: in the device thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from iota.compute.commitment import commitment
from iota.compute.host_copy import HostCopy
from iota.compute.state import StageState, save_state
from iota.objects import snapshot_bytes
from iota.planning.needs import STATE_COPIES
from iota.protocol.receipts import Beginning, Commitment, Receipt
from iota.spec import RunSpec
from miner.disk import MinerDisk

log = logging.getLogger(__name__)


class CommitterClosed(Exception):
    """The life of the replica has ended."""


@dataclass(frozen=True)
class Committed:
    """What the receipt of a COMMIT says, and the receipt of an earlier process for it, if there is one."""

    epoch: int
    version: int
    made: Commitment
    started: float
    ended: float
    """Unix seconds of the hashing."""
    earlier: Receipt | None


class Committer:
    """Computes commitments in the order in which they are asked for, and keeps the snapshots of the versions.

    `give` and `take` are called in the device thread.
    """

    def __init__(
        self, spec: RunSpec, stage: int, disk: MinerDisk, room: int | None, now: Callable[[], float]
    ) -> None:
        """`room` (bytes of disk) bounds the snapshots; None: what there is. `now` gives Unix seconds."""
        self._spec, self._stage, self._disk, self._room, self._now = spec, stage, disk, room, now
        self._free = threading.Semaphore(STATE_COPIES)
        self._closing = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._copies: deque[HostCopy] = deque()
        self._asked: deque[Future[Committed]] = deque()
        self.newest: Future[Committed] | None = None
        """The commitment that was asked for last; when it is complete, those before it are."""

    def give(
        self,
        epoch: int,
        version: int,
        copy: Callable[[], HostCopy],
        earlier: Receipt | None,
        beginning: Beginning | None = None,
    ) -> None:
        """Commit to the state of which `copy` starts a copy. Waits first while there are `STATE_COPIES`.

        `earlier` is the receipt of an earlier process, `beginning` what a life shows at its first version.
        Raises CommitterClosed, also while it waits.
        """
        self._free.acquire()
        with self._closing:
            if self._closed:
                raise CommitterClosed
            self._copies.append(copy())
            self.newest = self._pool.submit(self._commit, epoch, version, earlier, beginning)
        self.newest.add_done_callback(lambda _: self._free.release())
        self._asked.append(self.newest)

    def take(self) -> list[Committed]:
        """The commitments that are complete and were not taken before, in order.

        Raises OSError where a snapshot could not be written.
        """
        found = []
        while self._asked and self._asked[0].done():
            found.append(self._asked.popleft().result())
        return found

    def close(self) -> None:
        """Finish the commitment in work, discard the others and their copies, and end the thread."""
        with self._closing:
            self._closed = True
        self._free.release()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._copies.clear()

    def _commit(
        self, epoch: int, version: int, earlier: Receipt | None, beginning: Beginning | None
    ) -> Committed:
        state = self._copies.popleft().result()
        try:
            started = self._now()
            made = commitment(state, self._spec.outer.part_elements, beginning)
            ended = self._now()
            self._keep(epoch, version, state, made)
        except OSError as error:
            raise error.with_traceback(None) from None  # its frames would keep the copy
        finally:
            del state
        return Committed(epoch, version, made, started, ended, earlier)

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
