"""A replica's encoded pseudo-gradient and its error feedback on disk, made at an epoch's last version."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from iota.compute.delta_parts import encoded_parts
from iota.files import remove_unfinished, whole_folder
from iota.outer.error_feedback import feedback_leaf, feedback_root, read_feedback, write_feedback
from iota.outer.partition import PartError, Vector
from iota.spec import RunSpec
from iota.system.files import sync_names
from miner.disk import MinerDisk

_LEAF: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class EpochStart:
    """What a life began an epoch with."""

    epoch: int
    weights: Mapping[str, Tensor]
    """On the CPU; they do not change."""
    feedback: tuple[str, ...] = ()
    """Leaves of its error feedback, one a partition; empty where it has none."""
    own: bool = False
    """It is an own start: on the disk with the life's first commitment, and not before."""

    @property
    def root(self) -> str:
        """What its first COMMIT has as its feedback."""
        return feedback_root(self.feedback)


class DeltaFiles:
    """Writes the pseudo-gradient of an epoch, and the feedback that the next one begins with."""

    def __init__(self, spec: RunSpec, disk: MinerDisk) -> None:
        self._spec, self._disk = spec, disk

    def leaves(self, epoch: int) -> tuple[str, ...]:
        """Leaves of the feedback that was kept for `epoch`; empty where there is none.

        Raises PartError where they are not those of all parts, to which alone a replica may commit.
        """
        file = self._disk.feedback(epoch) / "leaves"
        if not file.exists():
            return ()
        leaves = tuple(file.read_text(errors="replace").split())
        parts = sum(1 for _ in file.parent.glob("part-*"))
        if len(leaves) != parts or not all(_LEAF.fullmatch(leaf) for leaf in leaves):
            raise PartError(f"{file} does not name the feedback of each part beside it")
        return leaves

    def feedback(self, epoch: int) -> bytes:
        """All of the feedback that was kept for `epoch`. Raises PartError if it is damaged, and OSError."""
        leaves = self.leaves(epoch)
        return b"".join(self._read(epoch, number, leaf) for number, leaf in enumerate(leaves))

    def write(self, start: EpochStart, final: Mapping[str, Tensor]) -> str:
        """Encode `start` less `final` part by part, on the CPU. Returns the root of what it leaves.

        A crash or a power cut leaves whole folders or none, and who repeats the epoch writes the same. Raises
        PartError if the feedback on this disk is damaged, and OSError.
        """
        epoch, leaves = start.epoch, []

        def before(number: int, elements: int) -> Vector | None:
            if not start.feedback:
                return None
            return read_feedback(self._read(epoch, number, start.feedback[number]), elements)

        with _replaced(self._disk.delta(epoch)) as parts, _replaced(self._disk.feedback(epoch + 1)) as kept:
            for n, made in enumerate(encoded_parts(self._spec.outer, start.weights, final, before)):
                _part(parts, n).write_bytes(made.data)
                if made.left is not None:
                    data = write_feedback(made.left)
                    _part(kept, n).write_bytes(data)
                    leaves.append(feedback_leaf(data))
            (kept / "leaves").write_text("\n".join(leaves))
        return feedback_root(leaves)

    def _read(self, epoch: int, number: int, leaf: str) -> bytes:
        path = _part(self._disk.feedback(epoch), number)
        data = path.read_bytes()
        if feedback_leaf(data) != leaf:
            raise PartError(f"{path} does not have the digest that was written with it")
        return data


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder in the place of `folder`, once it is filled."""
    folder.parent.mkdir(exist_ok=True)
    sync_names(folder.parent.parent)
    remove_unfinished(folder.parent)
    with whole_folder(folder, durable=True) as part:
        yield part
        shutil.rmtree(folder, ignore_errors=True)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:03d}"
