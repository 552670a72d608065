"""A miner of a run with one stage: an op runner that trains without neighbours and restarts on its disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iota.compute.commitment import commitment, tensors_root
from iota.compute.engine import Engine
from iota.compute.state import StageState, load_state, save_state
from iota.identity.keys import Hotkey
from iota.outer.base_values import BaseRoots
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import RunSpec
from miner.core.schedule import Op
from miner.disk import MinerDisk
from miner.ops import Inputs, OpRunner
from miner.receipt_file import parse_line
from miner.receipt_log import ReceiptLog
from tests.support.small_runs import sample, small_run

KEY = Hotkey.from_seed(b"1" * 32)


def one_stage(steps: int = 7, pipeline: str = "delayed", **changes: Any) -> RunSpec:
    """A run of one stage and one microbatch a step, which commits at every fifth version."""
    schedule = {"pipeline": pipeline, "steps": steps, "microbatches": 1}
    return small_run(layout={"cuts": [4]}, schedule=schedule, **changes)


class OneStageMiner:
    """The op runner of a life that joined at step `joined`, resumed from the disk or new; `close` it."""

    def __init__(
        self,
        root: Path,
        spec: RunSpec,
        *,
        joined: int = 0,
        resumes: bool = True,
        snapshots: int | None = None,
    ) -> None:
        self.spec, self.joined = spec, joined
        self.disk = MinerDisk(root)
        log = ReceiptLog(self.disk.receipts, spec.id, KEY)
        if not resumes:
            log.begin_life()
        self.runner = OpRunner(spec, 0, KEY, Engine(spec, 0), log, self.disk, "cpu", snapshots)
        start = StageState.initial(spec, 0)
        save_state(start, self.disk.start_state(0), commitment(start, spec.outer.part_elements))

    def load(self) -> None:
        """Load the start state of epoch 0, as the trainer does."""
        state = load_state(self.disk.start_state(0), self.spec, 0)
        self.runner.load(0, self.joined, state, self.roots())

    def roots(self) -> BaseRoots:
        """Those of the base of epoch 0."""
        start = StageState.initial(self.spec, 0).weights
        return BaseRoots(tensors_root(start, self.spec.outer.part_elements), EMPTY)

    def op(self, step: int) -> None:
        """The LOSS of a step."""
        version = self.spec.weight_version(step, self.joined)
        op = Op(OpKind.LOSS, 0, step, version)
        self._run(op)

    def step(self, step: int) -> None:
        """The STEP of a step, whose LOSS has run."""
        version = self.spec.weight_version(step, self.joined)
        op = Op(OpKind.STEP, 0, step, version, counted=((0, 0),), learning_rate=0.01)
        self._run(op)

    def _run(self, op: Op) -> None:
        inputs = {(op.step, 0): Inputs(tokens=sample(self.spec)(0, op.step, 0))}
        self.runner.launch(op, inputs, None).result()

    def train(self, first: int, end: int) -> None:
        """LOSS and STEP of the steps from `first` to `end`."""
        for step in range(first, end):
            self.op(step)
            self.step(step)

    def settle(self) -> None:
        """Wait for the commitments that were asked for, and write their receipts."""
        runner = self.runner
        newest = runner.recorder.record(lambda: runner.committer.newest).result()
        if newest is not None:
            newest.exception()
        runner.recorder.record(runner.records.commits).result()

    @property
    def receipts(self) -> list[Receipt]:
        """All receipts on the disk."""
        lines = self.disk.receipts.read_bytes().splitlines()[1:]
        return [parse_line(Receipt, line)[0] for line in lines]

    def of(self, kind: OpKind) -> list[Receipt]:
        """The receipts of a kind on the disk."""
        return [receipt for receipt in self.receipts if receipt.kind is kind]

    def close(self) -> None:
        """End the life and its process."""
        self.runner.close()
        self.runner.log.close()
        self.disk.__exit__()
