"""The content of a simulated op's receipt: of the form of a real one, without values behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iota.protocol.fingerprints import Fingerprint
from iota.protocol.frames import Direction
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import Beginning, Commitment, OpKind, SignedHeader, StepUpdate, counted_digest
from iota.simulate.names import digest
from iota.spec import RunSpec
from miner.core.schedule import Op


def op_fields(spec: RunSpec, stage: int, op: Op, arrived: Mapping[Direction, SignedHeader]) -> dict[str, Any]:
    """The fields of an op's receipt but for name, times and device. `arrived` are its microbatch's frames."""
    fields: dict[str, Any] = {"stage": stage, "version": op.version}
    if op.kind is OpKind.STEP:
        update = StepUpdate(
            gradient_norm=1.0, counted=counted_digest(op.counted), learning_rate=op.learning_rate
        )
        return {**fields, "output": update.counted, "update": update}
    wanted = [Direction.FORWARD] if stage > 0 else []
    wanted += [Direction.BACKWARD] if op.kind is OpKind.BACKWARD else []
    return {
        **fields,
        "output": digest(stage, op.key),
        "inputs": tuple(arrived[direction] for direction in wanted),
        "loss": 1.0 if op.kind in (OpKind.LOSS, OpKind.EVAL) else None,
        "tokens": spec.data.tokens,
    }


def commit_fields(spec: RunSpec, stage: int, epoch: int, version: int, joined: int) -> dict[str, Any]:
    """The fields of the receipt of a COMMIT, likewise, by a replica that joined at step `joined`."""
    shows = spec.outer.codec.has_feedback and version == spec.schedule.steps and version != joined
    made = Commitment(
        weights=digest("weights", stage, epoch, version),
        moments=digest("moments", stage, epoch, version),
        before=digest("before", stage, epoch, version) if spec.has_before(version, joined) else EMPTY,
        feedback=digest("feedback", stage, epoch) if shows else EMPTY,
        beginning=_beginning(stage, epoch) if version == joined else None,
    )
    return {"stage": stage, "version": version, "output": made.root, "commitment": made}


def _beginning(stage: int, epoch: int) -> Beginning:
    parts = {name: digest("fingerprint", name, stage, epoch) for name in Fingerprint.model_fields}
    return Beginning(rest=digest("rest", stage, epoch), fingerprint=Fingerprint(**parts))
