"""Values of a spec that contradict each other are refused by name, where a spec is made."""

from __future__ import annotations

import pytest

from iota.model.proposal import make_spec
from iota.spec import AuditSpec
from iota.spec.draft import from_assignments


def refused(*assignments: str) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the caller looks at the sentence
        make_spec(from_assignments(assignments), "0" * 64, 2)
    return str(error.value)


@pytest.mark.parametrize(
    ("assignments", "fields", "remedy"),
    [
        (
            ["optimizer.warmup_steps=60"],
            ["optimizer.warmup_steps 60", "schedule.steps = 60"],
            "warm up over fewer",
        ),
        (
            ["optimizer.warmup_steps=59", "optimizer.decay=cosine"],
            ["optimizer.decay cosine", "optimizer.warmup_steps 59"],
            "choose constant",
        ),
        (["audit.deadline_s=5"], ["audit.deadline_s 5", "audit.line 1.25e+07"], "give at least"),
        (["audit.line=1000", "audit.deadline_s=600"], ["audit.line 1000"], "a faster line"),
        (
            ["schedule.heldout=161"],
            ["schedule.heldout 161", "160 microbatches"],
            "give far fewer",
        ),
        (["schedule.credit=2"], ["schedule.credit 2", "3 stages"], "give at least 3"),
        (
            ["layout.replicas=9"],
            ["schedule.microbatches 8", "layout.replicas 9"],
            "give at least one to each",
        ),
        (["model.kv_heads=3"], ["model.heads 8", "model.kv_heads 3"], "give kv_heads that divide"),
        (["model.heads=7"], ["model.hidden_size 256", "model.heads 7"], "change one"),
        (
            ["outer.momentum=0.9", "outer.eta=1"],
            ["outer.momentum 0.9", "outer.eta 1"],
            "lower one of them",
        ),
        (["outer.momentum=1", "outer.eta=0.1"], ["outer.momentum 1", "outer.eta 0.1"], "lower one"),
        (
            ["boundary.codec=identity", "boundary.ratio=4"],
            ["boundary.ratio", "boundary.codec identity"],
            "leave the ratio out",
        ),
        (
            ["boundary.codec=resbm", "boundary.anchor_rank=4"],
            ["boundary.anchor_rank", "resbm-anchor"],
            "leave it out",
        ),
        (
            ["optimizer.kind=adamw", "optimizer.muon_momentum=0.9"],
            ["optimizer.muon_momentum", "optimizer.kind"],
            "choose muon",
        ),
        (
            ["optimizer.kind=sgd", "optimizer.moments=int8"],
            ["optimizer.moments", "optimizer.kind sgd"],
            "choose adamw or muon",
        ),
        (
            ["optimizer.decay=constant", "optimizer.final_lr=0.2"],
            ["optimizer.final_lr", "optimizer.decay is constant"],
            "choose cosine",
        ),
        (["outer.momentum_warmup=3"], ["outer.momentum_warmup", "outer.momentum is 0"], "give a momentum"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_contradiction_names_both_fields_and_what_to_do(
    assignments: list[str], fields: list[str], remedy: str
) -> None:
    said = refused(*assignments)
    assert [field for field in fields if field not in said] == []
    assert remedy in said


def test_all_contradictions_are_told_at_once() -> None:
    said = refused("schedule.credit=1", "optimizer.warmup_steps=100")
    assert "schedule.credit 1" in said
    assert "optimizer.warmup_steps 100" in said


def test_a_default_that_is_written_out_is_no_contradiction() -> None:
    """A file of all values, as a template or another run's spec is, can be given."""
    make_spec(from_assignments(["optimizer.kind=adamw", "optimizer.muon_momentum=0.95"]), "0" * 64, 2)


def test_what_was_not_given_is_never_a_contradiction() -> None:
    """The ratio that is proposed has no effect with `identity`, and one step leaves nothing to decay over."""
    make_spec(from_assignments(["boundary.codec=identity"]), "0" * 64, 2)
    make_spec(from_assignments(["schedule.epochs=1", "schedule.steps=1"]), "0" * 64, 2)


def test_a_deadline_that_is_not_given_leaves_time_for_the_snapshots_of_a_large_stage() -> None:
    large = make_spec(from_assignments(["model.preset=orion-100b", "layout.stages=16"]), "0" * 64, 2)
    assert large.audit.deadline_s > 10 * AuditSpec().deadline_s
    small = make_spec(from_assignments([]), "0" * 64, 2)
    assert small.audit.deadline_s == AuditSpec().deadline_s
