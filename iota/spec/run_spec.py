"""The RunSpec, which fixes what a run computes, and its id.

A spec is immutable: nodes with the same id compute the same values. Options of one machine are in
`iota.settings` instead.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import ClassVar, Final, Self

from pydantic import ConfigDict, Field, model_validator

from iota.spec.fields import Count, Positive
from iota.spec.parts import (
    AuditSpec,
    BoundarySpec,
    DataSpec,
    Decay,
    InitSpec,
    LayoutSpec,
    ModelSpec,
    OptimizerSpec,
    OuterSpec,
    Overlap,
    Pipeline,
    Precision,
    ScheduleSpec,
)
from iota.spec.versions import Versioned

SPEC_VERSION: Final = 9
"""Raise it with every field that is added to a spec, and mark the field with `Since`."""
OLDEST_SPEC: Final = 6
"""The earliest version that is read. Raise it to `SPEC_VERSION` with a field that is taken away."""


class RunSpec(Versioned):
    """The specification of one training job."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    oldest: ClassVar[int] = OLDEST_SPEC
    version: Positive = SPEC_VERSION
    name: str = Field("iota", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """A name for people."""
    model: ModelSpec
    layout: LayoutSpec
    boundary: BoundarySpec
    data: DataSpec
    schedule: ScheduleSpec
    optimizer: OptimizerSpec
    outer: OuterSpec
    audit: AuditSpec = AuditSpec()
    precision: Precision = Precision.FP32
    """Number formats: fp32 (TF32 stays off), bf16-master (fp32 weights, computed with in bf16), or bf16-sr
    (bf16 weights alone, which each step rounds stochastically)."""
    seed: Count = 0
    """Seed of the initial weights and of the order of samples."""
    init: InitSpec | None = None
    """Existing weights to start from; none: random ones that follow from the seed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sum(self.layout.cuts) != self.model.layers:
            raise ValueError(
                f"layout.cuts {list(self.layout.cuts)} adds up to {sum(self.layout.cuts)} and model.layers is"
                f" {self.model.layers}: give layer counts that add up, or layout.stages alone"
            )
        if self.schedule.microbatches < self.layout.replicas:
            raise ValueError(
                f"schedule.microbatches {self.schedule.microbatches} cannot feed layout.replicas"
                f" {self.layout.replicas}: give at least one to each"
            )
        eos = self.data.eos_id
        if eos is not None and eos >= self.model.vocab_size:
            raise ValueError(
                f"data.eos_id {eos} is outside the vocabulary of model.vocab_size {self.model.vocab_size}:"
                " give the id of the data's tokenizer"
            )
        if self.init is not None and len(self.init.digests) != self.layout.stages:
            raise ValueError(
                f"init.digests has the length {len(self.init.digests)} and layout.cuts {self.layout.stages}:"
                " make the spec anew with `iota spec --init`"
            )
        return self

    @cached_property
    def id(self) -> str:
        """BLAKE3 (hex) of the canonical form: the run's name in messages, keys and signatures."""
        return self.content_digest()

    @property
    def tokens(self) -> int:
        """Tokens that the whole run trains on."""
        schedule = self.schedule
        return schedule.epochs * schedule.steps * schedule.microbatches * self.data.tokens

    @property
    def last_stage(self) -> int:
        """Number of the last stage, which has the head and the loss."""
        return self.layout.stages - 1

    def learning_rate(self, epoch: int, step: int) -> float:
        """Learning rate of inner step `step` of `epoch`: linear warm-up, then constant or a cosine.

        It is a function of the global step alone, which counts on from the steps of earlier runs. The cosine
        ends at `final_lr` with the run's last step.
        """
        o = self.optimizer
        g, total = self.steps_before(epoch) + step, self.steps_before(self.schedule.epochs)
        if g < o.warmup_steps:
            return o.lr * (g + 1) / o.warmup_steps
        if o.decay is Decay.CONSTANT or total <= o.warmup_steps + 1:
            return o.lr
        progress = min(1.0, (g - o.warmup_steps) / (total - 1 - o.warmup_steps))
        return o.lr * (o.final_lr + (1 - o.final_lr) * 0.5 * (1 + math.cos(math.pi * progress)))

    def steps_before(self, epoch: int) -> int:
        """Steps that are done before `epoch`: those of the run's earlier epochs, and of earlier runs."""
        return self.optimizer.first_step + epoch * self.schedule.steps

    def sequences_before(self, epoch: int) -> int:
        """Place in the order of samples at which `epoch` begins (`iota.data.sample`)."""
        schedule = self.schedule
        each = schedule.steps * schedule.microbatches * self.data.sequences
        return self.data.first_sequence + epoch * each

    def anchor(self, epoch: int) -> int:
        """Number of the base that replicas begin `epoch` from: with overlap the newest is not there yet."""
        return max(epoch - 1, 0) if self.outer.overlap is Overlap.ONE_EPOCH else epoch

    def keeps_base(self, epoch: int) -> bool:
        """Whether the base of `epoch` stays in the store when the epoch's audits are closed."""
        every = self.schedule.keep_every
        return every > 0 and epoch > 0 and epoch % every == 0

    @property
    def routed(self) -> int:
        """Microbatches of a step that the plan gives to one replica, at most."""
        return -(-self.schedule.microbatches // self.layout.replicas)

    @property
    def routed_heldout(self) -> int:
        """Held-out microbatches of an epoch that the plan gives to one replica, at most."""
        return -(-self.schedule.heldout // self.layout.replicas)

    @property
    def heldout_share(self) -> float:
        """Part of an epoch's compute that its held-out microbatches are: each a third of a trained one."""
        trained = 3 * self.schedule.steps * self.schedule.microbatches
        return self.schedule.heldout / (trained + self.schedule.heldout)

    def planned(self, step: int) -> int:
        """Microbatches in the plan of `step`: in an epoch's first step held-out ones follow the others."""
        return self.schedule.microbatches + (self.schedule.heldout if step == 0 else 0)

    def is_heldout(self, microbatch: int) -> bool:
        """Whether a microbatch of this number is a held-out one: FORWARD and EVAL, and nothing is trained."""
        return self.schedule.microbatches <= microbatch < self.planned(0)

    @property
    def window_epochs(self) -> int:
        """Epochs of one window of audits."""
        return max(1, self.audit.window_steps // self.schedule.steps)

    @property
    def epoch_windows(self) -> int:
        """Windows of audits in one epoch, where it is longer than a window; else 1."""
        return max(1, self.schedule.steps // self.audit.window_steps)

    def is_committed(self, version: int, joined: int = 0) -> bool:
        """Whether a replica commits to its state at `version` of an epoch that it joined at step `joined`."""
        every, last = self.audit.commit_every, self.schedule.steps
        return version >= joined and (version in (joined, last) or version % every == 0)

    def committed_after(self, version: int) -> int | None:
        """The version after `version` that a replica commits to; None after an epoch's last."""
        every, last = self.audit.commit_every, self.schedule.steps
        return min(version - version % every + every, last) if version < last else None

    @property
    def commitments(self) -> int:
        """Versions of an epoch that a replica commits to, wherever it joins: at most so many."""
        return 1 + -(-self.schedule.steps // self.audit.commit_every)

    def has_before(self, version: int, joined: int = 0) -> bool:
        """Whether a state at `version` holds the weights of the version before, which its next step uses."""
        return self.weight_version(version, joined) < version

    def weight_version(self, step: int, joined: int = 0) -> int:
        """u(t) of training.md: the weight version that every op of `step` uses.

        `joined` is the step at which the replica joined the epoch, where its version is the base.
        """
        if self.schedule.pipeline is Pipeline.SYNC:
            return step
        return max(step - 1, joined)
