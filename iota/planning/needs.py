"""The memory and the disk that one replica of a stage needs: they follow from the spec. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from iota.codec.shapes import payload_size
from iota.model.graph_sizes import Kept, kept_bytes
from iota.model.layout import converted_names, count, run_shapes
from iota.model.moment_layout import moment_bytes
from iota.objects import delta_part_bytes, snapshot_bytes, stage_feedback_bytes
from iota.settings import Activations
from iota.settings.kinds import format_bytes
from iota.spec import Pipeline, RunSpec

EPOCHS_KEPT: Final = 3
"""Epochs whose frames and bases are on a disk at once: in training, under audit, being deleted. With overlap
there is one more, which is being merged."""
CACHE_BYTES: Final = 1 << 30
"""Disk for cached blocks of the data shards (1 GiB)."""
STATE_COPIES: Final = 2
"""Copies of a state in main memory at once: one is hashed and written to the disk while the next is taken."""
RECEIPT_BYTES: Final = 1700
"""Of one receipt on disk: a middle stage's took 1,630 with the headers of their inputs (`nano-20m`)."""
_FP32: Final = 4


@dataclass(frozen=True)
class Needs:
    """What one replica needs, in bytes. Graphs are estimates, exact to some tens of per cent."""

    stage: int
    parameters: int
    weights: int
    """The weight versions that are in use at once, and their copies in the dtype in which ops use them."""
    gradients: int
    """A gradient sum for each step that is open; one parameter's own gradient at a time is added to it."""
    moments: int
    kept: Mapping[Activations, Kept]
    """What each activation policy keeps of a microbatch."""
    graphs: int
    """Graphs that are kept at once: the credit; the last stage keeps one."""
    loading: int
    """Main memory for a base while it is loaded or merged: the old and the new one. With overlap these are
    on the disk alone, and it is for a start: the one before, the one that is made, and its state."""
    copies: int
    """Main memory for copies of the state on their way to the disk."""
    snapshots: int
    """Disk for the snapshots that audits may ask for, of two epochs, each with one that is being written; of
    three with overlap, each with the start that a restart needs."""
    frames: int
    """Disk for the frames that the ops read and sent, which audits may ask for."""
    bases: int
    deltas: int
    """Disk for the encoded pseudo-gradient, of which there are two with overlap, and for the error feedback,
    which audits may ask for."""
    receipts: int
    """Of the whole run."""
    cache: int
    compiled: bool
    """Whether layers are compiled, as on CUDA, and so keep less."""

    @property
    def memory(self) -> int:
        """Memory of the device, with every graph kept."""
        return self.memory_of(Activations.KEEP)

    @property
    def memory_recomputing(self) -> int:
        """Memory of the device with one layer's graph at a time: what a stage runs in without host memory."""
        return self.memory_of(Activations.RECOMPUTE)

    def memory_of(self, policy: Activations) -> int:
        """Memory of the device under an activation policy; not of AUTO."""
        kept = self.kept[policy]
        return self.weights + self.gradients + self.moments + self.graphs * kept.graph + kept.working

    @property
    def hosted(self) -> int:
        """Main memory beside the device's and what is offloaded."""
        return self.loading + self.copies

    @property
    def disk(self) -> int:
        """Disk of the whole data directory."""
        return self.snapshots + self.frames + self.bases + self.deltas + self.receipts + self.cache


def stage_needs(spec: RunSpec, stage: int, *, compiled: bool = False) -> Needs:
    """The needs of a replica of `stage`; compiled layers keep less between forward and backward."""
    shapes = run_shapes(spec, stage)
    parameters = count(shapes)
    versions = 2 if spec.schedule.pipeline is Pipeline.DELAYED else 1
    computed = 2 if spec.precision.computes_bf16 else 4
    routed = spec.routed
    last = stage == spec.last_stage
    ends = (stage == 0) + last
    vectors = 2 if spec.outer.momentum else 1
    late, moments = int(spec.overlaps), moment_bytes(spec.optimizer, shapes)
    start = 3 * spec.precision.weight_bytes * parameters + moments
    sides = 2 - ends if spec.layout.stages > 1 else 0
    moved = sides * (2 * routed * spec.schedule.steps + spec.routed_heldout) * payload_size(spec)
    ops = (routed * (1 if last else 2) + 1) * spec.schedule.steps + spec.routed_heldout + spec.commitments
    return Needs(
        stage=stage,
        parameters=parameters,
        weights=versions * (spec.precision.weight_bytes * parameters + _converted_bytes(spec, stage)),
        gradients=versions * spec.optimizer.gradient_sums.bytes * parameters,
        moments=moments,
        kept=kept_bytes(spec, stage, computed, compiled=compiled),
        graphs=1 if last else min(spec.schedule.credit, routed),
        loading=start if late else 2 * vectors * _FP32 * parameters,
        copies=min(STATE_COPIES, spec.commitments) * snapshot_bytes(spec, stage),
        snapshots=(2 + late) * (spec.commitments + 1) * snapshot_bytes(spec, stage),
        frames=(EPOCHS_KEPT + late) * moved,
        bases=(EPOCHS_KEPT + late) * vectors * _FP32 * parameters,
        deltas=(1 + late) * sum(delta_part_bytes(spec, stage))
        + (EPOCHS_KEPT + late + 1) * stage_feedback_bytes(spec, stage),
        receipts=RECEIPT_BYTES * ops * spec.schedule.epochs,
        cache=CACHE_BYTES,
        compiled=compiled,
    )


def _converted_bytes(spec: RunSpec, stage: int) -> int:
    """Copies of a version's weights in the dtype in which ops use them."""
    precision, shapes = spec.precision, run_shapes(spec, stage)
    names = converted_names(spec, stage)
    return (4 if precision.holds_bf16 else 2) * count({name: shapes[name] for name in names})


def all_needs(spec: RunSpec, *, compiled: bool = False) -> list[Needs]:
    """The needs of a replica of each stage."""
    return [stage_needs(spec, stage, compiled=compiled) for stage in range(spec.layout.stages)]


def check_snapshot_bound(stages: Sequence[Needs], bound: int | None) -> None:
    """Refuse a `--snapshot-bytes` below the needs of each of `stages`; None, where it was not given, fits.

    Raises:
        ValueError: the snapshots of two epochs do not fit: of the one in training and the one in audit.
    """
    least = min(stages, key=lambda needs: needs.snapshots)
    if bound is not None and bound < least.snapshots:
        raise ValueError(
            f"the snapshots that audits may ask for need {least.snapshots / 2**30:.2f} GiB at stage"
            f" {least.stage}, and --snapshot-bytes is {format_bytes(bound)}: give"
            f" {-(-least.snapshots // 2**20)}MiB or more, or leave it out"
        )
