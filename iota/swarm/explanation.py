"""`iota explain`: a member's record as text for a person. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from iota.console.counts import counted
from iota.console.redaction import printable
from iota.protocol.member_records import AuditResult, Charge, EpochWork, MemberRecord, MemberState
from iota.protocol.messages import AuditKind, Outcome, Role
from iota.swarm.members import state_of
from validator.core.tasks import STEP_AUDITS
from validator.core.vesting import Findings, Vesting, ban_end, failed_epochs

_SHOWN = 8
"""Epochs, verdicts, weights and incidents that are shown, each the newest; `--json` has all."""
_REMEDIES = {
    MemberState.LOST: "see whether its process runs; start it again with the same --data-dir, and it goes on",
    MemberState.LEFT: "start it again with the same --data-dir to take part once more",
    MemberState.LATE: "see its log: the device or the line is slower than those of its stage, or it hangs",
    MemberState.LOADING: "wait; if it lasts, its log says what it fetches",
}


def explain(record: MemberRecord, names: Mapping[str, str]) -> list[str]:
    """The printable lines of `iota explain`. `names` gives a name to hotkeys that have one."""
    place = "validator" if record.role is Role.VALIDATOR else f"miner of stage {record.stage}"
    name = f" ({names[record.hotkey]})" if record.hotkey in names else ""
    now = f"{record.state}: {record.why}" + (f"; until {record.until}" if record.until else "")
    lines = [f"{record.hotkey}{name}, {place} of run {record.run[:12]}, on {record.device}"]
    if record.certificate is not None:
        made = _utc(record.certificate.serial / 1000)
        lines.append(f"a worker of {record.owner}, who is paid for it; certified {made}")
    lines.append(f"now: {now}")
    if record.heard is not None:
        lines.append(f"last heard: {_utc(record.heard)}")
    if record.says:
        lines.append(f"it says: {record.says}")
    if record.role is Role.MINER:
        whose = "" if record.owner == record.hotkey else "its owner "
        lines += ["", *_work(record), "", *_audits(record, names), *_bans(record, names, whose), ""]
        lines += [*_pay(record), ""]
        lines += _weights(record, names)
    else:
        lines += ["", *_judged(record), "", _posted(record)]
    lines += ["", "what happened:", *(_incident(record, n) for n in range(-_shown(record.incidents), 0))]
    return [printable(line) for line in [*lines, "", *(f"to do: {text}" for text in _to_do(record))]]


def workers_of(
    owner: str,
    members: Iterable[dict[str, Any]],
    names: Mapping[str, str],
    record: MemberRecord | None = None,
) -> list[str]:
    """Printable lines on the certified workers of `owner` among a status' members; empty without any.

    Args:
        record: that of one of the workers, where the owner's bans are to be told too.
    """
    found = [row for row in members if row["owner"] == owner and row["hotkey"] != owner]
    lines = [f"{owner} has {counted(len(found), 'worker')} in this run:"] if found else []
    for row in found:
        name = f" ({names[row['hotkey']]})" if row["hotkey"] in names else ""
        lines.append(
            f"  {row['hotkey']}{name}, stage {row['stage']}: {state_of(row, {}, ended=False)};"
            f" {counted(row['tokens'], 'token')}, {counted(row['receipts'], 'receipt')}"
        )
    if record is not None:
        lines += _bans(record, names, "")
    return [printable(line) for line in lines]


def _work(record: MemberRecord) -> Iterator[str]:
    if not record.epochs:
        yield "work: none yet"
        return
    yield "work       forward backward  steps      tokens  of stage   in time  late  withdrawn"
    for work in record.epochs[-_SHOWN:]:
        yield (
            f"  epoch {work.epoch:<3}{work.forward:7}{work.backward:9}{work.steps:7}{work.tokens:12,}"
            f"{_share(work):>10}{work.met:10}{work.missed:6}{work.withdrawn:11}"
        )
    met, missed = sum(w.met for w in record.epochs), sum(w.missed for w in record.epochs)
    yield (
        f"timeliness: {counted(met, 'op')} in time, {counted(missed, 'deadline')} missed,"
        f" {counted(record.withdrawn, 'microbatch')} withdrawn because it was late or lost"
    )
    yield f"in all: {counted(record.tokens, 'token')}, {counted(record.receipts, 'receipt')}"


def _share(work: EpochWork) -> str:
    return f"{work.tokens / work.stage_tokens:.0%}" if work.stage_tokens else "-"


def _audits(record: MemberRecord, names: Mapping[str, str]) -> Iterator[str]:
    if not record.audits:
        yield "audits: no verdict yet; the first come after the merge of its first epoch"
        return
    kinds = (
        f"{kind}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}"
        for kind, outcomes in record.audits.items()
    )
    yield f"audits: {'; '.join(kinds)}"
    bad = [v for v in record.verdicts if v.outcome is not Outcome.PASS] or list(record.failed)
    for verdict in bad[-_SHOWN:]:
        who = _short(verdict.validator, names)
        yield f"  epoch {verdict.epoch}, {verdict.audit}: {verdict.outcome} by {who}: {verdict.reason or '-'}"


def _pay(record: MemberRecord) -> Iterator[str]:
    """What the public verdicts make of the work in the window; each validator decides which of them count."""
    if not record.epochs:
        yield "pay: none yet"
        return
    yield "pay, by the public verdicts:"
    vesting = Vesting(_findings(record.settling, record.hotkey), record.epoch)
    for work in record.epochs[-min(_SHOWN, record.window) :]:
        state, settled = vesting.of(work.epoch, record.hotkey)
        by = "until a STEP audit passes" if settled is None else f"by a verdict of epoch {settled}"
        yield f"  epoch {work.epoch}: {counted(work.backward, 'backward')} {state} {by}"


def _findings(results: tuple[AuditResult, ...], worker: str) -> Findings:
    def of(outcome: Outcome, kinds: tuple[AuditKind, ...] = tuple(AuditKind)) -> frozenset[tuple[int, str]]:
        return frozenset((r.epoch, worker) for r in results if r.outcome is outcome and r.audit in kinds)

    return Findings(
        of(Outcome.PASS, STEP_AUDITS),
        of(Outcome.UNDELIVERED),
        of(Outcome.FAIL),
        revoked=of(Outcome.REVOKED),
    )


def _bans(record: MemberRecord, names: Mapping[str, str], whose: str) -> Iterator[str]:
    for validator, end in bans(record.charged, record.window).items():
        state = f"{whose}{'is' if record.epoch < end else 'was'} banned until epoch {end}".removeprefix("is ")
        ramp = f"then {counted(record.window, 'epoch')} on a ramp"
        yield f"  {state} at validator {_short(validator, names)}, {ramp}"


def bans(charged: Iterable[Charge], window: int) -> dict[str, int]:
    """validator -> first epoch after its bans of an owner, by the scoring rule (`validator.core.vesting`).

    Args:
        charged: verdicts on the miners of this owner.
    """
    of: dict[str, list[Charge]] = {}
    for charge in charged:
        of.setdefault(charge.validator, []).append(charge)
    found: dict[str, int] = {}
    for validator, charges in of.items():
        at = {
            outcome: frozenset((c.epoch, c.miner) for c in charges if c.outcome is outcome)
            for outcome in (Outcome.FAIL, Outcome.UNDELIVERED, Outcome.REVOKED)
        }
        findings = Findings(
            failed=at[Outcome.FAIL], undelivered=at[Outcome.UNDELIVERED], revoked=at[Outcome.REVOKED]
        )
        epochs = failed_epochs(findings, dict.fromkeys((c.miner for c in charges), ""), window).get("", ())
        if epochs:
            found[validator] = ban_end(epochs, window)
    return found


def _weights(record: MemberRecord, names: Mapping[str, str]) -> Iterator[str]:
    if not record.weights:
        yield "weight: no validator has reported one; they come once an epoch is audited"
        return
    yield "weight, as validators reported it:"
    for posted in record.weights[-_SHOWN:]:
        who = _short(posted.validator, names)
        yield f"  {posted.weight:.4f} by {who}, block {posted.block}, during epoch {posted.epoch}"


def _judged(record: MemberRecord) -> Iterator[str]:
    if not record.judged:
        yield "audits: none drawn yet; they begin with the merge of the first epoch that it has a part in"
        return
    yield "audits      drawn  passed  failed  undelivered  inconclusive  held-out loss"
    for work in record.judged[-_SHOWN:]:
        drawn = work.passed + work.failed + work.undelivered + work.inconclusive
        loss = "-" if work.heldout is None else f"{work.heldout:.4f}"
        yield (
            f"  epoch {work.epoch:<3}{drawn:6}{work.passed:8}{work.failed:8}{work.undelivered:13}"
            f"{work.inconclusive:14}{loss:>15}"
            f"{'' if work.done else '  not all filed yet'}"
        )
    of = {outcome: sum(found.get(outcome, 0) for found in record.audits.values()) for outcome in Outcome}
    yield (
        f"in all: {counted(sum(of.values()), 'audit')} drawn: {of[Outcome.PASS]} passed,"
        f" {of[Outcome.FAIL]} failed, {of[Outcome.UNDELIVERED] + of[Outcome.REVOKED]} undelivered,"
        f" {of[Outcome.INCONCLUSIVE]} inconclusive;"
        f" {counted(record.heldouts, 'held-out evaluation')}"
    )


def _posted(record: MemberRecord) -> str:
    if record.posted is None:
        return "weights: it has reported none as set; the first come once an epoch is audited"
    posted = record.posted
    return (
        f"weights: of {counted(posted.miners, 'miner')} in block {posted.block}, during epoch {posted.epoch};"
        f" it uses {posted.compute_share:.1%} of its machine"
    )


def _incident(record: MemberRecord, index: int) -> str:
    incident = record.incidents[index]
    return f"  {_utc(incident.at)}, epoch {incident.epoch}: {incident.text}"


def _utc(at: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at))} UTC"


def _to_do(record: MemberRecord) -> Iterator[str]:
    remedy = _REMEDIES.get(record.state)
    if record.revocation is not None:
        remedy = "make a new worker for the machine with `iota-miner certify`"
    banned = any(record.epoch < end for end in bans(record.charged, record.window).values())
    if remedy is not None:
        yield remedy
    if banned and record.failed:
        yield (
            "its results differ from what validators compute again: run `iota doctor`, check the device's"
            " memory and driver and the versions, and mine on; the ban ends by itself"
        )
    elif banned:
        yield (
            "the ban is for a failed audit of another worker of its owner, or for evidence that twice did not"
            " come in time (see disk and upload rate); it ends by itself"
        )
    if remedy is None and not banned:
        yield "nothing"


def _short(hotkey: str, names: Mapping[str, str]) -> str:
    return names.get(hotkey, hotkey[:8])


def _shown(values: tuple[object, ...]) -> int:
    return min(_SHOWN, len(values))
