"""The content of a simulated op's receipt: of the form of a real one, without values behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iota.protocol.frames import Direction
from iota.protocol.receipts import SKETCH_SIZE, OpKind, SignedHeader, StepState, counted_digest
from iota.simulate.names import digest
from iota.spec import RunSpec
from miner.core.schedule import Op

_SKETCH = (0.0,) * SKETCH_SIZE


def op_fields(spec: RunSpec, stage: int, op: Op, arrived: Mapping[Direction, SignedHeader]) -> dict[str, Any]:
    """The fields of an op's receipt but for name, times and device. `arrived` are its microbatch's frames."""
    fields: dict[str, Any] = {"stage": stage, "version": op.version, "output": digest(stage, op.key)}
    if op.kind is OpKind.STEP:
        state = StepState(
            weights=fields["output"],
            moments=digest("moments", stage, op.key),
            change_sketch=_SKETCH,
            moments_sketch=_SKETCH,
            gradient_norm=1.0,
            counted=counted_digest(op.counted),
            learning_rate=op.learning_rate,
        )
        return {**fields, "state": state}
    wanted = [Direction.FORWARD] if stage > 0 else []
    wanted += [Direction.BACKWARD] if op.kind is OpKind.BACKWARD else []
    return {
        **fields,
        "inputs": tuple(arrived[direction] for direction in wanted),
        "sketch": _SKETCH,
        "loss": 1.0 if op.kind is OpKind.LOSS else None,
        "tokens": spec.data.tokens,
    }
