"""Checks frames and reports of an exchange: a member names only its own objects, within their sizes."""

from __future__ import annotations

from typing import Final

from iota.codec.shapes import payload_size
from iota.objects import BaseKey, DeltaKey, EvidenceKey, FrameKey, MergedKey, RunObject, max_bytes, part_count
from iota.protocol.frames import FrameNotice, StoredObject
from iota.protocol.messages import (
    BaseStored,
    Delta,
    EvidenceStored,
    EvidenceWanted,
    Merged,
    Report,
    ReportKind,
    Role,
)
from iota.protocol.problems import Problem, ProblemType
from iota.spec import RunSpec
from iota.wire.frame import leads_nowhere
from orchestrator.coordinator import Member
from orchestrator.coordinator.state import RunState

_OF_VALIDATORS: Final = frozenset(
    {
        ReportKind.REVEAL,
        ReportKind.EVIDENCE_WANTED,
        ReportKind.VERDICT,
        ReportKind.AUDITS_DONE,
        ReportKind.WEIGHTS,
    }
)
"""Reports that only validators send; all others are sent by miners only."""


def check_frames(spec: RunSpec, member: Member, frames: tuple[FrameNotice, ...]) -> None:
    """Raise Problem (FORBIDDEN) for a notice of a frame that this member cannot have stored."""
    for notice in frames:
        name = notice.name
        if member.role is not Role.MINER or name.stage != member.stage:
            raise Problem(ProblemType.FORBIDDEN, f"a frame of stage {name.stage} is not yours to announce")
        leaves = leads_nowhere(spec, name)
        limit = max_bytes(spec, FrameKey(spec.id, name), member.stage)
        if leaves or not payload_size(spec) < notice.size <= limit:
            raise Problem(
                ProblemType.FORBIDDEN, f"no frame of this run has {notice.size} bytes and this name"
            )


def check_reports(run: RunState, member: Member, reports: tuple[Report, ...]) -> None:
    """Raise Problem (FORBIDDEN) for a report of the other role, or with objects of another member."""
    for report in reports:
        if (report.kind in _OF_VALIDATORS) != (member.role is Role.VALIDATOR):
            raise Problem(ProblemType.FORBIDDEN, f"a {member.role} does not report {report.kind}")
        match report:
            case EvidenceWanted() if report.epoch > run.epoch or report.version > run.spec.schedule.steps:
                raise Problem(
                    ProblemType.FORBIDDEN, f"epoch {report.epoch} has no {report.item} {report.version}"
                )
        stored, keys = _objects(run.spec, member, report)
        named = tuple(one.key for one in stored) == tuple(map(str, keys))
        if not named or any(
            one.size > max_bytes(run.spec, key, member.stage) for one, key in zip(stored, keys, strict=True)
        ):
            raise Problem(
                ProblemType.FORBIDDEN, f"a report of {report.kind} names each of its objects, and no others"
            )


def _objects(
    spec: RunSpec, member: Member, report: Report
) -> tuple[tuple[StoredObject, ...], tuple[RunObject, ...]]:
    """The objects that a report names, and the keys that they must have."""
    run, me, stage = spec.id, member.hotkey, member.stage
    match report:
        case Delta():
            parts = range(part_count(spec, stage))
            return report.parts, tuple(DeltaKey(run, report.epoch, stage, me, n) for n in parts)
        case BaseStored():
            parts = range(part_count(spec, stage))
            return report.parts, tuple(BaseKey(run, report.epoch, stage, n, me) for n in parts)
        case Merged():
            fits = report.stage <= spec.last_stage and report.part < part_count(spec, report.stage)
            key = MergedKey(run, report.epoch, report.stage, report.part, me)
            return (report.stored,), (key,) if fits else ()
        case EvidenceStored():
            return (report.stored,), (EvidenceKey(run, report.epoch, me, report.item, report.version),)
        case _:
            return (), ()
