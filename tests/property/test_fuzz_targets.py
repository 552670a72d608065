"""Every parser of what strangers make: its seeds are taken, kept and mutated inputs give no stray error.

`scripts/fuzz.py` looks further with a coverage-guided fuzzer; what it found lies in `tests/fuzz_corpus`.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fuzz_targets import CORPUS, TARGETS, Target

EACH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
MAX_KEPT_BYTES = 4096
changes = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=8)


@EACH
def test_each_seed_is_taken(target: Target) -> None:
    """Otherwise the fuzzer begins outside of the form."""
    for seed in target.seeds():
        target.run(seed)


@EACH
def test_what_was_found_once_gives_a_refusal_or_a_value(target: Target) -> None:
    kept = sorted((CORPUS / target.name).iterdir())
    assert kept
    for path in kept:
        data = path.read_bytes()
        assert len(data) <= MAX_KEPT_BYTES
        target(data)


@EACH
@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 7), changes=changes)
def test_a_changed_seed_gives_a_refusal_or_a_value(
    target: Target, number: int, changes: list[tuple[float, bytes]]
) -> None:
    seeds = target.seeds()
    data = bytearray(seeds[number % len(seeds)])
    for place, new in changes:
        at = int(place * len(data))
        data[at : at + len(new)] = new
    target(bytes(data))


def test_the_corpus_has_no_inputs_of_other_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()
