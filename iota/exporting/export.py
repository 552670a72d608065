"""Exports one epoch's base: fetches and verifies it stage by stage, and writes the folder in one step."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from glob import escape
from pathlib import Path
from typing import Final

from blake3 import blake3
from torch import Tensor

from iota.data import Manifest, open_tokenizer, parse_manifest
from iota.data.exported_tokenizer import MAX_DEFINITION_BYTES, write_tokenizer
from iota.data.manifest import MANIFEST_NAME, DataError
from iota.data.tokenizers import ByteTokenizer
from iota.exporting.card import model_card
from iota.exporting.evaluation import HeldoutRun, reported
from iota.exporting.facts import Facts
from iota.exporting.objects import Objects
from iota.exporting.part_files import part_files
from iota.exporting.stage_weights import checked_record, initial_stage, read_stage
from iota.files import FileLock
from iota.model.export import check_target, export_model
from iota.model.layout import count, run_shapes
from iota.objects import manifest_folder, tokenizer_key
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from iota.store import ObjectMissing, UrlRefused

MAX_MANIFEST_BYTES: Final = 64 << 20
"""Twice what a manifest of `MAX_SHARDS` shards has."""
_SPARE_BYTES: Final = 1 << 26
"""Disk for all of an export but weights."""

Progress = Callable[[str, float], None]
"""(what is being done, the share of it that is done)"""


@dataclass(frozen=True)
class Target:
    """What to export, and where to."""

    out: Path
    epoch: int | None = None
    """Number of merged epochs; None is the newest base, which must be of trained weights."""
    tokenizer: str | None = None
    """Name or folder of the tokenizer, where the store does not have it."""
    license_name: str | None = None
    heldout_tokens: int = 0
    """Measure the held-out loss on at most so many tokens; 0 states what the run has measured."""


class Exporter:
    """One export. `runner` runs the asynchronous parts, with the loop that `facts` and `objects` use."""

    def __init__(
        self, facts: Facts, objects: Objects, target: Target, runner: asyncio.Runner, progress: Progress
    ) -> None:
        self._facts, self._objects, self._target = facts, objects, target
        self._runner, self._progress = runner, progress
        self._spec: RunSpec = facts.spec
        name = target.out.name
        self._parts = target.out.with_name(f".{name}.download")
        self._model = 4 * sum(count(run_shapes(self._spec, s)) for s in range(self._spec.layout.stages))
        """Bytes of the model's weights."""
        self._total = self._model * (1 + bool(self._spec.outer.momentum))
        """Bytes of the base, which has the outer momentum too."""

    def run(self) -> int:
        """Write the folder; returns the epoch. Downloaded parts are kept until it is complete.

        Raises:
            ValueError: a mistake of the user: no such epoch, only untrained weights, another tokenizer, no
                room, or `out` is not empty.
            StoreError, DataError, Problem, OrchestratorUnreachable: what was fetched is missing or damaged.
        """
        out = self._target.out
        check_target(out)
        epoch, stored = self._runner.run(self._epoch())
        manifest = self._runner.run(self._manifest())
        definition = self._runner.run(self._definition(manifest))
        heldout = reported(self._spec, self._runner.run(self._facts.status()), epoch)
        out.parent.mkdir(parents=True, exist_ok=True)
        self._parts.mkdir(exist_ok=True)
        in_use = ValueError(f"another export writes to {out}: wait for it, or give another --to")
        with FileLock(self._parts / "lock", lambda: in_use):
            for leftover in out.parent.glob(f".{escape(out.name)}.*.part"):  # of killed exports
                shutil.rmtree(leftover)
            self._check_room()

            weights = self._weights(epoch) if stored else self._initial()
            measured = None
            if self._target.heldout_tokens:
                samples = HeldoutRun.samples(self._spec, manifest, self._objects, self._parts)
                tokens = self._runner.run(samples.heldout(self._target.heldout_tokens))
                measured = HeldoutRun(self._spec, tokens)
                weights = measured.watching(weights, self._progress)

            def write_rest(folder: Path) -> None:
                found = heldout if measured is None else measured.write(folder, epoch)
                write_tokenizer(definition, folder, self._spec.data.sequence_length)
                card = model_card(self._spec, epoch, manifest, found, self._target.license_name)
                (folder / "README.md").write_text(card)

            export_model(self._spec, weights, write_rest, out, eos_token=manifest.tokenizer.eos_id)
            shutil.rmtree(self._parts)
        return epoch

    # ---- what -------------------------------------------------------------------------------------

    async def _epoch(self) -> tuple[int, bool]:
        """The epoch to export, and whether its base is stored: that of epoch 0 need not be."""
        stored, wanted = await self._facts.epochs(), self._target.epoch
        made = [] if self._spec.init is not None else [0]  # else base 0 comes from the seed
        there = ", ".join(map(str, sorted({*made, *stored}))) or "none"
        if wanted is None:
            newest = max(stored, default=0)
            if newest == 0:
                raise ValueError(
                    "the run has no merged weights yet: let it end its first epoch (--epoch 0 exports the"
                    " initial weights, which have learned nothing)"
                )
            return newest, True
        if wanted not in {*made, *stored}:
            raise ValueError(f"the base of epoch {wanted} is not stored; there are: {there}")
        return wanted, wanted in stored

    async def _manifest(self) -> Manifest:
        identity = self._spec.data.manifest
        raw = await self._facts.manifest()
        if raw is None:
            raw = await self._objects.get(f"{manifest_folder(identity)}/{MANIFEST_NAME}", MAX_MANIFEST_BYTES)
        return parse_manifest(raw, identity)

    async def _definition(self, manifest: Manifest) -> bytes:
        """The definition of the tokenizer that trained: of `--tokenizer`, else from the store."""
        wanted = manifest.tokenizer
        if self._target.tokenizer is not None:
            given = open_tokenizer(self._target.tokenizer)
            if given.digest != wanted.digest:
                raise ValueError(
                    f"--tokenizer {self._target.tokenizer} is not the tokenizer of this run"
                    f" ({wanted.name}, digest {wanted.digest[:16]}): leave it out, or give that one"
                )
            return given.definition
        if wanted.digest == ByteTokenizer.digest:
            return ByteTokenizer.definition
        try:
            found = await self._objects.get(tokenizer_key(self._spec.data.manifest), MAX_DEFINITION_BYTES)
        except (ObjectMissing, UrlRefused) as error:
            raise ValueError(
                f"the store does not have the run's tokenizer ({wanted.name}): give it with --tokenizer, or"
                " repeat the `iota data prepare` of the data set to store it"
            ) from error
        if blake3(found).hexdigest() != wanted.digest:
            raise DataError(
                f"the stored tokenizer is not the run's ({wanted.name}): give it with --tokenizer"
            )
        return found

    def _check_room(self) -> None:
        """Raises ValueError unless the disk has room for the model, and for its parts if they are fetched."""
        needed = _SPARE_BYTES + self._model + (self._total if self._objects.downloads else 0)
        has = sum(p.stat().st_size for p in self._parts.rglob("*")) if self._parts.exists() else 0
        free = shutil.disk_usage(self._target.out.parent).free
        if free + has < needed:
            raise ValueError(
                f"the export needs {needed / 1e9:.1f} GB in {self._target.out.parent}, and"
                f" {(free + has) / 1e9:.1f} GB are free: give a --to on a larger disk"
            )

    # ---- weights ----------------------------------------------------------------------------------

    def _initial(self) -> Iterator[dict[str, Tensor]]:
        """The weights before training, which every node computes from the run's seed."""
        for stage in range(self._spec.layout.stages):
            self._progress(self._named(stage, "making the initial weights"), 0)
            yield initial_stage(self._spec, stage)

    def _weights(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """Yields each stage's tensors by name, so that one stage is in memory at a time."""
        folder = self._parts / f"{self._spec.id[:16]}-{epoch}"
        for other in self._parts.glob("*-*"):
            if other != folder:
                shutil.rmtree(other)
        folder.mkdir(exist_ok=True)
        for stage in range(self._spec.layout.stages):
            record = self._runner.run(checked_record(self._facts, epoch, stage))
            files = self._runner.run(self._fetch(record, folder))
            self._progress(self._named(stage, "checking and writing"), 0)
            yield read_stage(self._spec, record, files)

    def _named(self, stage: int, what: str) -> str:
        return f"stage {stage} of {self._spec.layout.stages}: {what}"

    async def _fetch(self, record: BaseRecord, folder: Path) -> list[Path]:
        """Verified files of a base's parts, in order."""
        size = sum(part.size for part in record.parts)
        label = self._named(record.stage, f"reading {size / 1e6:,.0f} MB")
        return await part_files(self._objects, record, folder, partial(self._progress, label))
