"""`iota explain` of an owner: its workers, and what it is paid for them, as text for a person. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from iota.console.counts import counted
from iota.console.redaction import printable
from iota.protocol.member_records import MemberRecord
from iota.protocol.messages import AuditKind, Outcome
from iota.swarm.explanation import UNIT, audited, ban_lines, earlier, pay_states, weight_lines
from iota.swarm.members import state_of
from validator.core.vesting import WorkState

_SHOWN = 8
"""Epochs of pay that are shown, each the newest."""


def workers_of(
    owner: str,
    members: Iterable[dict[str, Any]],
    names: Mapping[str, str],
    records: Sequence[MemberRecord] = (),
) -> list[str]:
    """Printable lines on the certified workers of `owner` among a status' members; empty without any.

    Args:
        records: those of the owner's hotkeys, where its pay, audits, weight and bans are to be told too.
    """
    found = [row for row in members if row["owner"] == owner and row["hotkey"] != owner]
    if not found:
        return []
    lines = [f"{owner} has {counted(len(found), 'worker')} in this run:"]
    for row in found:
        name = f" ({names[row['hotkey']]})" if row["hotkey"] in names else ""
        lines.append(
            f"  {row['hotkey']}{name}, stage {row['stage']}: {state_of(row, {}, ended=False)};"
            f" {counted(row['tokens'], 'token')}, {counted(row['receipts'], 'receipt')}"
        )
    if records:
        lines += ["", *_audits(records), "", *_pay(records), ""]
        longest = max(records, key=lambda record: len(record.weights))  # others joined later
        paid = longest.model_copy(update={"hotkey": owner})
        lines += [*weight_lines(paid, names), *ban_lines(paid, names, "")]
    return [printable(line) for line in lines]


def _audits(records: Iterable[MemberRecord]) -> Iterator[str]:
    of: defaultdict[AuditKind, Counter[Outcome]] = defaultdict(Counter)
    for record in records:
        for kind, outcomes in record.audits.items():
            of[kind] += Counter(outcomes)
    yield f"audits of its workers: {audited(of) or 'no verdict yet'}"


def _pay(records: Iterable[MemberRecord]) -> Iterator[str]:
    """The work of all its workers by epoch and by what became of it."""
    of: defaultdict[int, Counter[WorkState]] = defaultdict(Counter)
    for record in records:
        for work, state, _ in pay_states(record):
            of[work.epoch][state] += work.backward
    if not of:
        yield "pay: none yet"
        return
    yield f"pay for its workers, by the public verdicts, {UNIT}:"
    yield from earlier(len(of), _SHOWN, len(of))
    for epoch in sorted(of)[-_SHOWN:]:
        yield f"  epoch {epoch}: {', '.join(f'{of[epoch][state]} {state}' for state in WorkState)}"
