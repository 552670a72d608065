"""An engine that computes real bits and takes a set time for each op, most of it by waiting.

On a machine with fewer cores than miners, ops share the cores: a miner that waits or dies makes its
neighbours faster, which hides what overlap and re-routing are worth. A paced op takes the same time with
or without neighbours, as long as its compute fits into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from iota.compute.engine import Engine
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput, DeviceStep
from iota.compute.tokens import Tokens
from iota.settings import Activations
from iota.spec import RunSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """Seconds that each kind of op takes."""

    forward_s: float
    loss_s: float
    backward_s: float
    step_s: float

    def times(self, factor: float) -> Pace:
        """`factor` times as slow."""
        return Pace(
            factor * self.forward_s, factor * self.loss_s, factor * self.backward_s, factor * self.step_s
        )


class PacedEngine(Engine):
    """`pace` of this engine; `clock` is monotonic, in seconds. An op that fails takes its time too."""

    def __init__(
        self,
        spec: RunSpec,
        stage: int,
        *,
        device: str | torch.device = "cpu",
        activations: Activations = Activations.KEEP,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(spec, stage, device=device, activations=activations)
        self._pace, self._clock, self._sleep = pace, clock, sleep

    def forward(
        self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens
    ) -> DeviceOutput:
        return self._paced(
            self._pace.forward_s, lambda: Engine.forward(self, mb, version, stage_input, tokens)
        )

    def loss(self, mb: Microbatch, version: int, stage_input: Tensor | None, tokens: Tokens) -> DeviceOutput:
        return self._paced(self._pace.loss_s, lambda: Engine.loss(self, mb, version, stage_input, tokens))

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        return self._paced(self._pace.backward_s, lambda: Engine.backward(self, mb, version, gradient))

    def step(self, step: int, count: int, learning_rate: float) -> DeviceStep:
        return self._paced(self._pace.step_s, lambda: Engine.step(self, step, count, learning_rate))

    def _paced(self, seconds: float, op: Callable[[], T]) -> T:
        end = self._clock() + seconds
        try:
            return op()
        finally:
            # a sleep may end early
            while (left := end - self._clock()) > 0:
                self._sleep(left)
