"""A miner tries again while the store is away, and believes what the store says of an object."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from safetensors import SafetensorError

from iota.console.classification import passing
from iota.console.conditions import Condition
from iota.outer.partition import PartError
from iota.protocol.problems import Problem, ProblemType
from iota.store import ObjectMissing, StoreError, StoreUnavailable
from miner.retry import FEW_TRIES, NotWanted, persist

SOON_S = 1e-4


class Failing:
    """An attempt that fails `times` times with `error`, and then gives 7."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left = error, times
        self.tries: list[bool] = []

    async def __call__(self, again: bool) -> int:
        self.tries.append(again)
        if self.left > 0:
            self.left -= 1
            raise self.error
        return 7


async def test_an_outage_is_ridden_out_however_many_tries_it_takes() -> None:
    attempt = Failing(StoreUnavailable("away"), 3 * FEW_TRIES)
    assert await persist("reading", attempt, first_pause_s=0.0) == 7


async def test_only_the_first_try_may_use_the_urls_of_the_event() -> None:
    attempt = Failing(StoreUnavailable("away"), 2)
    await persist("reading", attempt, first_pause_s=SOON_S)
    assert attempt.tries == [False, True, True]


@pytest.mark.parametrize("error", [ObjectMissing("gone"), StoreError("odd"), PartError("short")])
async def test_what_is_missing_or_wrong_is_believed_after_a_few_tries(error: Exception) -> None:
    attempt = Failing(error, 100)
    with pytest.raises(type(error)):
        await persist("reading", attempt, first_pause_s=SOON_S)
    assert len(attempt.tries) == FEW_TRIES


async def test_a_refusal_is_believed_at_once() -> None:
    attempt = Failing(Problem(ProblemType.LATE, "over"), 100)
    with pytest.raises(Problem):
        await persist("storing", attempt, first_pause_s=SOON_S)
    assert attempt.tries == [False]


async def test_a_passing_problem_of_the_orchestrator_is_ridden_out() -> None:
    assert (
        await persist("storing", Failing(Problem(ProblemType.UNAVAILABLE, "busy"), 9), first_pause_s=0.0) == 7
    )


async def test_what_nobody_wants_any_more_is_not_tried_again() -> None:
    attempt = Failing(StoreUnavailable("away"), 100)
    with pytest.raises(NotWanted, match="storing"):
        await persist("storing", attempt, wanted=lambda: len(attempt.tries) < 3, first_pause_s=0.0)
    assert len(attempt.tries) == 3


async def test_a_long_outage_is_told_of_and_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await persist("reading the base", Failing(StoreUnavailable("away"), 10), first_pause_s=0.0)
    line, over = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert over.startswith("reading the base: it goes on after ")
    assert line.startswith("reading the base: the object store does not answer (away), since ")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_passing_condition_also_among_a_lifes_tasks(error: Exception) -> None:
    assert passing(ExceptionGroup("a life's tasks", [error])) == (Condition.DISK_FULL, error)


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "nothing").read_bytes()
    assert passing(caught.value) is None
