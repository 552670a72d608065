"""A miner that trains honestly and merges falsely: zeros."""

from __future__ import annotations

from dataclasses import replace

import miner.duty_worker
from iota.outer.merge import MergedPart, Read, merge_part
from iota.protocol.events import MergeAssign
from iota.spec import RunSpec
from tests.support.miner_program import run_miner


def _zeros(spec: RunSpec, assign: MergeAssign, read: Read) -> MergedPart:
    made = merge_part(spec, assign, read)
    return replace(made, data=bytes(len(made.data)))


def main() -> None:
    miner.duty_worker.merge_part = _zeros
    run_miner()
