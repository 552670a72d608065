"""The parts of a RunSpec: model, layout, boundary, data, schedule, optimizer, outer step and audit."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, model_validator

from iota.spec.canonical import Frozen
from iota.spec.fields import Count, Fraction, Hex32, Positive
from iota.spec.versions import Since


class SpecPart(Frozen):
    """Base of the parts. The docstring under a field is its help, for flags and the spec's file."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class WireDtype(StrEnum):
    """Number format of frames: what the codec's output is rounded to."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


class Pipeline(StrEnum):
    """Which weight version a step uses: `RunSpec.weight_version`."""

    SYNC = "sync"
    DELAYED = "delayed"


class OptimizerKind(StrEnum):
    """Inner optimizers."""

    ADAMW = "adamw"
    MUON = "muon"
    SGD = "sgd"


class StateRule(StrEnum):
    """Whether the optimizer's moments are reset or carried over at an epoch's start."""

    RESET = "reset"
    CARRY = "carry"


class Decay(StrEnum):
    """Learning rate after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"


class Precision(StrEnum):
    """Number formats of the weights, and of activations and matrix products."""

    FP32 = "fp32"
    """fp32 throughout; TF32 stays off."""
    BF16_MASTER = "bf16-master"
    """fp32 weights, and a bf16 copy of them for the matrix products of each weight version."""
    BF16_SR = "bf16-sr"
    """bf16 weights alone: each STEP rounds them stochastically (`iota.compute.rounding`)."""

    @property
    def computes_bf16(self) -> bool:
        """Whether matrix products and their operands are bf16."""
        return self is not Precision.FP32

    @property
    def holds_bf16(self) -> bool:
        """Whether the weights of a replica are bf16, and no copy of them has more bits."""
        return self is Precision.BF16_SR

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight of a replica's state."""
        return 2 if self.holds_bf16 else 4


class Moments(StrEnum):
    """Number formats in which the optimizer keeps the moments of matrices (`iota.model.moment_layout`)."""

    FP32 = "fp32"
    BF16 = "bf16"
    """Rounded stochastically at each STEP."""
    INT8 = "int8"
    """8 bits in blocks with a scale each, rounded stochastically at each STEP."""


class GradientSums(StrEnum):
    """Number formats of the sum of a step's gradients."""

    FP32 = "fp32"
    BF16 = "bf16"
    """Rounded stochastically with each microbatch that is added."""

    @property
    def bytes(self) -> int:
        """Bytes of an element."""
        return 2 if self is GradientSums.BF16 else 4


class OuterCodec(StrEnum):
    """Formats of a replica's pseudo-gradient, on its way to the miners that merge it (docs/training.md)."""

    NONE = "none"
    """fp32."""
    INT8 = "int8"
    """8 bits an element and a scale a block, with error feedback."""
    SPARSE = "sparse"
    """The 64 largest of 4,096 elements, with 2 bits each, with error feedback (SparseLoCo)."""

    @property
    def has_feedback(self) -> bool:
        """Whether a replica keeps what it has not sent, and adds it to its next pseudo-gradient."""
        return self is not OuterCodec.NONE

    @property
    def feedback_bytes(self) -> int:
        """Bytes of an element of what a replica keeps: bf16, or nothing."""
        return 2 if self.has_feedback else 0


class Overlap(StrEnum):
    """What goes on while an epoch is merged (docs/training.md, "Overlap")."""

    NONE = "none"
    """Nothing: the next epoch begins with the merged base."""
    ONE_EPOCH = "one_epoch"
    """The next epoch, from each replica's own start: what the others did is applied one epoch late."""


MAX_LAYERS: Final = 4096
"""Far more than a model has: who reads a spec lists the parameters of each layer."""


class RopeScaling(SpecPart):
    """The rotary scaling of Llama 3.1 and later (`llama3` in transformers); the defaults are Llama 3.2's.

    Waves longer than `original_positions / low_freq_factor` positions become `factor` times longer, those
    shorter than `original_positions / high_freq_factor` stay; between, one passes into the other.
    """

    factor: float = Field(32.0, ge=1, le=1024)
    """How many times longer the longest rotary waves become (32 in Llama 3.2, 8 in 3.1); none: no scaling."""
    low_freq_factor: float = Field(1.0, gt=0, le=1024)
    """Rotary waves that fit into the original positions fewer times than this are scaled in full."""
    high_freq_factor: float = Field(4.0, gt=0, le=1024)
    """Rotary waves that fit into the original positions more often than this are not scaled."""
    original_positions: Annotated[Positive, Field(lt=2**31)] = 8192
    """Positions that the model was trained on before its rotary waves were scaled."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"model.rope_scaling.high_freq_factor {self.high_freq_factor:g} is not above"
                f" model.rope_scaling.low_freq_factor {self.low_freq_factor:g}: raise it, or lower the other"
            )
        return self


class ModelSpec(SpecPart):
    """The shape of a Llama: RMSNorm, RoPE, grouped-query attention, SwiGLU, untied head."""

    vocab_size: Positive
    """Token ids; at least the tokenizer's."""
    hidden_size: Positive
    """d, the width of the residual stream."""
    layers: Annotated[Positive, Field(le=MAX_LAYERS)]
    """Layers of the whole model."""
    heads: Positive
    """Attention heads; they divide `hidden_size`."""
    kv_heads: Positive
    """Heads of keys and values; they divide `heads`."""
    ffn_size: Positive
    """Width inside the SwiGLU."""
    rope_theta: float = Field(500_000.0, gt=0)
    """Base of the rotary frequencies."""
    norm_eps: float = Field(1e-5, gt=0)
    """Epsilon of the RMS norms."""
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of initial matrices."""
    depth_scaled_init: Annotated[bool, Since(7, before=True)] = True
    """Whether attention's and the SwiGLU's output matrices begin smaller, by sqrt(2 x layers)."""
    rope_scaling: RopeScaling | None = None
    """Scaling of the rotary frequencies; none: they follow from `rope_theta` alone."""

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.heads

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"model.hidden_size {self.hidden_size} is not a multiple of model.heads {self.heads}:"
                " change one of them"
            )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"model.heads {self.heads} is not a multiple of model.kv_heads {self.kv_heads}:"
                " give kv_heads that divide them"
            )
        return self


class LayoutSpec(SpecPart):
    """Where the model is cut, and the planned number of replicas of each stage."""

    cuts: tuple[Positive, ...] = Field(min_length=1, max_length=1024)
    """Layers of each stage, in order."""
    replicas: Positive = 1
    """Miners a stage."""

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.cuts)


class BoundarySpec(SpecPart):
    """The codec of all boundaries, and the format of what crosses them."""

    codec: str = Field("resbm-anchor", pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    """Codec between stages: identity, resbm or resbm-anchor."""
    ratio: Positive = 16
    """d / k: how many times narrower the boundary is than the residual stream."""
    wire: WireDtype = WireDtype.BF16
    """Number format on the wire."""
    hidden_ratio: float = Field(1.0, gt=0, le=8)
    """Hidden width of the codec's two-layer maps, in units of k (at least 32 wide)."""
    anchor_rank: Positive = 32
    """Rank of the factorised token anchor that each side of a boundary owns."""


class DataSpec(SpecPart):
    """The training data, and the size of a microbatch."""

    manifest: Hex32
    """Id of the manifest of the tokenized shards."""
    sequence_length: Positive
    """Tokens in a sequence."""
    sequences: Positive
    """Sequences in a microbatch."""
    mask_documents: Annotated[bool, Since(7, before=False)] = False
    """Whether attention stays inside documents; else it spans the whole sequence (docs/training.md)."""
    eos_id: Annotated[Count | None, Since(7, before=None)] = None
    """Token id that separates documents: the tokenizer's EOS. None where they are not masked."""
    first_sequence: Annotated[Count, Since(8, before=0)] = 0
    """Place in the order of samples at which the run begins: those before it were read by earlier runs."""

    @property
    def tokens(self) -> int:
        """Tokens in one microbatch."""
        return self.sequence_length * self.sequences

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mask_documents != (self.eos_id is not None):
            raise ValueError(
                "data.eos_id is given where data.mask_documents is true, and nowhere else: make the spec with"
                " `iota spec`, which takes it from the data"
            )
        return self


class ScheduleSpec(SpecPart):
    """The amount of work, and its order."""

    epochs: Positive
    """Epochs; each ends with a merge."""
    steps: Positive
    """H: optimizer steps in an epoch."""
    microbatches: Positive
    """M: microbatches in a step, over all routes."""
    pipeline: Pipeline = Pipeline.DELAYED
    """Weight versions: `sync`, or `delayed` with gradients one step late (docs/training.md)."""
    credit: Positive = 8
    """Microbatches that a replica may hold between their forward and their backward."""
    heldout: Count = 0
    """Held-out microbatches an epoch: the loss of its base (docs/training.md). 0: none."""
    keep_every: Annotated[Count, Since(8, before=0)] = 0
    """Every so-many-th base stays in the store, for later runs (docs/operators.md). 0: none beyond audits."""


class OptimizerSpec(SpecPart):
    """The inner optimizer and its learning rate."""

    kind: OptimizerKind = OptimizerKind.ADAMW
    """Inner optimizer."""
    lr: float = Field(gt=0)
    """Learning rate after the warm-up."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    """Decay of AdamW's two moments, a step."""
    eps: float = Field(1e-8, gt=0)
    """Epsilon of AdamW."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of the matrices, times the learning rate at each step."""
    muon_momentum: Fraction = 0.95
    """Momentum of Muon, a step."""
    clip: float | None = Field(1.0, gt=0)
    """c: a stage's gradient norm is clipped to c·sqrt(P_stage / P_model); none: no clip."""
    state: StateRule = StateRule.CARRY
    """Moments at an epoch's start: `carry` keeps them, `reset` sets them to zero."""
    warmup_steps: Count = 0
    """Steps over which the learning rate rises linearly."""
    decay: Decay = Decay.CONSTANT
    """Learning rate after the warm-up: `constant`, or `cosine` to the run's last step."""
    final_lr: Fraction = 0.1
    """Learning rate at the last step of a cosine decay, as a share of `lr`."""
    first_step: Annotated[Count, Since(8, before=0)] = 0
    """Steps that earlier runs have done, after which the learning rate goes on."""
    moments: Annotated[Moments, Since(7, before=Moments.FP32)] = Moments.FP32
    """Number format of the moments of matrices: fp32, bf16, or int8 in blocks (docs/training.md)."""
    gradient_sums: Annotated[GradientSums, Since(7, before=GradientSums.FP32)] = GradientSums.FP32
    """Number format of a step's sum of gradients: fp32 or bf16 (docs/training.md)."""


class OuterSpec(SpecPart):
    """The outer step: m <- mu·m + D, W_{e+1} = W_e - eta·(D + mu·m) (training.md, "The merge")."""

    eta: float = Field(1.0, gt=0)
    """Learning rate of the outer step."""
    momentum: Fraction = 0.0
    """mu: Nesterov momentum of the outer step, an epoch."""
    momentum_warmup: Count = 20
    """Epochs over which mu rises linearly from 0 to `momentum`."""
    part_elements: Positive = 1 << 22
    """Elements in one partition of a stage's vector."""
    codec: Annotated[OuterCodec, Since(8, before=OuterCodec.NONE)] = OuterCodec.NONE
    """Codec of pseudo-gradients: none, int8 (4x smaller), or sparse (141x smaller; docs/training.md)."""
    beta: Annotated[float, Field(ge=0, lt=1), Since(8, before=0.95)] = 0.95
    """Share of what a codec did not send that is added to the next epoch's pseudo-gradient."""
    overlap: Annotated[Overlap, Since(9, before=Overlap.NONE)] = Overlap.NONE
    """Whether the next epoch is trained while one is merged: none, or one_epoch, which applies merges an
    epoch late (docs/training.md)."""

    def momentum_at(self, epoch: int) -> float:
        """mu of the outer step that ends `epoch`."""
        if self.momentum_warmup == 0:
            return self.momentum
        return self.momentum * min(1.0, epoch / self.momentum_warmup)


class AuditSpec(SpecPart):
    """Audit rates and scoring rules; every draw must get a verdict."""

    ops: Count = 2
    """Op audits per miner and epoch, by all validators together, of ops that used the epoch's base."""
    merge_every: Positive = 200
    """A validator replays one in so many merged parts an epoch, at least one (docs/validator.md)."""
    commit_every: Positive = 5
    """A miner commits to its state at its first version of an epoch, at every so many-th and at the last. A
    segment lies between two commitments: it is audited as a whole."""
    window_steps: Positive = 40
    """Inner steps in which a segment of every miner is audited by some validator (docs/validator.md)."""
    extra_every: Positive = 20
    """Epochs between two further segments of a miner that some validator draws for itself, on average."""
    tolerance: float = Field(1e-2, gt=0)
    """Largest relative error of an output between device classes that no profile was measured for; a
    twentieth of it in fp32 where the weights are equal to the bit (docs/tolerance.md)."""
    window: Positive = 8
    """Epochs in which work and failed verdicts count towards the score."""
    burn: Fraction = 0.0
    """Share of the weight that goes to the uid of the subnet's owner."""
    seal_blocks: Positive = 2
    """The draw uses the block so many blocks after the head at the seal: its hash is then still unknown."""
    line: float = Field(12.5e6, gt=0)
    """Bytes a second of a miner's line, by which a pseudo-gradient has time; a quarter counts for snapshots,
    until the miner's pseudo-gradients show more."""
    deadline_s: float = Field(600.0, gt=0)
    """Seconds after the seal at which an epoch's audits are closed, with or without verdicts."""


class InitSpec(SpecPart):
    """Existing weights that the run starts from, instead of random ones."""

    source: str = Field(min_length=1, max_length=200)
    """Where the weights come from; for people."""
    digests: tuple[Hex32, ...] = Field(min_length=1, max_length=1024)
    """Digest of each stage's base of epoch 0, in order (`iota.outer.base`)."""
    largest: Annotated[float | None, Field(ge=0)] = None
    """Largest absolute value of a weight; none: unknown, and merges have no bounds (docs/training.md)."""
