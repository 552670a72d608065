"""A two-stage run of some 20,000 parameters for unit tests of the numerics."""

from __future__ import annotations

from typing import Any

from iota.spec import RunSpec


def small_spec(**changes: Any) -> RunSpec:
    """`changes` replace whole sections, except `schedule` and `boundary`, whose fields they update."""
    model = {"vocab_size": 50, "hidden_size": 32, "layers": 3, "heads": 4, "kv_heads": 2, "ffn_size": 48}
    spec: dict[str, Any] = {
        "model": model,
        "layout": {"cuts": [1, 2]},
        "boundary": {"codec": "resbm-anchor", "ratio": 4, "anchor_rank": 4},
        "data": {"manifest": "0" * 64, "sequence_length": 8, "sequences": 2},
        "schedule": {"epochs": 1, "steps": 4, "microbatches": 2, "pipeline": "sync"},
        "optimizer": {"lr": 1e-2},
        "outer": {},
    }
    for section, value in changes.items():
        spec[section] = spec[section] | value if section in ("schedule", "boundary") else value
    return RunSpec.model_validate(spec)
