"""One member's public record, and why it is in its state. Its cost is bounded, whatever the run's size."""

from __future__ import annotations

from itertools import product

from iota.console.counts import counted
from iota.console.durations import duration
from iota.protocol.member_records import (
    AuditResult,
    Charge,
    EpochAudits,
    EpochWork,
    Incident,
    MemberRecord,
    MemberState,
    PostedWeight,
    Withdrawal,
)
from iota.protocol.messages import AuditKind, Outcome, Role
from orchestrator.coordinator.history import History, Judged, Work, audits_of
from orchestrator.coordinator.lives import must_wait
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.own_starts import must_commit
from orchestrator.coordinator.state import Phase, RunState
from orchestrator.coordinator.status import waiting_for


def member_record(run: RunState, member: Member) -> MemberRecord:
    """The answer of `GET /v1/members/HOTKEY`."""
    history = member.history
    state, why, until = _state(run, member)
    return MemberRecord(
        run=run.spec.id,
        hotkey=member.hotkey,
        owner=member.owner,
        certificate=member.certificate,
        revocation=run.owners.revocation(run.spec.id, member),
        role=member.role,
        stage=member.stage,
        device=member.device,
        state=state,
        why=why,
        until=until,
        epoch=run.epoch,
        window=run.spec.audit.window,
        tokens=member.tokens,
        receipts=member.receipts,
        withdrawn=member.withdrawn,
        withdrawals={Withdrawal(why): count for why, count in history.withdrawals.items()},
        epochs=tuple(_work(run, member, work) for work in history.epochs()),
        audits=_audited(history),
        verdicts=tuple(map(AuditResult.model_validate_json, history.verdicts)),
        failed=tuple(map(AuditResult.model_validate_json, history.failed)),
        charged=tuple(map(Charge.model_validate_json, run.owners.charged.get(member.owner, ()))),
        settling=tuple(map(AuditResult.model_validate_json, history.settling)),
        weights=tuple(map(PostedWeight.model_validate_json, history.weights)),
        incidents=tuple(map(Incident.model_validate_json, history.incidents)),
        judged=tuple(_audits(judged) for judged in history.judged),
        posted=history.posted,
    )


def _audited(history: History) -> dict[AuditKind, dict[Outcome, int]]:
    found: dict[AuditKind, dict[Outcome, int]] = {}
    for kind, outcome in product(AuditKind, Outcome):
        if count := history.audits.get(audits_of(kind, outcome)):
            found.setdefault(kind, {})[outcome] = count
    return found


def _audits(judged: Judged) -> EpochAudits:
    return EpochAudits(
        epoch=judged.epoch,
        passed=judged.verdicts[Outcome.PASS],
        failed=judged.verdicts[Outcome.FAIL],
        undelivered=judged.verdicts[Outcome.UNDELIVERED] + judged.verdicts[Outcome.REVOKED],
        inconclusive=judged.verdicts[Outcome.INCONCLUSIVE] + judged.verdicts[Outcome.UNSHOWN],
        done=judged.done,
    )


def _work(run: RunState, member: Member, work: Work) -> EpochWork:
    return EpochWork(
        epoch=work.epoch,
        stage=member.stage,
        forward=work.forward,
        backward=work.backward,
        steps=work.steps,
        tokens=work.tokens,
        stage_tokens=run.totals.stage_tokens.get((work.epoch, member.stage), 0),
        met=work.met,
        missed=work.missed,
        withdrawn=work.withdrawn,
    )


def _state(run: RunState, member: Member) -> tuple[MemberState, str, str]:
    """(state, why, until)."""
    if run.owners.is_revoked(member.owner, member.hotkey):
        return MemberState.LEFT, "its owner revoked its key, and it is refused for the rest of the run", ""
    if member.left:
        return MemberState.LEFT, "it left the run by its own request", "it joins again"
    if not member.live:
        why = "it sent no request for longer than the silence limit, and its work went to others"
        return MemberState.LOST, why, "its next request"
    if run.run_end_sent:
        return MemberState.IDLE, "the run has ended", ""
    if member.role is Role.VALIDATOR:
        return _validator_state(run, member)
    if run.phase is Phase.FINISHED:
        return MemberState.IDLE, "the run has finished; the last audits may be open", "the end of the run"
    if member.stalled:
        why = "an op that was ready missed its deadline, so nothing new is planned for it"
        return MemberState.LATE, why, "its next receipt or stored frame"
    if member.ready_epoch < run.anchor:
        return MemberState.LOADING, f"it loads the base of epoch {run.anchor}", "it reports that base"
    if run.phase is Phase.MERGING and not run.spec.overlaps:
        return MemberState.IDLE, f"epoch {run.epoch} is being merged", f"epoch {run.epoch + 1} begins"
    if run.phase is Phase.TRAINING and member.joined is None and must_wait(run, member):
        why = f"it took the base anew too often within {counted(run.spec.audit.window, 'epoch')}"
        return MemberState.IDLE, why, f"epoch {run.epoch + 1} begins"
    if member.joined is None and must_commit(run, member):
        return (
            MemberState.WORKING,
            f"it ends epoch {run.epoch - 1}",
            f"its last COMMIT of epoch {run.epoch - 1}",
        )
    if run.phase is Phase.GATHERING:
        return MemberState.IDLE, waiting_for(run) or "the run gathers its replicas", "training begins"
    if member.pending:
        return MemberState.WORKING, f"{counted(len(member.pending), 'op')} ready to run", ""
    return (
        MemberState.IDLE,
        "none of its ops has its inputs: others work",
        "a neighbour's frame or the next plan",
    )


def _validator_state(run: RunState, member: Member) -> tuple[MemberState, str, str]:
    """State of a live validator: it works on sealed epochs that it has not said to be done with."""
    todo = [e for e in run.epochs.values() if e.seal is not None and not e.audits_closed]
    todo = [e for e in todo if member.hotkey not in e.done]
    if not todo:
        until = "the end of the run" if run.phase is Phase.FINISHED else f"the merge of epoch {run.epoch}"
        return MemberState.IDLE, "it has audited every epoch whose audits are open", until
    first = todo[0]
    more = f" ({len(todo) - 1} more wait)" if len(todo) > 1 else ""
    left = max(0.0, first.sealed_at + run.spec.audit.deadline_s - run.now)
    if member.hotkey not in first.links:
        assert first.seal is not None
        why = f"the audits of epoch {first.epoch} are drawn from block {first.seal.block}{more}"
        return MemberState.IDLE, why, f"it reveals its draw, in {duration(left)} at most"
    return MemberState.WORKING, f"it audits epoch {first.epoch}{more}", f"{duration(left)} from now at most"
