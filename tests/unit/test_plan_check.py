"""What a miner takes of a plan: its own share, under a signed root, as the spec has it."""

from __future__ import annotations

from typing import Any

import pytest

from iota.client.orchestrator import UntrustedAnswer
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.protocol.bridge import MIN_LR_FACTOR
from iota.protocol.events import Admit, Delivered, Plan
from iota.protocol.messages import JoinReply
from iota.protocol.plans import PLAN_DOMAIN, WholePlan, signed_root
from iota.protocol.receipts import GENESIS
from iota.simulate.names import fake_hotkey
from miner.plan_check import check_plan
from tests.support.orchestrators import ORCHESTRATOR, make_spec
from tests.support.plans import share_of, whole_plan

SPEC, OTHER_RUN = make_spec(), make_spec(microbatches=5)
ME, NEXT = fake_hotkey(1), fake_hotkey(2)
STRANGER = Hotkey.from_seed(b"s" * 32)
REPLY = JoinReply(
    run=SPEC.id, spec=SPEC, orchestrator=ORCHESTRATOR.ss58, version=1, stage=0, cursor=0, receipts=0,
    head=GENESIS, resume=False, manifest_url="/v1/manifest",
)  # fmt: skip
RATE = SPEC.learning_rate(1, 1)


def planned(route: tuple[str, ...] = (ME, NEXT), count: int = 4, **fields: Any) -> WholePlan:
    return whole_plan(route, count, **{"epoch": 1, "step": 1, "learning_rate": RATE, **fields})


def signed(plan: Plan, by: Hotkey = ORCHESTRATOR, domain: str = PLAN_DOMAIN, **told: Any) -> Delivered:
    """The plan, with a signature over `told` in place of what the plan says."""
    over = {
        "run": SPEC.id, "epoch": plan.share.epoch, "step": plan.share.step, "proof": plan.proof, **told
    }  # fmt: skip
    return Delivered(seq=1, event=plan, signature=by.sign(signing_bytes(domain, signed_root(**over))).hex())


def check(delivered: Delivered) -> None:
    check_plan(SPEC, REPLY, ME, delivered)


MINE = share_of(planned(), ME)


def test_an_honest_plan_is_taken_and_other_events_need_no_signature() -> None:
    check(signed(MINE))
    check(Delivered(seq=1, event=Admit(epoch=0, step=0, carries=True)))


@pytest.mark.parametrize(
    "delivered",
    [
        Delivered(seq=1, event=MINE),
        Delivered(seq=1, event=MINE, signature="0" * 128),
        signed(MINE, by=STRANGER),
        signed(MINE, domain="receipts/1"),
        signed(MINE, run=OTHER_RUN.id),
        signed(MINE, epoch=0),
        signed(MINE, step=0),
        signed(MINE, proof=share_of(planned(count=3), ME).proof),
        signed(MINE, proof=MINE.proof.model_copy(update={"count": 3})),
    ],
    ids=["none", "zeros", "stranger", "domain", "run", "epoch", "step", "root", "count"],
)
def test_a_root_that_the_orchestrator_did_not_sign_for_this_step_is_refused(delivered: Delivered) -> None:
    with pytest.raises(UntrustedAnswer, match=f"not signed by {ORCHESTRATOR.ss58}"):
        check(delivered)


@pytest.mark.parametrize(
    "proof",
    [share_of(planned(), NEXT).proof, share_of(planned(count=3), ME).proof],
    ids=["of another share", "of another plan"],
)
def test_a_share_that_is_not_under_the_signed_root_is_refused(proof: Any) -> None:
    with pytest.raises(UntrustedAnswer, match="not under its root"):
        check(signed(MINE.model_copy(update={"proof": proof})))


@pytest.mark.parametrize(
    "plan",
    [
        share_of(planned(), NEXT),
        share_of(planned((NEXT, ME)), ME),
        share_of(planned((STRANGER.ss58, NEXT)), STRANGER.ss58),
    ],
    ids=["neighbour", "other stage", "same stage"],
)
def test_the_share_of_another_replica_or_stage_is_refused_though_its_proof_is_good(plan: Plan) -> None:
    assert plan.proof.covers(plan.share)
    with pytest.raises(UntrustedAnswer, match=f"the share is that of {plan.share.hotkey}"):
        check(signed(plan))


@pytest.mark.parametrize("rate", [0.0, RATE * 1.01, RATE * 0.99 * MIN_LR_FACTOR, -RATE, 1e300])
def test_a_learning_rate_beyond_the_operators_factors_is_refused(rate: float) -> None:
    with pytest.raises(UntrustedAnswer, match="which the spec forbids"):
        check(signed(share_of(planned(learning_rate=rate), ME)))


@pytest.mark.parametrize("factor", [MIN_LR_FACTOR, 0.5, 1.0])
def test_the_specs_learning_rate_times_a_factor_of_the_operator_is_taken(factor: float) -> None:
    check(signed(share_of(planned(learning_rate=RATE * factor), ME)))


@pytest.mark.parametrize(
    "whole",
    [
        planned(epoch=2, learning_rate=SPEC.learning_rate(2, 1)),
        planned(step=2, learning_rate=SPEC.learning_rate(1, 2)),
        planned(count=5),
        planned((ME,)),
    ],
    ids=["epoch", "step", "microbatches", "stages"],
)
def test_a_signed_plan_beyond_the_spec_is_refused(whole: WholePlan) -> None:
    with pytest.raises(UntrustedAnswer, match="not the spec's"):
        check(signed(share_of(whole, ME)))
