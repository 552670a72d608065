"""An epoch's record that its run cannot have is refused by name, and leaves the epoch undecided."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from iota.client.orchestrator import _BATCHES
from iota.protocol.messages import Outcome
from iota.protocol.records import EpochRecord
from tests.support.hostile_evidence import audited, hostile, rewrite, trained


def _twice(record: EpochRecord) -> dict[str, Any]:
    first, *rest = record.counted
    return {"counted": (first.model_copy(update={"counted": first.counted * 2}), *rest)}


def _counted_beyond(record: EpochRecord) -> dict[str, Any]:
    first, *rest = record.counted
    return {"counted": (first.model_copy(update={"counted": ((10**9, 0),)}), *rest)}


def _two_lists(record: EpochRecord) -> dict[str, Any]:
    return {"counted": (*record.counted, record.counted[0])}


def _no_such_stage(record: EpochRecord) -> dict[str, Any]:
    first, *rest = record.miners
    return {"miners": (first.model_copy(update={"stage": 7}), *rest)}


def _joined_late(record: EpochRecord) -> dict[str, Any]:
    first, *rest = record.miners
    life = first.lives[0].model_copy(update={"joined": 2**31 - 1})
    return {"miners": (first.model_copy(update={"lives": (life,)}), *rest)}


def _miner_twice(record: EpochRecord) -> dict[str, Any]:
    return {"miners": (*record.miners, record.miners[0].model_copy(update={"stage": 0}))}


def _fewer_delta_parts(record: EpochRecord) -> dict[str, Any]:
    first, *rest = record.deltas
    return {"deltas": (first.model_copy(update={"parts": first.parts[:-1]}), *rest)}


def _more_base_parts(record: EpochRecord) -> dict[str, Any]:
    first, *rest = record.bases
    return {"bases": (first.model_copy(update={"parts": first.parts * 1000}), *rest)}


def _base_twice(record: EpochRecord) -> dict[str, Any]:
    return {"bases": (*record.bases, record.bases[0])}


RECORDS = {
    _twice: "comes twice",
    _counted_beyond: "microbatch 1000000000, and the run has 2",
    _two_lists: "counted list .* comes twice",
    _no_such_stage: "stage 7, and the run has 3",
    _joined_late: "joined at step 2147483647",
    _miner_twice: "miner .* comes twice",
    _fewer_delta_parts: "the pseudo-gradient of .* parts",
    _more_base_parts: "the base of stage 0 has .* parts",
    _base_twice: "base .* comes twice",
}


@pytest.mark.parametrize(
    ("change", "says"), RECORDS.items(), ids=lambda value: getattr(value, "__name__", "")
)
async def test_a_record_that_its_run_cannot_have_leaves_its_epoch_undecided_and_names_the_fault(
    change: Callable[[EpochRecord], dict[str, Any]], says: str
) -> None:
    world = hostile(trained())
    record = world.records[0]
    world.records[0] = record.model_copy(update=change(record))
    found = await audited(world)
    found.check()
    assert {result.outcome for result in found.verdicts.values()} == {Outcome.INCONCLUSIVE}
    assert all(re.search(says, result.reason) for result in found.verdicts.values())


async def test_receipts_beyond_what_a_miners_work_gives_are_not_even_fetched() -> None:
    world = hostile(trained())
    miner = world.miners[0]
    receipts = world.of_epoch(0, miner)
    rewrite(world, miner, receipts * 40)
    asked: list[str] = []

    async def receipts_of(epoch: int, hotkey: str) -> Any:
        asked.append(hotkey)

    world.receipts = receipts_of  # type: ignore[method-assign]
    found = await audited(world)
    assert {result.outcome for result in found.verdicts.values()} == {Outcome.INCONCLUSIVE}
    assert all("its work gives at most" in result.reason for result in found.verdicts.values())
    assert not asked


LISTS = [name for name, value in trained().records[0] if isinstance(value, tuple)]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_wrong_entries_is_refused_at_its_first(name: str) -> None:
    """pydantic takes kilobytes for an error: an answer of 256 MiB has room for as many as fill the memory."""
    document = trained().records[0].model_dump(mode="json") | {name: [0] * 10_000}
    with pytest.raises(ValidationError) as refused:
        EpochRecord.model_validate_json(json.dumps(document))
    assert refused.value.error_count() == 1


@pytest.mark.parametrize("body", ["[" + "0," * 10_000 + "0]", '[{"receipts": [' + "{}," * 1024 + "{}]}]"])
def test_receipts_of_another_form_are_refused_at_their_first(body: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _BATCHES.validate_json(body)
    assert refused.value.error_count() < 20
