"""What a replica owes the run is tried until it is done, or until the run has gone on without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from miner.duties import Duties

from iota.client.run_objects import RunObjects
from iota.protocol.events import Admit, AuditRequest, AuditsClosed, Event, MergeReady
from iota.protocol.messages import ObjectReply, ObjectRequest, Report
from iota.protocol.problems import Problem, ProblemType
from iota.store.transfer import ObjectClient
from miner.disk import MinerDisk
from tests.support.small_spec import small_spec

AWAY = Problem(ProblemType.UNAVAILABLE, "away")
SNAPSHOT = AuditRequest(epoch=3, version=1)


class Refusing:
    """Gives no URL, for one reason or another; `asked` is called at every try."""

    def __init__(self, error: Problem, asked: Callable[[int], None]) -> None:
        self._error, self._asked, self.tries = error, asked, 0

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        self.tries += 1
        self._asked(self.tries)
        raise self._error


async def _tries(
    root: Path, error: Problem, order: Event, then: Event | None, given: int = 1
) -> tuple[int, list[Report]]:
    """How often the duty of `order` is tried, and what it reports, if `then` is heard at the third try."""
    said: list[Report] = []

    def asked(tries: int) -> None:
        if tries == 3 and then is not None:
            duties.hear(then, {})

    urls = Refusing(error, asked)
    with MinerDisk(root) as disk:
        disk.snapshot(3, 1).parent.mkdir(parents=True)
        disk.snapshot(3, 1).write_bytes(b"weights and moments")
        async with asyncio.timeout(10), ObjectClient() as client, asyncio.TaskGroup() as tasks:
            objects = RunObjects(urls, client)
            duties = Duties(small_spec(), 0, "me", disk, objects, tasks, said.append, first_pause_s=0.0)
            for _ in range(given):
                duties.hear(order, {})
    return urls.tries, said


async def test_a_snapshot_is_tried_until_the_audits_of_its_epoch_are_closed(tmp_path: Path) -> None:
    assert await _tries(tmp_path, AWAY, SNAPSHOT, AuditsClosed(epoch=3)) == (3, [])


async def test_a_refused_duty_is_not_tried_again(tmp_path: Path) -> None:
    assert await _tries(tmp_path, Problem(ProblemType.FORBIDDEN, "no"), SNAPSHOT, None) == (1, [])


async def test_a_duty_given_again_while_at_work_is_done_once(tmp_path: Path) -> None:
    assert await _tries(tmp_path, AWAY, SNAPSHOT, AuditsClosed(epoch=3), given=2) == (3, [])


@pytest.mark.parametrize(
    ("heard", "over"),
    [
        (MergeReady(epoch=3, stage=0, parts=()), True),
        (Admit(epoch=4, step=0), True),
        (MergeReady(epoch=2, stage=0, parts=()), False),
        (Admit(epoch=3, step=0), False),
    ],
)
def test_a_pseudo_gradient_is_pointless_once_its_merge_is_over(heard: Event, over: bool) -> None:
    duties = object.__new__(Duties)
    duties.merged, duties.admitted, duties.closed = -1, -1, set()
    duties.hear(heard, {})
    assert duties._merge_over(3) is over
