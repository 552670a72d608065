"""What a receipt must be by the spec and its own content alone: kind, sizes, loss, and the frames it names.

The orchestrator refuses other receipts, and validators look again. Who gave the work to whom is not known
here.
"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from iota.codec.shapes import payload_shape
from iota.console.counts import counted
from iota.objects import part_count
from iota.protocol.frames import Direction
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import MAX_LOSS, OpKind, Receipt
from iota.spec import Pipeline, RunSpec
from iota.wire.frame import FrameHeader

_MIDDLE: Final = frozenset({OpKind.FORWARD, OpKind.BACKWARD, OpKind.STEP, OpKind.COMMIT})
_BACKWARDS: Final = "ended before it started: set the machine's clock"
_LAST: Final = frozenset({OpKind.LOSS, OpKind.EVAL, OpKind.STEP, OpKind.COMMIT})
_HELDOUT: Final = frozenset({OpKind.FORWARD, OpKind.EVAL})
"""Ops on held-out microbatches."""
_WITH_LOSS: Final = frozenset({OpKind.LOSS, OpKind.EVAL})


def form_fault(spec: RunSpec, stage: int, receipt: Receipt) -> str | None:
    """Why no op of a replica of `stage` gives such a receipt, as the end of a sentence; None for a good one.

    Its inputs are checked by `input_headers`.
    """
    if receipt.kind is OpKind.MERGE:
        return _merge_fault(spec, receipt)
    if receipt.stage != stage:
        return f"is of stage {receipt.stage}, yours is {stage}"
    if receipt.kind not in (_LAST if stage == spec.last_stage else _MIDDLE):
        return f"is of the kind {receipt.kind}, which stage {stage} does not have"
    if receipt.loss is not None:
        if receipt.kind not in _WITH_LOSS:
            return "names a loss, which only a LOSS or an EVAL of the last stage has"
        if not 0 <= receipt.loss <= MAX_LOSS:
            return f"names a loss of {receipt.loss:g}: at least 0 and at most {MAX_LOSS:g} nats a token"
    elif receipt.kind in _WITH_LOSS:
        return f"is of {'a LOSS' if receipt.kind is OpKind.LOSS else 'an EVAL'} and names none"
    if not 0 < receipt.started <= receipt.ended:
        return _BACKWARDS
    match receipt.kind:
        case OpKind.STEP:
            return _step_fault(receipt)
        case OpKind.COMMIT:
            return _commit_fault(spec, receipt)
        case _:
            return _op_fault(spec, receipt)


def _merge_fault(spec: RunSpec, receipt: Receipt) -> str | None:
    if receipt.stage > spec.last_stage or receipt.microbatch >= part_count(spec, receipt.stage):
        return "is of a merge of a part that the run does not have"
    trained = (receipt.step, receipt.attempt, receipt.version, receipt.tokens, receipt.inputs)
    states = (receipt.loss, receipt.update, receipt.commitment)
    if any(trained) or any(state is not None for state in states):
        return "is of a merge and names what only ops of training have"
    return None if 0 < receipt.started <= receipt.ended else _BACKWARDS


def _step_fault(receipt: Receipt) -> str | None:
    if receipt.update is None:
        return "is of a STEP and does not say what it applied"
    if receipt.output != receipt.update.counted:
        return "is of a STEP whose output is not its counted list"
    if receipt.commitment is not None or _on_microbatch(receipt):
        return "is of a STEP and names what only other ops have"
    return None


def _commit_fault(spec: RunSpec, receipt: Receipt) -> str | None:
    commitment = receipt.commitment
    if commitment is None:
        return "is of a COMMIT and commits to no state"
    if receipt.output != commitment.root:
        return "is of a COMMIT whose output is not the root of its state"
    if receipt.update is not None or _on_microbatch(receipt):
        return "is of a COMMIT and names what only other ops have"
    if receipt.step > spec.schedule.steps or receipt.version != receipt.step:
        return "is of a version that an epoch does not have"
    if commitment.before != EMPTY and spec.schedule.pipeline is Pipeline.SYNC:
        return "commits to weights of the version before, which a run of this pipeline does not use"
    if commitment.beginning is None:
        shown = spec.outer.codec.has_feedback and receipt.version == spec.schedule.steps
        if shown != (commitment.feedback != EMPTY):
            return "commits to error feedback at another version than an epoch's last, or not there"
    elif commitment.feedback != EMPTY and not spec.outer.codec.has_feedback:
        return "commits to error feedback, which a run of this codec does not have"
    return None


def _on_microbatch(receipt: Receipt) -> bool:
    return bool(receipt.inputs or receipt.tokens or receipt.microbatch or receipt.attempt)


def _op_fault(spec: RunSpec, receipt: Receipt) -> str | None:
    if receipt.step >= spec.schedule.steps or receipt.microbatch >= spec.planned(receipt.step):
        return "is of a microbatch that the run does not have"
    if spec.is_heldout(receipt.microbatch):
        if receipt.kind not in _HELDOUT:
            return f"is of the kind {receipt.kind}, and a held-out microbatch is not trained on"
    elif receipt.kind is OpKind.EVAL:
        return "is of the kind eval, and its microbatch is not held out"
    if receipt.tokens != spec.data.tokens:
        return f"names {counted(receipt.tokens, 'token')}: a microbatch has {spec.data.tokens}"
    if receipt.update is not None or receipt.commitment is not None:
        return "names a state, which only a STEP or a COMMIT has"
    return None


def input_headers(spec: RunSpec, receipt: Receipt) -> list[FrameHeader]:
    """Headers of the input frames that a receipt names, in order: activations, then gradient.

    Signatures are not checked.

    Raises:
        ValueError: they are not the inputs of its op; the message is the end of a sentence.
    """
    wanted = []
    if receipt.stage > 0 and receipt.kind not in (OpKind.STEP, OpKind.COMMIT, OpKind.MERGE):
        wanted.append((receipt.stage - 1, Direction.FORWARD))
    if receipt.kind is OpKind.BACKWARD:
        wanted.append((receipt.stage + 1, Direction.BACKWARD))
    try:
        found = [FrameHeader.model_validate_json(signed.header) for signed in receipt.inputs]
    except ValidationError:
        raise ValueError("names an input that is no frame") from None
    if [(header.name.stage, header.name.direction) for header in found] != wanted:
        raise ValueError("names other inputs than its op has")
    microbatch, kind = (receipt.epoch, receipt.step, receipt.microbatch), (spec.id, payload_shape(spec))
    for header in found:
        name = header.name
        if (name.epoch, name.step, name.microbatch) != microbatch:
            raise ValueError("names an input of another microbatch")
        if (header.run, header.shape) != kind or header.dtype is not spec.boundary.wire:
            raise ValueError("names an input that is no frame of this run")
    return found
