"""The reference for `outer.overlap`: all replicas of all stages in one process, formula by formula."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from iota.outer.nesterov import OuterState
from iota.outer.partition import Vector
from iota.outer.pseudo_gradient import flatten
from iota.reference.pipeline import Batches, ReferenceTrainer
from iota.spec import RunSpec, StateRule


class OverlapReference:
    """Trains the run `spec` on the CPU, with `replicas` of each stage that count the same tokens.

    `bases[n][stage]` is base n, in fp32 as in every precision.
    """

    def __init__(self, spec: RunSpec, replicas: int) -> None:
        self.spec = spec
        self.trainers = [ReferenceTrainer(spec) for _ in range(replicas)]
        self.bases: list[list[OuterState]] = [self.trainers[0].bases()]
        self._sent: list[list[Vector] | None] = [None] * replicas
        """By replica and stage: its contribution to the merge of the epoch before, if it is in it."""

    def run_epoch(
        self, epoch: int, batches: Sequence[Batches], merged: Collection[int] | None = None
    ) -> None:
        """Run an epoch and its merge; `batches` are those of each replica.

        Only the contributions of the replicas `merged` (None: all of them) come in time. The others begin the
        next epoch with its anchor, zero moments and no feedback.
        """
        sent = [self._train(epoch, replica, batches[replica]) for replica in range(len(self.trainers))]
        given = sorted(range(len(self.trainers)) if merged is None else merged)
        after = []
        for stage, base in enumerate(self.bases[epoch]):
            mean = np.zeros_like(base.weights)
            for replica in given:
                mean = mean + np.float32(1 / len(given)) * sent[replica][stage]
            after.append(self._outer_step(epoch, base, mean))
        self.bases.append(after)
        self._sent = [sent[r] if r in given else None for r in range(len(sent))]

    def _train(self, epoch: int, replica: int, batches: Batches) -> list[Vector]:
        """One replica's epoch; returns its contribution, by stage."""
        trainer, before = self.trainers[replica], self._sent[replica]
        for stage, base in enumerate(self.bases[max(epoch - 1, 0)]):
            own = base if before is None else self._outer_step(epoch - 1, base, before[stage])
            trainer.set_weights(stage, own.weights)
        if before is None or self.spec.optimizer.state is StateRule.RESET:
            trainer.reset_moments()
        if before is None:
            trainer.forget_unsent()
        started = [flatten(state.weights) for state in trainer.states()]
        trainer.run_steps(epoch, batches)
        ended = [flatten(state.weights) for state in trainer.states()]
        return [
            trainer.sent(stage, (start - end).numpy())
            for stage, (start, end) in enumerate(zip(started, ended, strict=True))
        ]

    def _outer_step(self, epoch: int, base: OuterState, merged: Vector) -> OuterState:
        """W - eta (M + mu m) of a base (W, m'), with m = mu m' + M, each operation rounded to fp32."""
        mu, eta = np.float32(self.spec.outer.momentum_at(epoch)), np.float32(self.spec.outer.eta)
        momentum: Vector = np.asarray(mu * base.momentum + merged, np.float32)
        weights: Vector = np.asarray(base.weights - eta * (merged + mu * momentum), np.float32)
        return OuterState(weights, momentum)
