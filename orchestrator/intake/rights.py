"""Which objects a member may read and write, and up to which size. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from iota.objects import (
    BaseKey,
    DeltaKey,
    EvidenceKey,
    FrameKey,
    MergedKey,
    ServerObject,
    manifest_folder,
    max_bytes,
    parse_key,
    part_count,
    validate_key,
)
from iota.protocol.messages import Method, ObjectRequest, Role
from iota.protocol.problems import Problem, ProblemType
from iota.wire.frame import frame_size, leads_nowhere
from orchestrator.coordinator import Coordinator, Member
from orchestrator.coordinator.state import RunState

OwnObject = DeltaKey | MergedKey | BaseKey | EvidenceKey
"""Objects whose writer follows from the key and the state of the run; a frame's follows from the route."""


@dataclass(frozen=True, slots=True)
class Access:
    """The permission of a presigned URL: a method on a key. `size` is exact, in bytes (PUT only)."""

    method: Method
    key: str
    size: int = 0


def access_for(coordinator: Coordinator, member: Member, request: ObjectRequest) -> Access:
    """The access that a member requests, if it is allowed.

    Raises:
        Problem: MALFORMED_BODY for a text that is no key; FORBIDDEN; TOO_LARGE; LATE for an object that is
            not needed any more: a frame of a microbatch that has ended, a part of a past epoch.
    """
    spec, text = coordinator.spec, request.key
    try:
        validate_key(text)
    except ValueError as error:
        raise Problem(ProblemType.MALFORMED_BODY, str(error)) from None
    if request.method is Method.GET:
        check_reader(coordinator, member, text)
        return Access(Method.GET, text)
    key = parse_key(text)
    if key is None or isinstance(key, ServerObject) or key.run != spec.id or member.role is not Role.MINER:
        raise _not_yours(text)
    if isinstance(key, FrameKey):
        size = _frame_size(coordinator, member, key)
        if request.size != size:
            raise Problem(ProblemType.FORBIDDEN, f"this frame has {size} bytes, not {request.size}")
        return Access(Method.PUT, text, size)
    _check_writer(coordinator, member, key)
    limit = max_bytes(spec, key, member.stage)
    if not 0 < request.size <= limit:
        raise Problem(ProblemType.TOO_LARGE, f"{text} may have 1 to {limit} bytes, not {request.size}")
    return Access(Method.PUT, text, request.size)


def check_reader(coordinator: Coordinator, member: Member, text: str) -> None:
    """Raise Problem (FORBIDDEN) unless this member may read the object: the table in docs/protocol.md."""
    spec, key = coordinator.spec, parse_key(text)
    if text.startswith(f"{manifest_folder(spec.data.manifest)}/"):
        return
    if key is None or key.run != spec.id:
        raise Problem(ProblemType.FORBIDDEN, f"{text} is no object of this run that members read")
    if member.role is Role.VALIDATOR or not isinstance(key, FrameKey | EvidenceKey):
        return
    mine = (
        key.hotkey == member.hotkey
        if isinstance(key, EvidenceKey)
        else coordinator.concerns(member, key.name)
    )
    if not mine:
        whose = (
            "validators, its sender and its receiver"
            if isinstance(key, FrameKey)
            else "validators and its miner"
        )
        raise Problem(ProblemType.FORBIDDEN, f"{text} is read by {whose}")


def _frame_size(coordinator: Coordinator, member: Member, key: FrameKey) -> int:
    """Exact size of a frame that the member is to send now.

    Raises Problem: LATE where its microbatch has ended, FORBIDDEN where the member must not send it.
    """
    name = key.name
    at = (name.epoch, name.step, name.microbatch)
    if name.stage != member.stage:
        raise Problem(ProblemType.FORBIDDEN, f"{key} is not a frame of your stage")
    owner = coordinator.neighbour(*at, name.stage)
    if owner is None:
        raise Problem(ProblemType.LATE, "this microbatch is not open any more; finished work stays credited")
    if owner != member.hotkey:
        raise Problem(ProblemType.FORBIDDEN, f"{key} is not yours to write: another replica has it now")
    towards = name.direction.destination(name.stage, coordinator.state.stages)
    receiver = None if towards is None else coordinator.neighbour(*at, towards)
    if receiver is None or leads_nowhere(coordinator.spec, name):
        raise Problem(ProblemType.FORBIDDEN, f"{key} leads out of the model, or is a held-out gradient")
    return frame_size(coordinator.spec, name, member.hotkey, receiver)


def _check_writer(coordinator: Coordinator, member: Member, key: OwnObject) -> None:
    """Raise Problem (LATE or FORBIDDEN) unless the run expects this object from this member now."""
    run = coordinator.state
    if key.hotkey != member.hotkey or (not isinstance(key, EvidenceKey) and key.stage >= run.stages):
        raise _not_yours(str(key))
    if key.epoch < run.epoch and (key.epoch not in run.epochs or run.epochs[key.epoch].audits_closed):
        raise Problem(ProblemType.LATE, f"epoch {key.epoch} is closed")
    if not isinstance(key, EvidenceKey) and key.part >= part_count(run.spec, key.stage):
        raise _not_yours(str(key))
    if isinstance(key, DeltaKey | MergedKey) and key.epoch < run.epoch and not _is_awaited(run, key.epoch):
        raise Problem(ProblemType.LATE, f"epoch {key.epoch} is merged already")
    if _is_expected(coordinator, member, key):
        return
    if isinstance(key, EvidenceKey):  # a node that starts anew hears again what it has stored
        raise Problem(ProblemType.LATE, "nobody waits for this evidence: it is stored, or its time is over")
    raise _not_yours(str(key))


def _is_expected(coordinator: Coordinator, member: Member, key: OwnObject) -> bool:
    """Whether the member is the writer of this object by the table in `iota.objects`."""
    run = coordinator.state
    match key:
        case DeltaKey():
            return _is_awaited(run, key.epoch) and key.stage == member.stage
        case MergedKey():
            parts = run.merging_epoch().merges[key.stage].parts if key.epoch == run.merging else []
            return key.part < len(parts) and member.hotkey in parts[key.part].mergers
        case BaseKey():
            return key.stage == member.stage and coordinator.may_store_base(member.hotkey, key.epoch)
        case EvidenceKey():
            return (key.epoch, key.item, key.version) in member.owed
        case _:
            assert_never(key)


def _is_awaited(run: RunState, epoch: int) -> bool:
    """Whether pseudo-gradients of an epoch are stored now, or merged."""
    return epoch in run.epochs and run.epochs[epoch].is_awaited


def _not_yours(key: str) -> Problem:
    return Problem(ProblemType.FORBIDDEN, f"{key} is not yours to write now; a node writes only its own")
