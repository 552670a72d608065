"""`iota explain`: a member's record as text for a person. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from iota.console.counts import counted
from iota.console.redaction import printable
from iota.protocol.member_records import (
    WITHDRAWN_BECAUSE,
    AuditResult,
    Charge,
    EpochWork,
    MemberRecord,
    MemberState,
    Withdrawal,
)
from iota.protocol.messages import AuditKind, Outcome, Role
from validator.core.vesting import Findings, Vesting, WorkState, ban_end, failed_epochs

_SHOWN = 8
"""Epochs, verdicts, weights and incidents that are shown, each the newest; `--json` has all."""
_REMEDIES = {
    MemberState.LOST: "see whether its process runs; start it again with the same --data-dir, and it goes on",
    MemberState.LEFT: "start it again with the same --data-dir to take part once more",
    MemberState.LATE: "see its log: the device or the line is slower than those of its stage, or it hangs",
    MemberState.LOADING: "wait; if it lasts, its log says what it fetches",
}
_CAUSES = {
    Withdrawal.LATE: "its device or its line was too slow at times: see `waiting` in its log",
    Withdrawal.ABSENT: "it was away at times: keep its process and its line to the orchestrator up",
    Withdrawal.WORD: (
        "what it said of frames was not so: see `cannot be used` in its log, its line to the store, its"
        " memory (`iota doctor`), and that its program is the published one"
    ),
    Withdrawal.FRAME: (
        "frames that it stored were wrong: check its memory, disk and device (`iota doctor`), and that its"
        " program is the published one"
    ),
}
UNIT = (
    "in microbatches whose backward was run (a third of the FLOPs each for forward, backward and weight"
    " gradient)"
)
"""What `EpochWork.backward` counts, and how it stands for pay."""


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
        lines += ["", *_work(record), "", *_audits(record, names), *ban_lines(record, names, whose), ""]
        lines += [*_pay(record), ""]
        lines += weight_lines(record, names)
    else:
        lines += ["", *_judged(record), "", _posted(record)]
    lines += ["", "what happened:", *_happened(record)]
    return [printable(line) for line in [*lines, "", *(f"to do: {text}" for text in _to_do(record))]]


def earlier(total: int, shown: int, kept: int) -> list[str]:
    """A line on what is not shown of `total` records, of which the member's record has `kept`; else none."""
    if total <= shown:
        return []
    of = "" if kept >= total else f", of which --json has {kept - shown}"
    return [f"  and {total - shown} earlier{of or ': --json'}"]


def _cut(kept: Sequence[object], shown: int = _SHOWN) -> list[str]:
    return earlier(len(kept), shown, len(kept))


def _work(record: MemberRecord) -> Iterator[str]:
    if not record.epochs:
        yield "work: none yet"
        return
    yield "work       forward backward  steps      tokens  of stage   in time  late  withdrawn"
    yield from _cut(record.epochs)
    for work in record.epochs[-_SHOWN:]:
        yield (
            f"  epoch {work.epoch:<3}{work.forward:7}{work.backward:9}{work.steps:7}{work.tokens:12,}"
            f"{_share(work):>10}{work.met:10}{work.missed:6}{work.withdrawn:11}"
        )
    met, missed = sum(w.met for w in record.epochs), sum(w.missed for w in record.epochs)
    yield (
        f"timeliness: {counted(met, 'op')} in time, {counted(missed, 'deadline')} missed,"
        f" {counted(record.withdrawn, 'microbatch')} withdrawn from it{_why_withdrawn(record)}"
    )
    yield f"in all: {counted(record.tokens, 'token')}, {counted(record.receipts, 'receipt')}"


def _why_withdrawn(record: MemberRecord) -> str:
    told = [f"{count} because {WITHDRAWN_BECAUSE[why]}" for why, count in record.withdrawals.items()]
    return f": {', '.join(told)}" if told else ""


def _share(work: EpochWork) -> str:
    return f"{work.tokens / work.stage_tokens:.0%}" if work.stage_tokens else "-"


def _audits(record: MemberRecord, names: Mapping[str, str]) -> Iterator[str]:
    if not record.audits:
        yield "audits: no verdict yet; the first come after the merge of its first epoch"
        return
    yield f"audits: {audited(record.audits)}"
    newest = [v for v in record.verdicts if v.outcome is not Outcome.PASS]
    fails = sum(verdict.outcome is Outcome.FAIL for verdict in newest)  # the newest of `record.failed`
    bad = [*record.failed[: len(record.failed) - fails], *newest]
    total = sum(count for found in record.audits.values() for count in _not_passed(found))
    yield from earlier(total, min(len(bad), _SHOWN), len(bad))
    for verdict in bad[-_SHOWN:]:
        who = _short(verdict.validator, names)
        yield f"  epoch {verdict.epoch}, {verdict.audit}: {verdict.outcome} by {who}: {verdict.reason or '-'}"


def audited(audits: Mapping[AuditKind, Mapping[Outcome, int]]) -> str:
    """Verdicts by kind and outcome, on one line."""
    return "; ".join(
        f"{kind}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}"
        for kind, outcomes in audits.items()
    )


def _not_passed(found: Mapping[Outcome, int]) -> Iterator[int]:
    return (count for outcome, count in found.items() if outcome is not Outcome.PASS)


def _pay(record: MemberRecord) -> Iterator[str]:
    """What the public verdicts make of the work in the window; each validator decides which of them count."""
    if not record.epochs:
        yield "pay: none yet"
        return
    whose = "" if record.owner == record.hotkey else " of its owner for it"
    yield f"pay{whose}, by the public verdicts, {UNIT}:"
    shown = min(_SHOWN, record.window)
    yield from _cut(record.epochs, shown)
    for work, state, settled in pay_states(record)[-shown:]:
        by = "until a segment passes" if settled is None else f"by a verdict of epoch {settled}"
        yield f"  epoch {work.epoch}: {counted(work.backward, 'microbatch')} {state} {by}"


def pay_states(record: MemberRecord) -> list[tuple[EpochWork, WorkState, int | None]]:
    """(work, what became of it, the epoch that settled it) of the epochs in the window, oldest first."""
    vesting = Vesting(_findings(record.settling, record.hotkey), record.epoch)
    return [(work, *vesting.of(work.epoch, record.hotkey)) for work in record.epochs[-record.window :]]


def _findings(results: tuple[AuditResult, ...], worker: str) -> Findings:
    def of(outcome: Outcome, kinds: tuple[AuditKind, ...] = tuple(AuditKind)) -> frozenset[tuple[int, str]]:
        return frozenset((r.epoch, worker) for r in results if r.outcome is outcome and r.audit in kinds)

    return Findings(
        of(Outcome.PASS, (AuditKind.SEGMENT,)),
        of(Outcome.UNDELIVERED),
        of(Outcome.FAIL),
        revoked=of(Outcome.REVOKED),
    )


def ban_lines(record: MemberRecord, names: Mapping[str, str], whose: str) -> Iterator[str]:
    """A line on each validator's bans of the record's owner, whom `whose` names."""
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


def weight_lines(record: MemberRecord, names: Mapping[str, str]) -> Iterator[str]:
    """Lines on the weights of the record's owner, to whom validators give them."""
    if not record.weights:
        yield "weight: no validator has reported one; they come once an epoch is audited"
        return
    whose = "" if record.owner == record.hotkey else f" of its owner {record.owner[:8]}, for all its workers"
    yield f"weight{whose}, as validators reported it:"
    yield from _cut(record.weights)
    for posted in record.weights[-_SHOWN:]:
        who = _short(posted.validator, names)
        yield f"  {posted.weight:.4f} by {who}, block {posted.block}, during epoch {posted.epoch}"


def _judged(record: MemberRecord) -> Iterator[str]:
    if not record.judged:
        yield "audits: none yet; they begin with the merge of the first epoch that it has a part in"
        return
    yield "audits      filed  passed  failed  undelivered  inconclusive"
    yield from _cut(record.judged)
    for work in record.judged[-_SHOWN:]:
        filed = work.passed + work.failed + work.undelivered + work.inconclusive
        yield (
            f"  epoch {work.epoch:<3}{filed:6}{work.passed:8}{work.failed:8}{work.undelivered:13}"
            f"{work.inconclusive:14}"
            f"{'' if work.done else '  more may come'}"
        )
    of = {outcome: sum(found.get(outcome, 0) for found in record.audits.values()) for outcome in Outcome}
    yield (
        f"in all: {counted(sum(of.values()), 'verdict')} filed: {of[Outcome.PASS]} passed,"
        f" {of[Outcome.FAIL]} failed, {of[Outcome.UNDELIVERED] + of[Outcome.REVOKED]} undelivered,"
        f" {of[Outcome.INCONCLUSIVE] + of[Outcome.UNSHOWN]} inconclusive"
    )


def _posted(record: MemberRecord) -> str:
    if record.posted is None:
        return "weights: it has reported none as set; the first come once an epoch is audited"
    posted = record.posted
    return (
        f"weights: of {counted(posted.miners, 'miner')} in block {posted.block}, during epoch {posted.epoch};"
        f" it uses {posted.compute_share:.1%} of its machine"
    )


def _happened(record: MemberRecord) -> list[str]:
    """The incidents; where they are too many the first, which is its join, and the newest."""
    lines = [f"  {_utc(each.at)}, epoch {each.epoch}: {each.text}" for each in record.incidents]
    cut = len(lines) - _SHOWN
    return lines if cut <= 0 else [lines[0], f"  and {cut} more: --json", *lines[1 - _SHOWN :]]


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
            "the ban is for a failed audit of another worker of its owner, or for evidence of one worker that"
            " in two epochs did not come in time (see disk and upload rate); it ends by itself"
        )
    lately = record.revocation is None and any(work.withdrawn for work in record.epochs[-_SHOWN:])
    causes = [_CAUSES[why] for why in record.withdrawals if lately]
    yield from causes
    if remedy is None and not banned and not causes:
        yield "nothing"


def _short(hotkey: str, names: Mapping[str, str]) -> str:
    return names.get(hotkey, hotkey[:8])
