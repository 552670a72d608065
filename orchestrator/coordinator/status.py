"""The public state of a run, for dashboards and `iota status`."""

from __future__ import annotations

from typing import Any, Final

from iota.console.durations import duration
from iota.protocol.bridge import PAUSED
from iota.protocol.messages import Outcome
from iota.protocol.run_status import MAX_LOSSES
from orchestrator.coordinator import bridging, sealing
from orchestrator.coordinator.auditing import awaited
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merger_draws import draw_block
from orchestrator.coordinator.state import Phase, RunState

RECENT = 50
"""Verdicts and incidents in the status: a dashboard polls it, so it must stay small."""
SEAL_SAID_S: Final = 60.0
"""A seal that has waited so long for a block is named: five blocks of Bittensor."""


def public_losses(run: RunState, since: int | None = None) -> dict[str, Any]:
    """At most `MAX_LOSSES` losses from number `since` on; None: the newest. Fields of the status."""
    losses = run.totals.losses
    start = max(0, len(losses) - MAX_LOSSES) if since is None else min(since, len(losses))
    return {
        "losses_total": len(losses),
        "losses_from": start,
        "losses": losses[start : start + MAX_LOSSES],
    }


def public_status(run: RunState) -> dict[str, Any]:
    """The public state as JSON values but for the losses, for `GET /v1/status` and the metrics."""
    epoch = run.epochs.get(run.epoch)
    newest = run.newest_base
    heldout = sorted(run.totals.heldout.items())
    return {
        "run": run.spec.id,
        "name": run.spec.name,
        "phase": run.phase.value,
        "waiting": waiting_for(run),
        "epoch": run.epoch,
        "merging": run.merging,
        "epochs": run.spec.schedule.epochs,
        "step": epoch.closed_steps if epoch else 0,
        "steps": run.spec.schedule.steps,
        "open_microbatches": sum(s.open for s in epoch.open_steps()) if epoch else 0,
        "merges": list(run.totals.merges),
        "heldout": {str(number): found.loss for number, found in heldout},
        "heldout_error": {str(number): found.standard_error for number, found in heldout},
        "heldout_tokens": {str(number): found.tokens for number, found in heldout},
        "tokens": run.totals.tokens,
        "settled": run.totals.settled,
        "dropped": run.totals.dropped,
        "rerouted": run.totals.rerouted,
        "unfit": run.totals.unfit,
        "receipts": sum(m.receipts for m in run.members.values()),
        "audits": {
            "passed": run.audits.outcomes[Outcome.PASS],
            "failed": run.audits.outcomes[Outcome.FAIL],
            "undelivered": run.audits.outcomes[Outcome.UNDELIVERED] + run.audits.outcomes[Outcome.REVOKED],
            "inconclusive": run.audits.outcomes[Outcome.INCONCLUSIVE] + run.audits.outcomes[Outcome.UNSHOWN],
            "closed_epochs": len(run.audits.closed_epochs),
        },
        "verdicts": [
            {"validator": v, **verdict.model_dump(mode="json", exclude={"signature"})}
            for v, verdict in list(run.audits.verdicts)[-RECENT:]
        ],
        "weights": run.audits.weights,
        "validator_compute_share": run.audits.compute_share,
        "named": list(run.incidents.named)[-RECENT:],
        "internal_errors": list(run.incidents.internal),
        "bases": [
            base.model_dump(mode="json", include={"epoch", "stage", "digest"})
            for (e, _), base in sorted(run.bases.stored.items())
            if e == newest
        ],
        "members": [_member(run, m) for m in run.members.values()],
        "finished": run.run_end_sent,
        "block": run.head.block,
    }


def _member(run: RunState, member: Member) -> dict[str, Any]:
    return {
        "hotkey": member.hotkey,
        "owner": member.owner,
        "revoked": run.owners.is_revoked(member.owner, member.hotkey),
        "order": member.order,
        "role": member.role.value,
        "stage": member.stage,
        "live": member.live,
        "stalled": member.stalled,
        "base": member.ready_epoch,
        "tokens": member.tokens,
        "receipts": member.receipts,
        "seconds_per_microbatch": member.op_seconds,
        "withdrawn": member.withdrawn,
        "audits": dict(member.history.outcomes),
        "device": member.device,
        "addresses": list(member.addresses),
    }


def waiting_for(run: RunState) -> str | None:
    """A sentence on what the run waits for; None while it makes progress."""
    if run.phase is Phase.FINISHED:
        return None if run.run_end_sent else _last_audits(run)
    if run.store_away_since is not None:
        return "the object store does not answer the orchestrator: its operator must look after it"
    for stage in range(run.stages):
        live = [m for m in run.miners(stage) if m.live]
        if not live:
            return f"stage {stage} has no replica: start a miner, or start a lost one again"
        if all(m.stalled for m in live):
            return f"stage {stage} holds up the run: the work of its miners is overdue"
        if (0, stage) in run.bases.unmade:
            return f"the orchestrator makes base 0 of stage {stage} itself, before training begins"
        if run.phase is Phase.GATHERING and not any(run.holds_start(m) for m in live):
            return f"stage {stage} is loading its base"
    if run.phase is Phase.MERGING and run.merging is not None:
        return _merge_wait(run)
    if run.phase is Phase.GATHERING:
        return f"replicas are joining ({run.spec.layout.replicas} a stage are planned)"
    if not bridging.may_plan(run):
        return f"the operator has paused the run: `iota bridge set {PAUSED} false` lets it go on"
    return _seals(run)


def _seals(run: RunState) -> str | None:
    """What the seal of a merged epoch waits for, once that is long; None if none does."""
    waiting = [e for e in sealing.unsealed(run) if run.now > e.merged_at + SEAL_SAID_S]
    if not waiting:
        return None
    first, block = waiting[0], run.head.block
    return (
        f"epoch {first.epoch} cannot be sealed: the chain has shown no block after {block} for"
        f" {duration(run.now - first.merged_at)}; training goes on"
    )


def _merge_wait(run: RunState) -> str | None:
    """What a merge waits for beyond the replicas' pseudo-gradients and the mergers' copies, or None."""
    epoch = run.merging_epoch()
    if epoch.unassigned and not epoch.unfixed:
        return f"mergers are drawn by block {draw_block(run)}, the newest known one is {run.head.block}"
    for stage, part in epoch.unread:
        return (
            f"the orchestrator reads part {part} of the merge of stage {stage}, as soon as the store gives it"
        )
    for stage, part in epoch.disputed:
        return f"the orchestrator merges part {part} of stage {stage} itself, as soon as the store gives it"
    for _, stage in run.bases.unmade:
        return f"the orchestrator makes the next base of stage {stage} itself, as soon as the store gives it"
    for number, stage in run.bases.unkept:
        if number == run.spec.schedule.epochs:
            return (
                f"no replica stored the last base of stage {stage}, so the orchestrator makes and stores it"
            )
    return None


def _last_audits(run: RunState) -> str:
    """What a run waits for whose last merge is done: validators, each epoch until its deadline."""
    if waiting := sealing.unsealed(run):
        return f"all epochs are trained; epoch {waiting[0].epoch} is sealed with the next block of the chain"
    still = [e for e in run.epochs.values() if e.seal is not None and not e.audits_closed]
    if not still:
        return "the run ends"
    left = max(0.0, max(e.sealed_at for e in still) + run.spec.audit.deadline_s - run.now)
    late = sorted({hotkey[:8] for e in still for hotkey in awaited(run, e)})
    epochs = ", ".join(str(e.epoch) for e in still)
    who = f"validator {', '.join(late[:3])}" if late else "any validator"
    return f"all epochs are trained; {who} still audits epoch {epochs}, for {duration(left)} at most"
