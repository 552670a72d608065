"""Specs with fixed content, of which each is a sample of the format and gives its run an id."""

from __future__ import annotations

from iota.spec import (
    AuditSpec,
    BoundarySpec,
    DataSpec,
    Decay,
    GradientSums,
    InitSpec,
    LayoutSpec,
    ModelSpec,
    Moments,
    OptimizerKind,
    OptimizerSpec,
    OuterSpec,
    Pipeline,
    Precision,
    RopeScaling,
    RunSpec,
    ScheduleSpec,
    StateRule,
    WireDtype,
)

_DIGEST = "ab" * 32


def tiny_spec(wire: WireDtype = WireDtype.BF16) -> RunSpec:
    """Two stages of a few dozen parameters; what has a default is left out.

    Of version 6, so that its id, which stands in frames, outlives newer versions of the spec.
    """
    return RunSpec(
        version=6,
        model=ModelSpec(vocab_size=2, hidden_size=2, layers=2, heads=1, kv_heads=1, ffn_size=1),
        layout=LayoutSpec(cuts=(1, 1)),
        boundary=BoundarySpec(codec="identity", wire=wire),
        data=DataSpec(manifest="d" * 64, sequence_length=3, sequences=1),
        schedule=ScheduleSpec(epochs=2, steps=2, microbatches=2),
        optimizer=OptimizerSpec(lr=1e-3),
        outer=OuterSpec(momentum=0.9, part_elements=20),
    )


def full_spec() -> RunSpec:
    """A spec that leaves nothing to a default, with numbers whose text is not plain."""
    return RunSpec(
        name="full",
        model=ModelSpec(
            vocab_size=512, hidden_size=64, layers=3, heads=4, kv_heads=2, ffn_size=96,
            rope_theta=1e21, norm_eps=1e-7, init_std=0.005, depth_scaled_init=False,
            rope_scaling=RopeScaling(
                factor=8.5, low_freq_factor=1e-5, high_freq_factor=2, original_positions=100
            ),
        ),
        layout=LayoutSpec(cuts=(2, 1), replicas=2),
        boundary=BoundarySpec(
            codec="resbm", ratio=4, wire=WireDtype.INT8, hidden_ratio=1.5, anchor_rank=8
        ),
        data=DataSpec(
            manifest="c" * 64, sequence_length=128, sequences=4, mask_documents=True, eos_id=7,
            first_sequence=1000,
        ),
        schedule=ScheduleSpec(epochs=5, steps=7, microbatches=8, pipeline=Pipeline.SYNC, credit=2, heldout=3,
            keep_every=2,
        ),
        optimizer=OptimizerSpec(
            kind=OptimizerKind.MUON, lr=5e-3, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1,
            muon_momentum=0.9, clip=None, state=StateRule.RESET, warmup_steps=3, decay=Decay.COSINE,
            final_lr=0.05, moments=Moments.INT8, gradient_sums=GradientSums.BF16, first_step=70,
        ),
        outer=OuterSpec(eta=0.7, momentum=0.9, momentum_warmup=4, part_elements=1000),
        audit=AuditSpec(
            ops=3, merge_every=2, commit_every=2, window_steps=21, extra_every=4, tolerance=1e-5, window=3,
            burn=0.25, seal_blocks=1, line=1.5e6, deadline_s=30.5,
        ),
        precision=Precision.BF16_MASTER,
        seed=2**53 - 1,
    )  # fmt: skip


def started_spec() -> RunSpec:
    """A spec of a run that starts from existing weights."""
    init = InitSpec(source="acme/llama@0f", digests=(_DIGEST, "cd" * 32))
    return RunSpec.model_validate({**full_spec().model_dump(), "init": init})


SPECS = {"version 6": tiny_spec(), "full": full_spec(), "started": started_spec()}
