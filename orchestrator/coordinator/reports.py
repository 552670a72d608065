"""What each kind of report changes, and whether it changes anything."""

from __future__ import annotations

from typing import assert_never

from iota.protocol.frames import FrameNotice
from iota.protocol.messages import (
    AuditsDone,
    BadValue,
    BaseStored,
    Delta,
    EvidenceStored,
    EvidenceWanted,
    FrameMissing,
    Merged,
    Ready,
    Report,
    Reveal,
    Verdict,
    WeightsSet,
)
from orchestrator.coordinator import auditing, bases, evidence, frames, merge_parts, merging, words
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import RunState


def take_report(run: RunState, member: Member, report: Report, looked: words.Findings) -> None:
    """Apply one report of a member. `looked` is what the server found of the frames that it names."""
    match report:
        case Ready():
            bases.take_ready(run, member, report)
        case Delta():
            merging.take_delta(run, member, report)
        case Merged():
            merge_parts.take_merged(run, member, report)
        case BaseStored():
            bases.take_base(run, member, report)
        case BadValue():
            words.take_bad_value(run, member, report, looked)
        case FrameMissing():
            words.take_missing(run, member, report, looked)
        case EvidenceStored():
            evidence.take_stored(run, member, report)
        case Reveal():
            auditing.take_reveal(run, member, report)
        case EvidenceWanted():
            evidence.take_wanted(run, member, report)
        case Verdict():
            auditing.take_verdict(run, member, report)
        case AuditsDone():
            auditing.take_done(run, member, report)
        case WeightsSet():
            auditing.take_weights(run, member, report)
        case _:
            assert_never(report)


def is_new(run: RunState, member: Member, said: FrameNotice | Report) -> bool:
    """Whether this would change anything: without that it needs no entry in the journal."""
    match said:
        case FrameNotice():
            return frames.wanted_frame(run, member, said) is not None
        case BadValue():
            return words.bad_microbatch(run, member, said) is not None
        case FrameMissing():
            return words.missed_microbatch(run, member, said) is not None
        case Ready():
            return bases.is_new_claim(run, member, said)
        case BaseStored():
            return bases.is_wanted_base(run, member, said)
        case Delta():
            return merging.is_wanted_delta(run, member, said)
        case Merged():
            return merge_parts.wanted_part(run, member, said) is not None
        case EvidenceWanted():
            return evidence.is_new_wanted(run, member, said)
        case EvidenceStored():
            return evidence.is_new_stored(run, member, said)
        case WeightsSet():
            return auditing.is_new_weights(run, member, said)
        case _:
            return auditing.is_new_of(run, member, said)
