"""A miner's data directory.

receipts.jsonl                        the receipt chain
base/<epoch>/part-NNN.safetensors     the base: weights and outer momentum
snapshots/<epoch>/start.safetensors   weights and moments that the epoch starts from
snapshots/<epoch>/<version>.safetensors
frames/<epoch>/...                    frames sent, until the epoch's audits are closed
cache/                                blocks of the data shards
lock                                  held by the running process
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from safetensors import SafetensorError

from iota.files import FileLock, remove_unfinished, whole_folder
from iota.outer.base import base_parts, read_base
from iota.outer.nesterov import OuterState
from iota.protocol.messages import FrameName
from iota.spec import RunSpec


class DataDirInUse(ValueError):
    """Another process works in this directory."""


class DiskFull(ValueError):
    """A miner cannot go on without room for what it must be able to show."""


@contextmanager
def full_disk_explained(root: Path) -> Iterator[None]:
    """Raises DiskFull, with what to do, where the work inside ended for want of room on the disk."""
    try:
        yield
    except* (OSError, SafetensorError) as group:
        if group.subgroup(_is_full) is None:
            raise
        raise DiskFull(
            f"no room is left on the disk of {root}: make some, and start the same command again; what"
            " was receipted is kept"
        ) from group


def _is_full(error: BaseException) -> bool:
    # safetensors gives the system's error as text alone.
    if isinstance(error, SafetensorError):
        return f"os error {errno.ENOSPC}" in str(error)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class MinerDisk:
    """One miner's directory, locked for as long as this object is open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(root / "lock", self._in_use)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def _in_use(self) -> DataDirInUse:
        return DataDirInUse(
            f"{self.root} is in use by another miner: stop it, or give this one a directory of its own"
            f" (--data-dir)"
        )

    @property
    def receipts(self) -> Path:
        return self.root / "receipts.jsonl"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def start_state(self, epoch: int) -> Path:
        """(weights, moments) that `epoch` starts from at this replica."""
        return self.root / "snapshots" / str(epoch) / "start.safetensors"

    def frame(self, name: FrameName) -> Path:
        """A frame that was sent."""
        return self.root / "frames" / str(name)

    def snapshot(self, epoch: int, version: int) -> Path:
        return self.root / "snapshots" / str(epoch) / f"{version}.safetensors"

    def snapshots_size(self) -> int:
        """Bytes of all snapshots."""
        return sum(path.stat().st_size for path in (self.root / "snapshots").glob("*/*.safetensors"))

    def newest_base(self) -> int | None:
        """The newest epoch whose base and start state are both whole."""
        epochs = [int(path.name) for path in (self.root / "base").glob("*") if path.name.isdigit()]
        return max((e for e in epochs if self.start_state(e).exists()), default=None)

    def save_base(self, spec: RunSpec, epoch: int, base: OuterState) -> None:
        """A crash leaves the whole base or none."""
        folder = self.root / "base" / str(epoch)
        folder.parent.mkdir(exist_ok=True)
        remove_unfinished(folder.parent)
        with whole_folder(folder) as part:
            for n, data in enumerate(base_parts(spec, base)):
                (part / f"part-{n:03d}.safetensors").write_bytes(data)
            shutil.rmtree(folder, ignore_errors=True)

    def load_base(self, spec: RunSpec, stage: int, epoch: int) -> OuterState:
        parts = sorted((self.root / "base" / str(epoch)).glob("part-*.safetensors"))
        return read_base(spec, stage, [part.read_bytes() for part in parts])

    def forget_epoch(self, epoch: int) -> None:
        """Audits of the epoch are closed: nothing of it is asked for any more."""
        for kind in ("frames", "snapshots", "base"):
            shutil.rmtree(self.root / kind / str(epoch), ignore_errors=True)

    def forget_state(self) -> None:
        """Start again from the run's base; the receipt chain stays."""
        for kind in ("frames", "snapshots", "base"):
            shutil.rmtree(self.root / kind, ignore_errors=True)
