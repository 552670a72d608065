"""Whatever the device takes for its results, and whichever are bad: receipts and sums are the same."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iota.compute.state import tensors_digest
from iota.protocol.receipts import OpKey, OpKind
from tests.support.late_results import LateReplica, LateRun, late_spec

PLACES = [(t, i, kind) for t in range(2) for i in range(3) for kind in (OpKind.FORWARD, OpKind.BACKWARD)]
Places = tuple[tuple[int, int, OpKind], ...]


@contextmanager
def trained(
    pipeline: str, bad: Places, value: float, reads_first: Callable[[], bool]
) -> Iterator[tuple[LateReplica, LateRun]]:
    with tempfile.TemporaryDirectory() as folder:
        replica = LateReplica(Path(folder), late_spec(pipeline), dict.fromkeys(bad, value))
        try:
            run = LateRun(replica)
            run.train(reads_first)
            yield replica, run
        finally:
            replica.close()


def outcome(replica: LateReplica, run: LateRun) -> tuple[Any, ...]:
    state = replica.runner.engine.state()
    return replica.results, set(run.bad), tensors_digest(state.weights), tensors_digest(state.moments)


@cache
def in_turn(pipeline: str, bad: Places, value: float) -> tuple[Any, ...]:
    """Each result is read before the next op starts."""
    with trained(pipeline, bad, value, lambda: True) as (replica, run):
        return outcome(replica, run)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pipeline=st.sampled_from(["sync", "delayed"]),
    bad=st.lists(st.sampled_from(PLACES), max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    value=st.sampled_from([math.nan, math.inf, 1e38]),
    turns=st.lists(st.booleans(), max_size=30),
)
def test_late_results_give_the_receipts_and_sums_of_results_in_turn(
    pipeline: str, bad: Places, value: float, turns: list[bool]
) -> None:
    drawn = iter(turns)
    with trained(pipeline, bad, value, lambda: next(drawn, False)) as (replica, run):
        assert outcome(replica, run) == in_turn(pipeline, bad, value)
        keys: list[OpKey] = [receipt.key for receipt in replica.receipts]
        assert keys == [key for key in run.launched if key not in run.bad], "in the order of ops"
        assert len(set(run.bad)) == len(run.bad), "each is said once"
