"""Checks a plan before the replica acts on it."""

from __future__ import annotations

import math

from iota.client.orchestrator import UntrustedAnswer
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.events import Delivered, Plan
from iota.protocol.plans import PLAN_DOMAIN, signed_root
from iota.spec import RunSpec


def check_plan(spec: RunSpec, orchestrator: str, delivered: Delivered) -> None:
    """Check that a plan's share is under the root that the orchestrator signed; other events pass.

    Raises:
        UntrustedAnswer: it is not, or its learning rate is not the spec's.
    """
    plan = delivered.event
    if not isinstance(plan, Plan):
        return
    share, proof = plan.share, plan.proof
    what = f"the plan of epoch {share.epoch} step {share.step}"
    if not proof.covers(share):
        raise UntrustedAnswer(f"{what}: this replica's share is not under its root {proof.root}")
    payload = signing_bytes(PLAN_DOMAIN, signed_root(spec.id, share.epoch, share.step, proof.root))
    if not verify(payload, bytes.fromhex(delivered.signature or ""), orchestrator):
        raise UntrustedAnswer(f"{what}: its root is not signed by {orchestrator}")
    if not math.isclose(share.learning_rate, spec.learning_rate(share.epoch, share.step), rel_tol=1e-9):
        raise UntrustedAnswer(f"{what}: its learning rate is {share.learning_rate}, not the spec's")
