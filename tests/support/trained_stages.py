"""A replica of every stage, trained for an epoch in one process, and all that its ops made."""

from __future__ import annotations

import torch

from iota.compute import Microbatch, Output
from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.model.graph_sizes import POLICIES
from iota.settings import Activations
from iota.spec import RunSpec
from tests.support.small_runs import sample


class Trained:
    """A replica of every stage after the steps of an epoch: forwards run one microbatch ahead.

    `turns`: each op has the next policy, and every second microbatch is remembered at the middle stage.
    """

    def __init__(self, spec: RunSpec, device: str, policy: Activations, *, turns: bool = False) -> None:
        self.spec, self._turns, self._batches = spec, turns, sample(spec)
        self._next = POLICIES.index(policy)
        self.engines = [Engine(spec, s, device=device, activations=policy) for s in range(3)]
        for stage, engine in enumerate(self.engines):
            engine.load(StageState.initial(spec, stage), version=0)
        self.made: list[Output] = []
        for step in range(spec.schedule.steps):
            count = spec.schedule.microbatches
            gradients = [self._forward(Microbatch(0, step, 0))]
            for index in range(count):
                if index + 1 < count:
                    gradients.append(self._forward(Microbatch(0, step, index + 1)))
                self._backward(Microbatch(0, step, index), gradients[index])
            for engine in self.engines:
                engine.step(step, count, spec.learning_rate(0, step))

    def _forward(self, mb: Microbatch) -> torch.Tensor:
        tokens, version = self._batches(mb.epoch, mb.step, mb.index), self.spec.weight_version(mb.step)
        payload = None
        for stage, engine in enumerate(self.engines):
            self._turn(engine)
            op = engine.loss if stage == self.spec.last_stage else engine.forward
            made = op(mb, version, payload, tokens)
            if self._turns and stage == 1 and mb.index % 2:
                engine.remember(mb, version, payload, tokens)
            payload = made.payload
            self.made.append(made.read().result())
        assert payload is not None
        return payload

    def _backward(self, mb: Microbatch, gradient: torch.Tensor | None) -> None:
        for engine in reversed(self.engines[:-1]):
            assert gradient is not None
            self._turn(engine)
            made = engine.backward(mb, self.spec.weight_version(mb.step), gradient)
            gradient = made.payload
            self.made.append(made.read().result())

    def _turn(self, engine: Engine) -> None:
        if self._turns:
            self._next += 1
            engine.activations = POLICIES[self._next % len(POLICIES)]
