"""Objects of a run in the store: one type for each kind, with its key, its size and its writer. Pure.

| kind | key | written by |
|---|---|---|
| `FrameKey` | `RUN/frames/EPOCH/STEP/MICROBATCH.ATTEMPT/STAGE.DIRECTION` | the stage's replica on the route |
| `DeltaKey` | `RUN/delta/EPOCH/STAGE/HOTKEY/part-NNN` | that replica, while its epoch merges |
| `MergedKey` | `RUN/merged/EPOCH/STAGE/part-NNN.HOTKEY` | a miner that was drawn to merge the part |
| `BaseKey` | `RUN/base/EPOCH/STAGE/part-NNN.safetensors` | the replica that was asked to store the base |
| `SnapshotKey` | `RUN/audit/EPOCH/HOTKEY/VERSION` | that miner, where a validator asked for it |

`orchestrator.intake.rights` holds requests against the last column.
"""

from iota.objects.grammar import validate_key, validate_prefix
from iota.objects.keys import (
    BaseKey,
    DeltaKey,
    FrameKey,
    MergedKey,
    RunObject,
    SnapshotKey,
    epoch_prefixes,
    manifest_folder,
    parse_key,
)
from iota.objects.sizes import max_bytes, part_count, part_sizes, snapshot_bytes

__all__ = [
    "BaseKey",
    "DeltaKey",
    "FrameKey",
    "MergedKey",
    "RunObject",
    "SnapshotKey",
    "epoch_prefixes",
    "manifest_folder",
    "max_bytes",
    "parse_key",
    "part_count",
    "part_sizes",
    "snapshot_bytes",
    "validate_key",
    "validate_prefix",
]
