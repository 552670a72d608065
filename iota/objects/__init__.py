"""Objects of a run in the object store: the key, the size and the writer of each kind. Pure.

| kind | key | written by |
|---|---|---|
| `FrameKey` | `RUN/frames/EPOCH/STEP/MICROBATCH.ATTEMPT/STAGE.DIRECTION` | the stage's replica on the route |
| `DeltaKey` | `RUN/delta/EPOCH/STAGE/HOTKEY/part-NNN` | that replica, while the epoch merges |
| `MergedKey` | `RUN/merged/EPOCH/STAGE/part-NNN.HOTKEY` | that miner, if it was drawn to merge the part |
| `BaseKey` | `RUN/base/EPOCH/STAGE/part-NNN.HOTKEY.safetensors` | that replica, if it was asked to |
| `EvidenceKey` | `RUN/audit/EPOCH/HOTKEY/ITEM/VERSION` | that miner, if a validator asked for it |
| `PlanKey` | `RUN/plan/EPOCH/STEP-ROOT.json` | the orchestrator |
| `SettledKey` | `RUN/merged/EPOCH/STAGE/part-NNN-DIGEST` | the orchestrator, where its mergers differed |

`orchestrator.intake.rights` checks requests against the last column.
"""

from iota.objects.delta_sizes import merged_sizes
from iota.objects.grammar import validate_key
from iota.objects.keys import (
    BaseKey,
    DeltaKey,
    EvidenceKey,
    FrameKey,
    MergedKey,
    PlanKey,
    RunObject,
    ServerObject,
    SettledKey,
    epoch_prefixes,
    manifest_folder,
    merge_prefixes,
    parse_key,
    plans_prefix,
    start_key,
    tokenizer_key,
)
from iota.objects.sizes import (
    delta_part_bytes,
    frames_bytes,
    largest_object,
    max_bytes,
    max_plan_bytes,
    merged_part_sizes,
    part_count,
    part_sizes,
    planned_frames,
    snapshot_bytes,
    stage_feedback_bytes,
)

__all__ = [
    "BaseKey",
    "DeltaKey",
    "EvidenceKey",
    "FrameKey",
    "MergedKey",
    "PlanKey",
    "RunObject",
    "ServerObject",
    "SettledKey",
    "delta_part_bytes",
    "epoch_prefixes",
    "frames_bytes",
    "largest_object",
    "manifest_folder",
    "max_bytes",
    "max_plan_bytes",
    "merge_prefixes",
    "merged_part_sizes",
    "merged_sizes",
    "parse_key",
    "part_count",
    "part_sizes",
    "planned_frames",
    "plans_prefix",
    "snapshot_bytes",
    "stage_feedback_bytes",
    "start_key",
    "tokenizer_key",
    "validate_key",
]
