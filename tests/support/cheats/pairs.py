"""Cheats of two miners of one owner together, with a folder that both can read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iota.codec.wire_dtype import payload_tensor
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from iota.files import write_whole
from iota.protocol.receipts import OpKind
from miner.ops import OpRunner
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner


def lends() -> None:
    """Works honestly, and leaves its results of each step to a sibling."""

    def leave(lent: Path, mb: Microbatch, made: DeviceOutput) -> DeviceOutput:
        if made.payload is not None:
            lent.parent.mkdir(exist_ok=True)
            write_whole(lent, made.payload.numpy().tobytes())
        return made

    _on_results(leave)


def copies() -> None:
    """Sends what a sibling that lends has computed in the same step of the same kind."""

    def copied(lent: Path, mb: Microbatch, made: DeviceOutput) -> DeviceOutput:
        if made.payload is None or not lent.exists():
            return made
        lied(mb.epoch, mb.step)
        return dataclasses.replace(made, hashed_N=payload_tensor(lent.read_bytes()))

    _on_results(copied)


def _on_results(change: Callable[[Path, Microbatch, DeviceOutput], DeviceOutput]) -> None:
    honest = OpRunner._compute

    def compute(self: OpRunner, kind: OpKind, mb: Microbatch, *given: Any, **more: Any) -> DeviceOutput:
        lent = self.disk.root.parent / "lent" / f"{self.stage}-{mb.epoch}-{mb.step}-{kind}"
        return change(lent, mb, honest(self, kind, mb, *given, **more))

    OpRunner._compute = compute  # type: ignore[method-assign]
    run_miner()
