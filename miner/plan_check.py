"""Checks a plan before the replica acts on it."""

from __future__ import annotations

from itertools import pairwise

from iota.client.orchestrator import UntrustedAnswer
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.events import Delivered, Plan
from iota.protocol.messages import JoinReply
from iota.protocol.plans import PLAN_DOMAIN, PlanShare, allows_rate, signed_root
from iota.spec import RunSpec


def check_plan(spec: RunSpec, reply: JoinReply, hotkey: str, delivered: Delivered) -> None:
    """Check that a plan's share is this replica's, under the root that the orchestrator signed.

    `hotkey` and the stage of `reply` are the replica. Events that are no plan pass.

    Raises:
        UntrustedAnswer: it is not, or it does not fit the spec.
    """
    plan = delivered.event
    if not isinstance(plan, Plan):
        return
    share, proof = plan.share, plan.proof
    what = f"the plan of epoch {share.epoch} step {share.step}"
    if (share.stage, share.hotkey) != (reply.stage, hotkey):
        raise UntrustedAnswer(f"{what}: the share is that of {share.hotkey} at stage {share.stage}")
    if not proof.covers(share):
        raise UntrustedAnswer(f"{what}: this replica's share is not under its root {proof.root}")
    payload = signing_bytes(PLAN_DOMAIN, signed_root(spec.id, share.epoch, share.step, proof))
    if not verify(payload, bytes.fromhex(delivered.signature or ""), reply.orchestrator):
        raise UntrustedAnswer(f"{what}: its root is not signed by {reply.orchestrator}")
    if not allows_rate(spec, share):
        raise UntrustedAnswer(f"{what}: its learning rate is {share.learning_rate}, which the spec forbids")
    if not _fits(spec, share):
        raise UntrustedAnswer(f"{what}: its microbatches or the replicas beside them are not the spec's")


def _fits(spec: RunSpec, share: PlanShare) -> bool:
    """Whether a share's numbers are within the schedule, and it names the replicas beside each microbatch."""
    schedule, indices = spec.schedule, [planned.microbatch for planned in share.microbatches]
    within = share.epoch < schedule.epochs and share.step < schedule.steps
    planned = spec.planned(share.step)
    ascending = all(a < b for a, b in pairwise(indices)) and all(i < planned for i in indices)
    ends = (share.stage == 0, share.stage == spec.last_stage)
    beside = all((m.before is None, m.after is None) == ends for m in share.microbatches)
    return within and ascending and beside
