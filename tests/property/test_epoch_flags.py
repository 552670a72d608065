"""Flags of receipts with any values that their form permits, and what flags may change: the order alone."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from iota.protocol.receipts import MAX_LOSS, OpKind, Receipt
from iota.wire.receipt_form import form_fault
from tests.support.validator_shells import BLOCK_HASH, LINKS, drawn, of_draw, opened, run, work
from validator.core import jobs
from validator.core.flags import Flags, find_flags
from validator.core.order import audit_groups
from validator.core.sealed import SealedEpoch

TIMES = st.one_of(
    st.floats(0, 1.7976931348623157e308, exclude_min=True), st.floats(1.7e9, 1.7e9 + 100), st.just(1.7e9)
)
LOSSES = st.one_of(st.floats(0, MAX_LOSS), st.just(2.0))
FLAGGED = st.sets(st.integers(0, 2)).map(lambda found: {list(run()[1][0].miners)[n] for n in found})


@st.composite
def epochs(draw: st.DrawFn) -> SealedEpoch:
    """A sealed epoch, whose miners named any times and losses, and left out or repeated receipts."""
    sealed = copy.copy(run()[1][0])
    spec, found = sealed.spec, {}
    for hotkey, chain in sealed.receipts.items():
        changed: list[Receipt] = []
        lies = draw(st.booleans())
        for receipt in chain:
            copies = 1
            if lies:
                began, ended = sorted((draw(TIMES), draw(TIMES)))
                update: dict[str, Any] = {"started": began, "ended": ended}
                if receipt.kind is OpKind.LOSS:
                    update["loss"] = draw(LOSSES)
                receipt = receipt.model_copy(update=update)
                copies = draw(st.sampled_from((1, 1, 1, 0, 2)))
            assert form_fault(spec, sealed.miners[hotkey].stage, receipt) is None
            changed += [receipt] * copies
        found[hotkey] = tuple(changed)
    sealed.receipts = found
    return sealed


@settings(max_examples=60, deadline=None)
@given(epochs(), epochs())
def test_receipts_of_good_form_give_flags_without_an_error(before: SealedEpoch, sealed: SealedEpoch) -> None:
    past = find_flags(before, {})
    flags = find_flags(sealed, {0: past.rates})
    assert flags.reasons.keys() <= sealed.miners.keys()
    assert all(flags.reasons.values())
    assert "\n" not in str(flags)


@settings(max_examples=60, deadline=None)
@given(owed=FLAGGED, flagged=FLAGGED)
def test_flags_reorder_audits_within_those_that_are_owed_one_and_the_others(
    owed: set[str], flagged: set[str]
) -> None:
    sealed, link = run()[1][0], LINKS.link(0)
    without, groups = (audit_groups(sealed, BLOCK_HASH, link, owed, each) for each in ((), flagged))
    assert groups.keys() == without.keys() == sealed.miners.keys()
    places = [(hotkey not in owed, hotkey not in flagged) for hotkey in groups]
    assert places == sorted(places)


@settings(max_examples=15, deadline=None)
@given(flagged=FLAGGED)
def test_whoever_is_flagged_the_audits_and_their_verdicts_are_the_same(flagged: set[str]) -> None:
    shell, plain = opened(), opened()
    flags = Flags({hotkey: "any" for hotkey in flagged}, {})
    work(shell, lambda job: flags if isinstance(job, jobs.FindFlags) else shell.good(job))
    work(plain)
    assert shell.kept == plain.kept
    assert (shell.wanted, shell.done) == (plain.wanted, plain.done)
    assert of_draw(shell.kept) == drawn(0)
