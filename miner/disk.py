"""A miner's data directory:

receipts.jsonl                        the receipt chain
base/<epoch>/part-NNN.safetensors     the base: weights and outer momentum
base/<epoch>/digest                   two roots, which give the base's digest
snapshots/<epoch>/start.safetensors   weights and moments that the epoch starts from
snapshots/<epoch>/<version>.safetensors
delta/<epoch>/part-NNN                the encoded pseudo-gradient, until it is merged and in the own start
feedback/<epoch>/part-NNN             bf16: the error feedback that this replica begins the epoch with
feedback/<epoch>/leaves               their digests
frames/<epoch>/...                    sent and received frames, kept until the epoch's audits are closed
cache/                                blocks of the data shards
seals/, evidence/                     of the orchestrator (iota.client.evidence_files)
orchestrator                          the hotkey that must sign for a run (iota.client.known_orchestrator)
lock                                  held by the running process
"""

from __future__ import annotations

import errno
import fnmatch
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from iota.files import FileLock, remove_unfinished, whole_folder, write_whole
from iota.objects import part_count, part_sizes
from iota.outer.base import base_parts, base_roots, read_base
from iota.outer.base_values import BaseHasher, BaseRoots, read_partition, write_partition
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from iota.protocol.frames import FrameName
from iota.spec import RunSpec
from iota.system.files import sync_names


class DataDirInUse(ValueError):
    """Another process holds the lock of this directory."""


_BY_EPOCH: Final = ("frames", "snapshots", "base", "delta", "feedback")
"""Folders that have one for each epoch."""
ROOM_BYTES: Final = 64 << 20
"""Free disk below which a miner does not join: it would lose each microbatch that it is given."""


class MinerDisk:
    """One miner's directory, locked for as long as this object is open."""

    def __init__(self, root: Path) -> None:
        """Create the directory or open an existing one. Raises DataDirInUse."""
        self.root = root
        self.receipts = root / "receipts.jsonl"
        self.cache = root / "cache"
        root.mkdir(parents=True, exist_ok=True)
        in_use = f"{root} is in use by another miner: stop it, or give this one a directory of its own"
        self._lock = FileLock(root / "lock", lambda: DataDirInUse(f"{in_use} (--data-dir)"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def check_room(self) -> None:
        """Raises OSError (ENOSPC) where less than `ROOM_BYTES` are free."""
        if not self.has_room(0):
            raise OSError(errno.ENOSPC, f"less than {ROOM_BYTES >> 20} MiB are free", str(self.root))

    def has_room(self, size: int) -> bool:
        """Whether `ROOM_BYTES` are still free after a file of `size` bytes."""
        return shutil.disk_usage(self.root).free >= size + ROOM_BYTES

    def start_state(self, epoch: int) -> Path:
        """File of the (weights, moments) that this replica starts `epoch` from."""
        return self.root / "snapshots" / str(epoch) / "start.safetensors"

    def delta(self, epoch: int) -> Path:
        """Folder of the encoded pseudo-gradient of an epoch."""
        return self.root / "delta" / str(epoch)

    def delta_parts(self, epoch: int) -> list[Path]:
        """Files of the encoded pseudo-gradient of an epoch, in order; empty where there is none."""
        return sorted(self.delta(epoch).glob("part-*"))

    def feedback(self, epoch: int) -> Path:
        """Folder of the error feedback that this replica begins an epoch with."""
        return self.root / "feedback" / str(epoch)

    def frame(self, name: FrameName) -> Path:
        """File of a frame that this miner sent or received. Audits ask for both."""
        return self.root / "frames" / str(name)

    def has_frames(self) -> bool:
        """Whether any frame may be here."""
        return (self.root / "frames").exists()

    def kept_frames(self, epoch: int, step: int) -> list[Path]:
        """Files of the frames of one step, in a fixed order."""
        files = (self.root / "frames" / str(epoch) / str(step)).glob("*/*")
        return sorted(file for file in files if not file.name.startswith("."))

    def snapshot(self, epoch: int, version: int) -> Path:
        """File of the (weights, moments) at one weight version."""
        return self.root / "snapshots" / str(epoch) / f"{version}.safetensors"

    def snapshots_size(self) -> int:
        """Bytes of all snapshots and start states. `forget_epoch` may delete some of them meanwhile."""
        return _size(self.root / "snapshots", "*.safetensors")

    def size(self) -> int:
        """Bytes of all files of the directory."""
        return _size(self.root, "*")

    def newest_base(self, *, overlaps: bool = False) -> int | None:
        """The newest epoch whose base and start state are both complete; None if there is none.

        In a run that `overlaps` a start state is made later, from the base before.
        """
        epochs = [int(path.name) for path in (self.root / "base").glob("*") if path.name.isdigit()]
        return max((e for e in epochs if overlaps or self.start_state(e).exists()), default=None)

    def save_base(self, spec: RunSpec, epoch: int, base: OuterState, roots: BaseRoots) -> None:
        """Write a base and its `base_roots`: a crash or a power cut leaves the complete base or none.

        When this returns no power cut takes it away, nor the start state and feedback written before.
        """
        folder = self.root / "base" / str(epoch)
        folder.parent.mkdir(exist_ok=True)
        remove_unfinished(folder.parent)
        with whole_folder(folder, durable=True) as part:
            for n, data in enumerate(base_parts(spec, base)):
                _base_part(part, n).write_bytes(data)
            (part / "digest").write_text(_written(roots))
            shutil.rmtree(folder, ignore_errors=True)
        self.keep_names()

    def keep_names(self) -> None:
        """Wait until no power cut takes away the folders of bases and start states that are written."""
        for above in (self.root / "snapshots", self.root):
            if above.exists():
                sync_names(above)

    def load_base(self, spec: RunSpec, stage: int, epoch: int) -> tuple[OuterState, BaseRoots]:
        """Read a base that `save_base` wrote, and its roots. Raises PartError if it is damaged or gone."""
        folder = self.root / "base" / str(epoch)
        try:
            parts = [_base_part(folder, n).read_bytes() for n in range(part_count(spec, stage))]
            written = (folder / "digest").read_bytes()
        except OSError as error:
            raise PartError(f"{folder} cannot be read: {error.strerror}") from error
        base = read_base(spec, stage, parts)
        roots = base_roots(spec, base)
        if _written(roots).encode() != written:
            raise PartError(f"{folder} does not have the digest that was written with it")
        return base, roots

    @contextmanager
    def new_base(self, spec: RunSpec, epoch: int) -> Iterator[BaseWriter]:
        """Write a base part by part. It is there once the block ends without an error, whole.

        No power cut takes it away then.
        """
        folder = self.root / "base" / str(epoch)
        folder.parent.mkdir(exist_ok=True)
        remove_unfinished(folder.parent)
        with whole_folder(folder, durable=True) as part:
            writer = BaseWriter(spec, part)
            yield writer
            (part / "digest").write_text(_written(writer.roots()))
            shutil.rmtree(folder, ignore_errors=True)
        sync_names(self.root)

    def base_partitions(self, spec: RunSpec, stage: int, epoch: int) -> Iterator[OuterState]:
        """A base's partitions, one in memory at a time. Raises PartError if it is damaged or gone.

        Only after the last one is it known that none is damaged.
        """
        folder, hasher = self.root / "base" / str(epoch), BaseHasher(spec)
        for number, size in enumerate(part_sizes(spec, stage)):
            try:
                data = _base_part(folder, number).read_bytes()
            except OSError as error:
                raise PartError(f"{folder} cannot be read: {error.strerror}") from error
            partition = read_partition(spec, data, size)
            hasher.take(partition)
            yield partition
        if hasher.roots() != self.base_roots(epoch):
            raise PartError(f"{folder} does not have the digest that was written with it")

    def base_files(self, spec: RunSpec, stage: int, epoch: int) -> list[Path]:
        """Files of a base, which are its parts as they are stored."""
        return [_base_part(self.root / "base" / str(epoch), n) for n in range(part_count(spec, stage))]

    def base_roots(self, epoch: int) -> BaseRoots:
        """The roots of a base, as `save_base` wrote them. Raises PartError if they are gone."""
        path = self.root / "base" / str(epoch) / "digest"
        try:
            start, rest = path.read_text().split(" ")
        except (OSError, ValueError) as error:
            raise PartError(f"{path} cannot be read: {error}") from error
        return BaseRoots(start, rest)

    def save_frame(self, name: FrameName, data: bytes) -> None:
        """Write a frame atomically."""
        path = self.frame(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)

    def forget_epoch(self, epoch: int) -> None:
        """Delete an epoch whose audits are closed: no object of it can be asked for any more."""
        for kind in _BY_EPOCH:
            shutil.rmtree(self.root / kind / str(epoch), ignore_errors=True)

    def forget_state(self) -> None:
        """Delete the bases and start states, to join again from the run's base.

        Frames and snapshots stay: audits may ask for those of work that is done.
        """
        shutil.rmtree(self.root / "base", ignore_errors=True)
        for path in (self.root / "snapshots").glob("*/start.safetensors"):
            path.unlink(missing_ok=True)

    def forget_delta(self, epoch: int) -> None:
        """Delete the pseudo-gradient of an epoch that is merged."""
        shutil.rmtree(self.delta(epoch), ignore_errors=True)

    def forget_used_delta(self, epoch: int) -> None:
        """The same in a run with overlap, once the base and the own start that are made of it are here."""
        if (self.root / "base" / str(epoch + 1)).exists() and self.start_state(epoch + 1).exists():
            self.forget_delta(epoch)

    def forget_feedback(self, epoch: int) -> None:
        """Delete the feedback for an epoch that this replica begins with a base alone."""
        shutil.rmtree(self.feedback(epoch), ignore_errors=True)

    def forget_other_epochs(self, kept: Collection[int]) -> None:
        """Delete all epochs but these: the audits of others were closed while this miner was away."""
        for kind in _BY_EPOCH:
            for path in (self.root / kind).glob("*"):
                if path.name not in map(str, kept):
                    shutil.rmtree(path, ignore_errors=True)


class BaseWriter:
    """A base that is being written, one partition after another."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self._spec, self._folder, self._hasher, self._count = spec, folder, BaseHasher(spec), 0

    def write(self, partition: OuterState) -> None:
        """Write the next partition. Raises OSError."""
        _base_part(self._folder, self._count).write_bytes(write_partition(self._spec, partition))
        self._hasher.take(partition)
        self._count += 1

    def roots(self) -> BaseRoots:
        """The roots of all that was written."""
        return self._hasher.roots()


def _written(roots: BaseRoots) -> str:
    return f"{roots.start} {roots.rest}"


def _base_part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:03d}.safetensors"


def _size(root: Path, pattern: str) -> int:
    size = 0
    for folder, _, names in os.walk(root):
        for name in fnmatch.filter(names, pattern):
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(folder, name)).st_size
    return size
