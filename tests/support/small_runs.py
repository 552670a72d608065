"""Runs small enough to compare to the bit, and a pipeline of engines in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iota.compute import Microbatch, StepOutput
from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.model.weight_dtype import as_weights
from iota.outer.nesterov import OuterState, outer_step
from iota.outer.pseudo_gradient import flatten, pseudo_gradient, unflatten
from iota.settings import Activations
from iota.spec import RunSpec

VOCABULARY = 61
MASKED: dict[str, Any] = {"mask_documents": True, "eos_id": 2}
"""Of a spec's data: attention stays inside documents."""


def small_run(**changes: dict[str, Any] | Any) -> RunSpec:
    """A three-stage run of some 30,000 parameters; `changes` update its sections."""
    spec: dict[str, Any] = {
        "model": {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "layers": 4,
            "heads": 4,
            "kv_heads": 2,
            "ffn_size": 48,
        },
        "layout": {"cuts": [1, 2, 1]},
        "boundary": {"codec": "resbm-anchor", "ratio": 4, "wire": "bf16", "anchor_rank": 4},
        "data": {"manifest": "0" * 64, "sequence_length": 12, "sequences": 2},
        "schedule": {"epochs": 2, "steps": 3, "microbatches": 3, "pipeline": "sync"},
        "optimizer": {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.1},
        "outer": {"part_elements": 4096},
        "seed": 7,
    }
    for section, value in changes.items():
        spec[section] = {**spec[section], **value} if isinstance(value, dict) else value
    return RunSpec.model_validate(spec)


def sample(spec: RunSpec) -> Callable[[int, int, int], Tokens]:
    """Tokens that follow from their name alone; of several documents in a sequence where these are masked."""

    def batches(epoch: int, step: int, index: int) -> Tokens:
        shape = (spec.data.sequences, spec.data.sequence_length + 1)
        rng = np.random.default_rng((spec.seed, epoch, step, index))
        tokens = rng.integers(0, spec.model.vocab_size, shape)
        if spec.data.eos_id is not None:
            tokens[:, 3::5] = spec.data.eos_id
        return tokens

    return batches


class EnginePipeline:
    """One replica of every stage; payloads go from engine to engine as tensors."""

    def __init__(self, spec: RunSpec, activations: Activations = Activations.KEEP) -> None:
        self.spec = spec
        self.engines = [Engine(spec, stage, activations=activations) for stage in range(spec.layout.stages)]
        for stage, engine in enumerate(self.engines):
            engine.load(StageState.initial(spec, stage), version=0)
        self.momenta = [np.zeros_like(flatten(e.state().weights).numpy()) for e in self.engines]
        self.losses: dict[Microbatch, float] = {}
        self._gradients: dict[Microbatch, Tensor] = {}
        self._batches = sample(spec)

    def forward(self, mb: Microbatch) -> None:
        """All stages' FORWARD and the LOSS."""
        version = self.spec.weight_version(mb.step)
        tokens = self._batches(mb.epoch, mb.step, mb.index)
        payload: Tensor | None = None
        for engine in self.engines[:-1]:
            payload = engine.forward(mb, version, payload, tokens).payload
        out = self.engines[-1].loss(mb, version, payload, tokens)
        assert out.loss is not None
        self.losses[mb] = float(out.loss)
        if out.payload is not None:
            self._gradients[mb] = out.payload

    def backward(self, mb: Microbatch) -> None:
        """All stages' BACKWARD."""
        gradient = self._gradients.pop(mb, None)
        for engine in reversed(self.engines[:-1]):
            assert gradient is not None
            gradient = engine.backward(mb, self.spec.weight_version(mb.step), gradient).payload

    def step(self, epoch: int, step: int) -> list[StepOutput]:
        rate = self.spec.learning_rate(epoch, step)
        count = self.spec.schedule.microbatches
        return [engine.step(step, count, rate).read().result() for engine in self.engines]

    def run_steps(self, epoch: int) -> None:
        for step in range(self.spec.schedule.steps):
            for index in range(self.spec.schedule.microbatches):
                self.forward(Microbatch(epoch, step, index))
                self.backward(Microbatch(epoch, step, index))
            self.step(epoch, step)

    def run_epoch(self, epoch: int, base: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The steps and the outer step, from a base in fp32; returns the new one."""
        self.run_steps(epoch)
        merged: list[dict[str, Tensor]] = []
        for stage, engine in enumerate(self.engines):
            start = as_weights(self.spec, base[stage])
            delta = pseudo_gradient(start, engine.state().weights).numpy()
            outer = OuterState(flatten(base[stage]).numpy(), self.momenta[stage])
            after = outer_step(outer, delta, self.spec.outer.eta, self.spec.outer.momentum_at(epoch))
            self.momenta[stage] = after.momentum
            merged.append(unflatten(torch.from_numpy(after.weights), base[stage]))
            engine.rebase(as_weights(self.spec, merged[-1]))
        return merged

    def states(self) -> list[StageState]:
        return [engine.state() for engine in self.engines]


def assert_same_bits(found: list[StageState], expected: list[StageState]) -> None:
    for stage, (a, b) in enumerate(zip(found, expected, strict=True)):
        for mine, theirs in ((a.weights, b.weights), (a.moments, b.moments)):
            assert mine.keys() == theirs.keys()
            wrong = [name for name in mine if not torch.equal(mine[name], theirs[name])]
            assert not wrong, f"stage {stage}: {wrong}"


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Within `tolerance` of each tensor's norm."""
    assert found.keys() == expected.keys()
    for name in found:
        error = float((found[name] - expected[name]).norm())
        assert error <= tolerance * float(expected[name].norm()) + 1e-12, (name, error)
