"""Cheats in merges: merged parts that are not the merge of their contributions."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from typing import Final

from blake3 import blake3

import miner.duty_worker
from iota.objects import part_sizes
from iota.outer.merge import MergedPart, Read, merge_part
from iota.outer.merged_part import read_merged, write_merged
from iota.protocol.events import MergeAssign
from iota.protocol.merges import merge_output
from iota.protocol.messages import Merged
from iota.spec import RunSpec
from miner.duty_worker import DutyWorker
from miner.retry import NotWanted
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner

LATE_S: Final = 20.0


def lying_merger() -> None:
    """Every merged part that it stores is halved; several of these store the same."""

    def halved(spec: RunSpec, assign: MergeAssign, read: Read) -> MergedPart:
        lied(assign.epoch, spec.schedule.steps)
        made = merge_part(spec, assign, read)
        codec, size = spec.outer.codec, part_sizes(spec, assign.stage)[assign.part]
        return dataclasses.replace(made, data=write_merged(codec, read_merged(codec, made.data, size) / 2))

    miner.duty_worker.merge_part = halved
    run_miner()


def excluding_merger() -> None:
    """Every merged part that it stores leaves the last contribution out, as one that cannot be read."""

    def without_last(spec: RunSpec, assign: MergeAssign, read: Read) -> MergedPart:
        lied(assign.epoch, spec.schedule.steps)
        last = assign.contributions[-1].hotkey
        return merge_part(spec, assign, lambda given: b"" if given.hotkey == last else read(given))

    miner.duty_worker.merge_part = without_last
    run_miner()


def late_merger() -> None:
    """Merges rightly, and takes its time."""
    honest = DutyWorker._merge

    async def merge(self: DutyWorker, assign: MergeAssign, urls: Mapping[str, str]) -> Merged:
        lied(assign.epoch, self.spec.schedule.steps)
        await asyncio.sleep(LATE_S)
        return await honest(self, assign, {})

    DutyWorker._merge = merge  # type: ignore[method-assign]
    run_miner()


def withholding_merger() -> None:
    """Signs what it merges, and stores it nowhere."""
    honest = miner.duty_worker.merge_part

    async def merge(self: DutyWorker, assign: MergeAssign, urls: Mapping[str, str]) -> Merged:
        lied(assign.epoch, self.spec.schedule.steps)
        given = await miner.duty_worker.read_contributions(self.objects, assign, urls)
        made = await asyncio.to_thread(honest, self.spec, assign, lambda c: given[c.hotkey])
        digest = blake3(made.data).hexdigest()
        await self.receipts.write(assign, merge_output(digest, made.left_out), time.time())
        raise NotWanted

    DutyWorker._merge = merge  # type: ignore[method-assign]
    run_miner()
