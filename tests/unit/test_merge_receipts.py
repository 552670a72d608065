"""A merger signs each part once, and none of an epoch that its receipts have left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from iota.identity.keys import Hotkey
from iota.outer.partition import PartError
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.frames import StoredObject
from iota.protocol.receipts import OpKind
from miner.merge_receipts import MergeReceipts
from miner.ops import OpRunner
from miner.receipt_log import ReceiptLog
from miner.retry import NotWanted
from tests.support.small_spec import small_spec

KEY = Hotkey.from_seed(b"m" * 32)
RUN, ONE, TWO = "ab" * 32, "1" * 64, "2" * 64


def assign(epoch: int = 0, stage: int = 1, part: int = 3) -> MergeAssign:
    stored = StoredObject(key="d", digest=ONE, size=4)
    given = Contribution(hotkey=KEY.ss58, tokens=1, joined=0, stored=stored)
    return MergeAssign(epoch=epoch, stage=stage, part=part, contributions=(given,))


@pytest.fixture
async def written(tmp_path: Path) -> AsyncIterator[tuple[MergeReceipts, ReceiptLog]]:
    log = ReceiptLog(tmp_path / "receipts", RUN, KEY)
    nothing: Any = None
    runner = OpRunner(small_spec(), 0, KEY, nothing, log, nothing, "cpu", snapshot_bytes=None)
    yield MergeReceipts(runner), log
    runner.close()
    log.close()


async def test_parts_of_stages_have_receipts_of_their_own(written: tuple[MergeReceipts, ReceiptLog]) -> None:
    receipts, log = written
    for stage in range(2):
        for part in range(2):
            await receipts.write(assign(stage=stage, part=part), ONE, 5.0)
    batch = log.after(0)
    assert batch is not None
    assert len({receipt.key for receipt in batch.receipts}) == 4
    assert {(r.kind, r.stage, r.microbatch) for r in batch.receipts} == {
        (OpKind.MERGE, stage, part) for stage in range(2) for part in range(2)
    }


async def test_a_part_that_is_asked_for_again_is_not_signed_twice(
    written: tuple[MergeReceipts, ReceiptLog], tmp_path: Path
) -> None:
    receipts, log = written
    await receipts.write(assign(), ONE, 5.0)
    await receipts.write(assign(), ONE, 6.0)
    assert log.count == 1
    with pytest.raises(PartError, match="no longer gives"):
        await receipts.write(assign(), TWO, 7.0)
    assert ReceiptLog(tmp_path / "receipts", RUN, KEY).find(assign_key()) is not None


def assign_key() -> tuple[int, int, int, int, OpKind]:
    return (0, 1, 3, 0, OpKind.MERGE)


async def test_no_receipt_follows_one_of_a_later_epoch(written: tuple[MergeReceipts, ReceiptLog]) -> None:
    receipts, log = written
    await receipts.write(assign(epoch=1), ONE, 5.0)
    with pytest.raises(NotWanted):
        await receipts.write(assign(epoch=0), ONE, 6.0)
    assert log.count == 1


async def test_with_overlap_it_may_follow_one_of_the_next_epoch(
    written: tuple[MergeReceipts, ReceiptLog],
) -> None:
    receipts, log = written
    receipts.runner.spec = small_spec(outer={"overlap": "one_epoch"})
    await receipts.write(assign(epoch=2), ONE, 5.0)
    await receipts.write(assign(epoch=1), ONE, 6.0)
    with pytest.raises(NotWanted):
        await receipts.write(assign(epoch=0), ONE, 7.0)
    assert log.count == 2


async def test_a_part_of_another_stage_is_not_signed_twice_after_the_swap_of_bases(
    written: tuple[MergeReceipts, ReceiptLog],
) -> None:
    """A killed merger is asked again for its parts, and may hear of it when it has the next base."""
    receipts, log = written
    await receipts.write(assign(epoch=4), ONE, 5.0)
    log.forget_before(5)
    await receipts.write(assign(epoch=4), ONE, 6.0)
    assert log.count == 1
    log.forget_before(6)
    assert log.find((4, *assign_key()[1:])) is None
