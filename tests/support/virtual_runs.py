"""Specs for swarms in virtual time, where nothing computes."""

from __future__ import annotations

from iota.spec import (
    AuditSpec,
    BoundarySpec,
    DataSpec,
    LayoutSpec,
    ModelSpec,
    OptimizerSpec,
    OuterSpec,
    Overlap,
    Pipeline,
    RunSpec,
    ScheduleSpec,
)


def tiny_spec(
    *,
    stages: int,
    replicas: int,
    epochs: int,
    steps: int,
    microbatches: int,
    pipeline: Pipeline,
    credit: int,
    commit_every: int = 5,
    heldout: int = 0,
    overlap: Overlap = Overlap.NONE,
) -> RunSpec:
    return RunSpec(
        model=ModelSpec(
            vocab_size=16, hidden_size=8, layers=stages, heads=2, kv_heads=1, ffn_size=8, rope_theta=1e4
        ),
        layout=LayoutSpec(cuts=(1,) * stages, replicas=replicas),
        boundary=BoundarySpec(codec="identity"),
        data=DataSpec(manifest="0" * 64, sequence_length=4, sequences=1),
        schedule=ScheduleSpec(
            epochs=epochs,
            steps=steps,
            microbatches=microbatches,
            pipeline=pipeline,
            credit=credit,
            heldout=heldout,
        ),
        optimizer=OptimizerSpec(lr=0.1),
        outer=OuterSpec(overlap=overlap),
        audit=AuditSpec(commit_every=commit_every),
    )
