"""The parts of a RunSpec: model, layout, boundary, data, schedule, optimizer, merge and audit."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from iota.spec.canonical import Frozen
from iota.spec.fields import Count, Fraction, Hex32, Positive


class WireDtype(StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class Pipeline(StrEnum):
    SYNC = "sync"
    DELAYED = "delayed"


class OptimizerKind(StrEnum):
    ADAMW = "adamw"
    MUON = "muon"
    SGD = "sgd"


class StateRule(StrEnum):
    RESET = "reset"
    CARRY = "carry"


class Decay(StrEnum):
    CONSTANT = "constant"
    COSINE = "cosine"


class ComputeDtype(StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"


class ModelSpec(Frozen):
    """The shape of a Llama: RMSNorm, RoPE, grouped-query attention, SwiGLU, untied head."""

    vocab_size: Positive
    hidden_size: Positive
    """d, the width of the residual stream."""
    layers: Positive
    heads: Positive
    kv_heads: Positive
    ffn_size: Positive
    rope_theta: float = Field(500_000.0, gt=0)
    norm_eps: float = Field(1e-5, gt=0)
    init_std: float = Field(0.02, gt=0)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


class LayoutSpec(Frozen):
    """Where the model is cut, and how many replicas each stage is planned with."""

    cuts: tuple[Positive, ...] = Field(min_length=1, max_length=1024)
    """Layers of each stage, in order."""
    replicas: Positive = 1

    @property
    def stages(self) -> int:
        return len(self.cuts)


class BoundarySpec(Frozen):
    """The codec between two stages."""

    codec: str = Field("resbm-anchor", pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    """A name that `iota.codec` knows; `iota.codec.shapes.boundary_width` refuses another."""
    ratio: Positive = 16
    """d / k: how many times narrower the boundary is than the residual stream."""
    wire: WireDtype = WireDtype.BF16
    hidden_ratio: float = Field(1.0, gt=0, le=8)
    """Hidden width of the codec's two-layer maps, in units of k (at least 32 wide)."""
    anchor_rank: Positive = 32
    """Rank of the factorised token anchor that each side of a boundary owns."""


class DataSpec(Frozen):
    """Which tokens, and how they are grouped."""

    manifest: Hex32
    """Id of the manifest of the tokenized shards."""
    sequence_length: Positive
    sequences: Positive
    """Sequences in one microbatch."""

    @property
    def tokens(self) -> int:
        """Tokens in one microbatch."""
        return self.sequence_length * self.sequences


class ScheduleSpec(Frozen):
    """How much is computed, and in what order."""

    epochs: Positive
    steps: Positive
    """H: inner steps in an epoch."""
    microbatches: Positive
    """M: microbatches in a step, over all routes."""
    pipeline: Pipeline = Pipeline.DELAYED
    credit: Positive = 8
    """Microbatches that a replica may hold between their forward and their backward."""


class OptimizerSpec(Frozen):
    """The inner optimizer and its learning rate."""

    kind: OptimizerKind = OptimizerKind.ADAMW
    lr: float = Field(gt=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    muon_momentum: Fraction = 0.95
    clip: float | None = Field(1.0, gt=0)
    """c of training.md: the stage's gradient norm is clipped to c·sqrt(P_stage / P_model)."""
    state: StateRule = StateRule.CARRY
    warmup_steps: Count = 0
    decay: Decay = Decay.CONSTANT
    final_lr: Fraction = 0.1
    """Learning rate at the last step of a cosine decay, as a share of `lr`."""


class OuterSpec(Frozen):
    """The merge: W_{e+1} = W_e - eta·(D + mu·m)."""

    eta: float = Field(1.0, gt=0)
    momentum: Fraction = 0.0
    momentum_warmup: Count = 20
    """Epochs over which mu rises linearly from 0 to `momentum`."""
    part_elements: Positive = 1 << 22
    """Elements in one partition of a stage's vector."""

    def momentum_at(self, epoch: int) -> float:
        """mu of the merge that ends `epoch`."""
        if self.momentum_warmup == 0:
            return self.momentum
        return self.momentum * min(1.0, epoch / self.momentum_warmup)


class AuditSpec(Frozen):
    """Published audit rates; every draw needs a verdict."""

    ops: Count = 2
    """Op audits per miner and epoch."""
    step_every: Positive = 5
    """One step audit per miner in so many epochs."""
    epoch_every: Positive = 50
    """One audit of a whole epoch per miner in so many epochs."""
    tolerance: float = Field(1e-2, gt=0)
    """Largest relative error of a sketch between different device classes."""
    window: Positive = 8
    """Epochs in which work and failed verdicts count towards the score."""
    burn: Fraction = 0.0
    """Share of the weight that goes to the subnet owner's UID."""
    seal_blocks: Positive = 2
    """k: the draw uses the block this many after the head at the seal."""
    deadline_s: float = Field(600.0, gt=0)
    """After this an epoch's audits are closed, with or without verdicts."""
