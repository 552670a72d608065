"""A miner with paced ops in a host of an emulated internet, which may wait for its sends.

Its first argument is an `Order`; the miner's own command line follows. So the parent that imports for all
miners can fork it, and it moves into its network namespace before it opens a socket.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput, DeviceStep
from iota.compute.tokens import Tokens
from miner.core.effects import SendFrame
from miner.core.facts import FrameNotStored, FrameStored
from miner.frames import FrameMover
from tests.support.internet.namespaces import enter
from tests.support.miner_program import run_miner
from tests.support.paced_engine import Pace, PacedEngine

ENTRY = "tests.support.wan_miner:main"
LONGEST_SEND_S = 300.0


@dataclass(frozen=True)
class Order:
    """How one miner runs."""

    namespace: str
    pace: Pace
    overlap: bool

    def argument(self) -> str:
        """As `main` takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, argument: str) -> Order:
        """The order that an argument holds."""
        given = json.loads(argument)
        return cls(given["namespace"], Pace(**given["pace"]), given["overlap"])


class Sends:
    """The frames of a miner's ops that are not yet where they are to go. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = 0

    def made(self) -> None:
        """An op has made a frame."""
        with self._changed:
            self._waiting += 1

    def gone(self) -> None:
        """A frame has arrived; one that was sent again too."""
        with self._changed:
            self._waiting = max(0, self._waiting - 1)
            self._changed.notify_all()

    def wait(self) -> None:
        """Until all have arrived. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting == 0, LONGEST_SEND_S):
                raise TimeoutError(f"a frame was not sent within {LONGEST_SEND_S:.0f} s")


class WaitingEngine(PacedEngine):
    """Begins no op while a frame of an earlier one is on its way: a miner without overlap."""

    def __init__(self, *args: Any, sends: Sends, **options: Any) -> None:
        super().__init__(*args, **options)
        self._sends = sends

    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        return self._alone(lambda: PacedEngine.forward(self, mb, version, stage_input, tokens), True)

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        return self._alone(
            lambda: PacedEngine.loss(self, mb, version, stage_input, tokens), stage_input is not None
        )

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        return self._alone(lambda: PacedEngine.backward(self, mb, version, gradient), self.stage > 0)

    def step(self, step: int, count: int, learning_rate: float) -> DeviceStep:
        self._sends.wait()
        return super().step(step, count, learning_rate)

    def _alone(self, op: Callable[[], DeviceOutput], sends: bool) -> DeviceOutput:
        self._sends.wait()
        made = op()
        if sends:
            self._sends.made()
        return made


def note_sends(sends: Sends) -> None:
    """Have this process's miner note each frame that has arrived, by whatever way, or was given up."""
    send = FrameMover.send

    async def noted(self: FrameMover, effect: SendFrame) -> FrameStored | FrameNotStored:
        try:
            return await send(self, effect)
        finally:
            sends.gone()

    FrameMover.send = noted


def main() -> None:
    """Run the miner that `sys.argv` describes."""
    order = Order.of(sys.argv.pop(1))
    enter(order.namespace)
    if order.overlap:
        run_miner(make_engine=functools.partial(PacedEngine, pace=order.pace))
        return
    sends = Sends()
    note_sends(sends)
    run_miner(make_engine=functools.partial(WaitingEngine, pace=order.pace, sends=sends))
