"""Records of bases as an orchestrator gives them, which a run of another one may start from."""

from __future__ import annotations

import pytest

from iota.exporting import RecordedFacts
from iota.exporting.stage_weights import BadBase, checked_record
from iota.objects import BaseKey, max_bytes, part_count
from iota.protocol.frames import StoredObject
from iota.protocol.records import BaseRecord
from tests.support.small_spec import small_spec

SPEC = small_spec(outer={"part_elements": 8192})
MOST = max_bytes(SPEC, BaseKey(SPEC.id, 1, 0, 0), 0)


@pytest.mark.parametrize("size", [0, MOST + 1])
async def test_a_base_of_parts_that_no_base_has_is_refused(size: int) -> None:
    keys = [str(BaseKey(SPEC.id, 1, 0, n)) for n in range(part_count(SPEC, 0))]
    parts = tuple(StoredObject(key=key, digest="0" * 64, size=size) for key in keys)
    record = BaseRecord(epoch=1, stage=0, digest="0" * 64, parts=parts)
    with pytest.raises(BadBase):
        await checked_record(RecordedFacts(SPEC, {(1, 0): record}, {}), 1, 0)
