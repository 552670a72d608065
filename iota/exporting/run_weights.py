"""A base of one run as the weights that another run starts from, with a partition in memory at a time."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from blake3 import blake3

from iota.client.run_objects import ObjectDiffers
from iota.exporting.export import Progress
from iota.exporting.facts import Facts
from iota.exporting.objects import Objects
from iota.exporting.part_files import part_files
from iota.exporting.stage_weights import BadBase, checked_record
from iota.model.layout import run_shapes
from iota.objects import part_sizes
from iota.outer.base_values import BaseHasher, read_partition
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError, Vector
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec

_SPARE_BYTES: Final = 1 << 26


class RunWeights:
    """The weights of one base of a run: `iota.outer.start.StartWeights`.

    Outer momentum and the codecs' parameters are left behind. Each part is held to its digest whenever it is
    read. Reading raises StoreError (BadBase, ObjectDiffers) for what is damaged.
    """

    def __init__(self, spec: RunSpec, records: Sequence[BaseRecord], files: Sequence[Sequence[Path]]) -> None:
        """`records` and the `files` of their parts are by stage."""
        self._spec, self._records, self._files = spec, records, files
        self._read: tuple[tuple[int, int], OuterState] | None = None
        self._places: dict[str, tuple[int, int, int]] = {}
        """(stage, first element in its vector, elements) of each parameter."""
        for stage in range(spec.layout.stages):
            first = 0
            for name, shape in run_shapes(spec, stage).items():
                self._places[name] = (stage, first, math.prod(shape))
                first += math.prod(shape)

    @property
    def source(self) -> str:
        """The run and the epoch of the base."""
        return f"run {self._spec.id}, epoch {self._records[0].epoch}"

    def pieces(self, name: str) -> Iterator[Vector]:
        """The parameter `name` in fp32, flat, piece by piece as the partitions cut it."""
        stage, first, size = self._places[name]
        while size:
            number, inside = divmod(first, self._spec.outer.part_elements)
            piece = self._partition(stage, number).weights[inside : inside + size]
            yield piece
            first, size = first + piece.size, size - piece.size

    def check(self, progress: Progress) -> None:
        """Hold each stage's base to the digest that its replicas agreed on. Raises BadBase."""
        for stage, record in enumerate(self._records):
            hasher = BaseHasher(self._spec)
            for number in range(len(record.parts)):
                progress(f"stage {stage} of {len(self._records)}: checking", number / len(record.parts))
                hasher.take(self._partition(stage, number))
            if hasher.roots().digest != record.digest:
                raise BadBase(f"the base of stage {stage} is not the one that its replicas agreed on")

    def _partition(self, stage: int, number: int) -> OuterState:
        if self._read is None or self._read[0] != (stage, number):
            self._read = None  # its memory first
            self._read = (stage, number), self._from_file(stage, number)
        return self._read[1]

    def _from_file(self, stage: int, number: int) -> OuterState:
        part, path = self._records[stage].parts[number], self._files[stage][number]
        data = path.read_bytes()
        if blake3(data).hexdigest() != part.digest:
            raise ObjectDiffers(f"{path} holds other bytes than were announced")
        try:
            return read_partition(self._spec, data, part_sizes(self._spec, stage)[number])
        except PartError as error:
            raise BadBase(f"the base of stage {stage} is damaged: {error}") from error


async def chosen_epoch(facts: Facts, wanted: int | None) -> int:
    """The epoch whose base a run starts from: `wanted`, or the newest.

    Raises ValueError where it is not stored, or where nothing was merged yet.
    """
    stored = await facts.epochs()
    if wanted is None:
        if max(stored, default=0) == 0:
            raise ValueError("the run has no merged weights yet: let it end its first epoch")
        return max(stored)
    if wanted not in stored:
        there = ", ".join(map(str, stored)) or "none"
        raise ValueError(
            f"the base of epoch {wanted} is not stored; there are: {there}; a run keeps those that its spec"
            " says by schedule.keep_every"
        )
    return wanted


def run_weights(
    facts: Facts, objects: Objects, epoch: int, folder: Path, runner: asyncio.Runner, progress: Progress
) -> RunWeights:
    """The checked weights of a stored base. Downloads lie in `folder`, where a repeated call finds them.

    Raises:
        ValueError: no room on the disk.
        StoreError, Problem, OrchestratorUnreachable, OSError: parts are missing or damaged.
    """
    stages = range(facts.spec.layout.stages)
    records = [runner.run(checked_record(facts, epoch, stage)) for stage in stages]
    if objects.downloads:
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(sum(part.size for record in records for part in record.parts), folder)
    files = []
    for stage, record in enumerate(records):
        size = sum(part.size for part in record.parts)
        label = f"stage {stage} of {len(records)}: reading {size / 1e6:,.0f} MB"
        files.append(runner.run(part_files(objects, record, folder, partial(progress, label))))
    found = RunWeights(facts.spec, records, files)
    found.check(progress)
    return found


def _check_room(size: int, folder: Path) -> None:
    """Raises ValueError unless `folder` has room for parts of so many bytes, those in it included."""
    has = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if free + has < size + _SPARE_BYTES:
        raise ValueError(
            f"the base needs {size / 1e9:.1f} GB in {folder.parent} while it is read, and"
            f" {(free + has) / 1e9:.1f} GB are free: give an --out on a larger disk"
        )
