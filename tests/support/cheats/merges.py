"""Cheats in merges: merged parts that are not the merge of their contributions."""

from __future__ import annotations

import dataclasses

import miner.duty_worker
from iota.objects import part_sizes
from iota.outer.merge import MergedPart, Read, merge_part
from iota.outer.merged_part import read_merged, write_merged
from iota.protocol.events import MergeAssign
from iota.spec import RunSpec
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner


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
