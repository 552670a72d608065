"""Replicas of every stage in one process, merged from encoded bytes by the product's code; a plain reference.

Replicas may join late, and may give nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from blake3 import blake3

from iota.compute.delta_parts import encoded_parts
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.outer.base import initial_base, named_weights
from iota.outer.base_values import next_base
from iota.outer.merge import merge_part
from iota.outer.merged_part import read_merged_stage
from iota.outer.nesterov import outer_step
from iota.outer.partition import Vector
from iota.outer.pseudo_gradient import pseudo_gradient, unflatten
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.frames import StoredObject
from iota.protocol.merges import LeftOut
from iota.reference.pipeline import Batches, ReferenceTrainer
from iota.simulate.names import fake_hotkey
from iota.spec import RunSpec
from tests.support.small_runs import EnginePipeline


class Replicas:
    """`count` replicas of each stage, R in all: replica r takes microbatches r, r + R and so on of a step."""

    def __init__(self, spec: RunSpec, batches: Batches, count: int) -> None:
        self.spec, self.count = spec, count
        self.pipelines = [EnginePipeline(spec) for _ in range(count)]
        for number, pipeline in enumerate(self.pipelines):
            pipeline._batches = dealt(batches, number, count)
        self.bases = [initial_base(spec, stage) for stage in range(spec.layout.stages)]
        self.left_out: list[dict[str, LeftOut]] = []
        """What each merge left out."""
        self._feedback: dict[tuple[int, int, int], Vector | None] = {}

    def epoch(self, epoch: int, joined: Mapping[int, int] | None = None, gone: Sequence[int] = ()) -> None:
        """One epoch: `joined` has the step at which a replica joined, and `gone` give nothing."""
        spec, joined = self.spec, joined or {}
        starts = [named_weights(spec, stage, base.weights) for stage, base in enumerate(self.bases)]
        for number, pipeline in enumerate(self.pipelines):
            first = joined.get(number, 0)
            if first:
                for engine, start in zip(pipeline.engines, starts, strict=True):
                    engine.load(StageState(dict(start)), version=first)
            pipeline.run_some(epoch, range(first, spec.schedule.steps))
        for stage, base in enumerate(self.bases):
            given = {
                number: self._encoded(stage, number, starts[stage])
                for number in range(self.count)
                if number not in gone
            }
            self.bases[stage] = next_base(spec, epoch, base, self._merged(epoch, stage, given, joined))
            for pipeline in self.pipelines:
                weights = named_weights(spec, stage, self.bases[stage].weights)
                pipeline.engines[stage].rebase(weights)

    def _encoded(self, stage: int, number: int, start: Mapping[str, torch.Tensor]) -> list[bytes]:
        final = self.pipelines[number].engines[stage].state().weights
        parts = list(
            encoded_parts(
                self.spec.outer, start, final, lambda n, size: self._feedback.get((stage, number, n))
            )
        )
        self._feedback |= {(stage, number, n): part.left for n, part in enumerate(parts)}
        return [part.data for part in parts]

    def _merged(
        self, epoch: int, stage: int, given: Mapping[int, list[bytes]], joined: Mapping[int, int]
    ) -> Vector:
        spec, parts = self.spec, len(next(iter(given.values())))
        merged = []
        for part in range(parts):
            data = {fake_hotkey(number): own[part] for number, own in given.items()}
            contributions = [
                Contribution(
                    hotkey=fake_hotkey(number),
                    tokens=spec.schedule.microbatches * (spec.schedule.steps - joined.get(number, 0)),
                    joined=joined.get(number, 0),
                    stored=StoredObject(
                        key=fake_hotkey(number), digest=blake3(own[part]).hexdigest(), size=len(own[part])
                    ),
                )
                for number, own in given.items()
            ]
            contributions.sort(key=lambda each: each.hotkey)
            assign = MergeAssign(epoch=epoch, stage=stage, part=part, contributions=tuple(contributions))
            found = merge_part(spec, assign, lambda each, data=data: data[each.hotkey])
            self.left_out.append(found.left_out)
            merged.append(found.data)
        return read_merged_stage(spec, stage, merged)


class PlainReplicas:
    """The same, of plain trainers and a plain mean; all replicas do the same work."""

    def __init__(self, spec: RunSpec, batches: Batches, numbers: Sequence[int], count: int) -> None:
        self.spec = spec
        order = sorted(numbers, key=fake_hotkey)  # that of the sum
        self.trainers = [ReferenceTrainer(spec) for _ in order]
        self._batches = [dealt(batches, number, count) for number in order]
        self.bases = self.trainers[0]._bases

    def epoch(self, epoch: int) -> None:
        """One epoch of all replicas, and the outer step of each stage."""
        starts = [trainer.states() for trainer in self.trainers]
        for trainer, batches in zip(self.trainers, self._batches, strict=True):
            trainer.run_steps(epoch, batches)
        share, outer = np.float32(1 / len(self.trainers)), self.spec.outer
        for stage, base in enumerate(self.bases):
            mean: Vector | None = None
            for trainer, start in zip(self.trainers, starts, strict=True):
                change = pseudo_gradient(start[stage].weights, trainer._weights[stage]).numpy()
                own = trainer.sent(stage, change) * share
                mean = own if mean is None else mean + own
            assert mean is not None
            after = self.bases[stage] = outer_step(base, mean, outer.eta, outer.momentum_at(epoch))
            for trainer in self.trainers:
                weights = trainer._weights[stage]
                for name, value in unflatten(torch.from_numpy(after.weights), weights).items():
                    weights[name].copy_(value)
                trainer._optimizers[stage].reset()


def dealt(batches: Batches, number: int, count: int) -> Callable[[int, int, int], Tokens]:
    """The batches of one of `count` replicas."""
    return lambda epoch, step, index: batches(epoch, step, count * index + number)
