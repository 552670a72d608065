"""Which object keys a member may write, and how large. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from iota.protocol.messages import Direction, FrameName, Method, ObjectRequest, Role
from iota.protocol.problems import Problem, ProblemType
from iota.spec import RunSpec
from iota.wire.frame import frame_size
from orchestrator.coordinator import Coordinator, Member

_SLACK: Final = 1 << 20
_MANIFEST: Final = 64 << 20
_FRAME = re.compile(r"(\d{1,10})/(\d{1,10})/(\d{1,10})\.(\d{1,10})/(\d{1,10})\.([fb])")


@dataclass(frozen=True, slots=True)
class Access:
    """One presigned URL: what may be done with which key; `size` in bytes, PUT only."""

    method: Method
    key: str
    size: int = 0


def access_for(coordinator: Coordinator, member: Member, request: ObjectRequest) -> Access:
    """The access that a member asks for, if it may have it.

    Raises:
        Problem: FORBIDDEN, TOO_LARGE, or LATE for a frame of a microbatch that has ended.
    """
    spec, key = coordinator.spec, request.key
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
    most = own_size(spec, member, key)
    if most is None or not _assigned(coordinator, member, key):
        raise Problem(
            ProblemType.FORBIDDEN, f"{key} is not yours to write; a node writes only its own objects"
        )
    if not 0 < request.size <= most:
        raise Problem(ProblemType.TOO_LARGE, f"{key} may have 1 to {most} bytes, not {request.size}")
    return Access(Method.PUT, key, request.size)


def own_size(spec: RunSpec, member: Member, key: str) -> int | None:
    """Most bytes of the object `key` where its name is one of the member's own (frames apart), else None."""
    if member.role is not Role.MINER:
        return None
    own, stage = re.escape(member.hotkey), member.stage
    part_bytes = 4 * spec.outer.part_elements
    rules = (
        (rf"delta/\d{{1,10}}/{stage}/{own}/part-\d{{3,6}}", part_bytes + _SLACK),
        (rf"merged/\d{{1,10}}/\d{{1,5}}/part-\d{{3,6}}\.{own}", part_bytes + _SLACK),
        (rf"audit/\d{{1,10}}/{own}/\d{{1,10}}", _state_bytes(spec)),
        (rf"base/\d{{1,10}}/{stage}/part-\d{{3,6}}\.safetensors", 2 * part_bytes + _SLACK),
        (rf"base/\d{{1,10}}/{stage}/manifest\.json", _MANIFEST),
    )
    run, _, rest = key.partition("/")
    return next((size for rule, size in rules if run == spec.id and re.fullmatch(rule, rest)), None)


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


def _assigned(coordinator: Coordinator, member: Member, key: str) -> bool:
    """Bases are stored only by whom the coordinator chose; everything else that is one's own may be."""
    parts = key.split("/")
    return parts[1] != "base" or coordinator.may_store_base(member.hotkey, int(parts[2]))


def _state_bytes(spec: RunSpec) -> int:
    """An upper bound on (weights, two moments) of one stage in fp32, with its safetensors header."""
    m, d = spec.model, spec.model.hidden_size
    layer = 2 * d * d + 2 * d * m.kv_heads * m.head_dim + 3 * d * m.ffn_size + 2 * d
    codec = 8 * d * max(spec.boundary_width, 32) * max(1, round(spec.boundary.hidden_ratio))
    anchor = spec.boundary.anchor_rank * (m.vocab_size + d)
    ends = m.vocab_size * d + d
    return 12 * (max(spec.layout.cuts) * layer + 2 * (codec + anchor + ends)) + 16 * _SLACK
