"""MERGE receipts: a merger signs what it merged, once for each part."""

from __future__ import annotations

import time
from dataclasses import dataclass

from iota.outer.partition import PartError
from iota.protocol.events import MergeAssign
from iota.protocol.receipts import OpKind
from miner.ops import OpRunner
from miner.retry import NotWanted


@dataclass
class MergeReceipts:
    """Writes them into the miner's log, in the thread that writes all receipts."""

    runner: OpRunner

    async def write(self, assign: MergeAssign, output: str, started: float) -> None:
        """Write the receipt of a merged part, if it is not there; `output` is its `merge_output`.

        Raises:
            NotWanted: this miner has receipts of a later epoch, after which none of this one may stand; with
                overlap, of the second epoch after it.
            PartError: it has signed another result of this part.
            OSError: the disk is full; nothing was written.
        """
        await self.runner.recorder.run(lambda: self._write(assign, output, started))

    def _write(self, assign: MergeAssign, output: str, started: float) -> None:
        log, what = self.runner.log, f"part {assign.part} of stage {assign.stage} of epoch {assign.epoch}"
        earlier = log.find((assign.epoch, assign.stage, assign.part, 0, OpKind.MERGE))
        if earlier is not None:
            if earlier.output != output:
                raise PartError(f"the merge of {what} no longer gives the result that was receipted")
            return
        if self.runner.spec.anchor(log.newest_epoch) > assign.epoch:
            raise NotWanted(f"the merge of {what}")
        log.append(
            {
                "epoch": assign.epoch,
                "step": 0,
                "microbatch": assign.part,
                "stage": assign.stage,
                "kind": OpKind.MERGE,
                "version": 0,
                "output": output,
                "started": started,
                "ended": max(started, time.time()),
                "device": self.runner.device,
            }
        )
