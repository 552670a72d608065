"""Which object keys a member may write, and how large. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from iota.objects.grammar import validate_key
from iota.objects.names import (
    base_key,
    base_part_bytes,
    delta_key,
    merged_key,
    part_bytes,
    part_count,
    snapshot_bytes,
    snapshot_key,
)
from iota.protocol.messages import Direction, FrameName, Method, ObjectRequest, Role
from iota.protocol.problems import Problem, ProblemType
from iota.spec import RunSpec
from iota.wire.frame import frame_size
from orchestrator.coordinator import Coordinator, Member
from orchestrator.coordinator.state import Phase

_FRAME = re.compile(r"(\d{1,10})/(\d{1,10})/(\d{1,10})\.(\d{1,10})/(\d{1,10})\.([fb])")


class _Kind(Enum):
    DELTA = auto()
    MERGED = auto()
    BASE = auto()
    AUDIT = auto()


_PLACE = r"(?P<epoch>\d{1,10})/(?P<stage>\d{1,5})"
_PART = r"part-(?P<number>\d{3,6})"
_RULES: Final = {
    _Kind.DELTA: re.compile(rf"delta/{_PLACE}/[^/]+/{_PART}"),
    _Kind.MERGED: re.compile(rf"merged/{_PLACE}/{_PART}\.[^/]+"),
    _Kind.BASE: re.compile(rf"base/{_PLACE}/{_PART}\.safetensors"),
    _Kind.AUDIT: re.compile(r"audit/(?P<epoch>\d{1,10})/[^/]+/(?P<number>\d{1,10})"),
}


@dataclass(frozen=True, slots=True)
class Access:
    """One presigned URL: what may be done with which key; `size` in bytes, PUT only."""

    method: Method
    key: str
    size: int = 0


def access_for(coordinator: Coordinator, member: Member, request: ObjectRequest) -> Access:
    """The access that a member asks for, if it may have it.

    Raises:
        Problem: MALFORMED_BODY for a text that is no key; FORBIDDEN; TOO_LARGE; LATE for what was
            expected once: a frame of a microbatch that has ended, a part of a past epoch.
    """
    spec, key = coordinator.spec, request.key
    try:
        validate_key(key)
    except ValueError as error:
        raise Problem(ProblemType.MALFORMED_BODY, str(error)) from None
    if request.method is Method.GET:
        if key.startswith((f"{spec.id}/", f"data/{spec.data.manifest}/")):
            return Access(Method.GET, key)
        raise Problem(ProblemType.FORBIDDEN, f"{key} is not part of this run")
    run_frames = f"{spec.id}/frames/"
    if key.startswith(run_frames):
        size = _frame_size(coordinator, member, key, key.removeprefix(run_frames))
        if request.size != size:
            raise Problem(ProblemType.FORBIDDEN, f"this frame has {size} bytes, not {request.size}")
        return Access(Method.PUT, key, size)
    most = _most_bytes(coordinator, member, key)
    if not 0 < request.size <= most:
        raise Problem(ProblemType.TOO_LARGE, f"{key} may have 1 to {most} bytes, not {request.size}")
    return Access(Method.PUT, key, request.size)


def destination(spec: RunSpec, name: FrameName) -> int | None:
    """The stage that a frame goes to; None where it would leave the model."""
    towards = name.stage + (1 if name.direction is Direction.FORWARD else -1)
    return towards if 0 <= towards <= spec.last_stage else None


def _frame_size(coordinator: Coordinator, member: Member, key: str, rest: str) -> int:
    match = _FRAME.fullmatch(rest)
    numbers = [int(match[i]) for i in range(1, 6)] if match else []
    if match is None or max(numbers) >= 2**31:
        raise Problem(ProblemType.FORBIDDEN, f"{key} is no frame's key")
    epoch, step, microbatch, attempt, stage = numbers
    name = FrameName(
        epoch=epoch,
        step=step,
        microbatch=microbatch,
        attempt=attempt,
        stage=stage,
        direction=Direction(match[6]),
    )
    if name.key(coordinator.spec.id) != key or stage != member.stage:
        raise Problem(ProblemType.FORBIDDEN, f"{key} is not a frame of your stage")
    owner = coordinator.neighbour(epoch, step, microbatch, stage)
    if owner is None:
        raise Problem(ProblemType.LATE, "this microbatch is not open any more; finished work stays credited")
    if owner != member.hotkey:
        raise Problem(ProblemType.FORBIDDEN, f"{key} is not yours to write: another replica has it now")
    towards = destination(coordinator.spec, name)
    receiver = None if towards is None else coordinator.neighbour(epoch, step, microbatch, towards)
    if receiver is None:
        raise Problem(ProblemType.FORBIDDEN, f"{key} leads out of the model")
    return frame_size(coordinator.spec, name, member.hotkey, receiver)


def _most_bytes(coordinator: Coordinator, member: Member, key: str) -> int:
    """Most bytes of an object that the run expects from this member now.

    Raises:
        Problem: LATE where it was expected once, FORBIDDEN otherwise.
    """
    run = coordinator.state
    strange = Problem(ProblemType.FORBIDDEN, f"{key} is not yours to write now; a node writes only its own")
    _, _, rest = key.partition("/")
    for kind, rule in _RULES.items():
        match = rule.fullmatch(rest)
        if match is None or member.role is not Role.MINER:
            continue
        epoch, number = int(match["epoch"]), int(match["number"])
        stage = int(match["stage"]) if kind is not _Kind.AUDIT else member.stage
        if stage >= run.stages or _key(kind, run.spec, member, epoch, stage, number) != key:
            raise strange
        if epoch < run.epoch and (epoch not in run.epochs or run.epochs[epoch].audits_closed):
            raise Problem(ProblemType.LATE, f"epoch {epoch} is closed")
        if kind is _Kind.AUDIT:
            found = run.epochs.get(epoch)
            wanted = (member.hotkey, number)
            if found is None or wanted not in found.wanted or wanted in found.snapshots:
                raise strange
            return snapshot_bytes(run.spec)
        if number >= part_count(run.spec, stage):
            raise strange
        if kind is _Kind.BASE:
            if stage != member.stage or not coordinator.may_store_base(member.hotkey, epoch):
                raise strange
            return base_part_bytes(run.spec)
        if epoch < run.epoch:
            raise Problem(ProblemType.LATE, f"epoch {epoch} is merged already")
        if epoch > run.epoch or run.phase is not Phase.MERGING:
            raise strange
        if kind is _Kind.DELTA and stage != member.stage:
            raise strange
        if kind is _Kind.MERGED:
            parts = run.current.merges[stage].parts
            if number >= len(parts) or member.hotkey not in parts[number].mergers:
                raise strange
        return part_bytes(run.spec)
    raise strange


def _key(kind: _Kind, spec: RunSpec, member: Member, epoch: int, stage: int, number: int) -> str:
    """The one name of an object: a number in another spelling is another key."""
    match kind:
        case _Kind.DELTA:
            return delta_key(spec.id, epoch, stage, member.hotkey, number)
        case _Kind.MERGED:
            return merged_key(spec.id, epoch, stage, member.hotkey, number)
        case _Kind.BASE:
            return base_key(spec.id, epoch, stage, number)
        case _Kind.AUDIT:
            return snapshot_key(spec.id, epoch, member.hotkey, number)
