"""A member stores a large object in parts over the orchestrator's calls: a frame, where parts are tiny."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from iota.client.run_objects import RunObjects
from iota.objects import FrameKey
from iota.protocol.events import Plan
from iota.protocol.messages import Method, ObjectRequest
from iota.protocol.problems import Problem, ProblemType
from iota.store import ObjectClient
from tests.support.odd_s3 import ODD_MODES, OddS3, credentials, odd_s3
from tests.support.orchestrators import Node, node, orchestrator, until


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iota.store.part_urls.PART", 100)
    monkeypatch.setattr("iota.store.part_urls._STEP", 100)


@pytest.fixture
async def planned(tmp_path: Path) -> AsyncIterator[tuple[OddS3, Node, str, int]]:
    """A service, the miner of stage 0 whose plan has come, and its first frame's key and size."""
    async with AsyncExitStack() as stack:
        stack.enter_context(credentials())
        service, _ = await stack.enter_async_context(odd_s3())
        store = service.store(ODD_MODES)
        stack.push_async_callback(store.close)
        limits = {"parts_burst": 4.0, "parts_rate": 0.001}
        running = await stack.enter_async_context(orchestrator(tmp_path / "j", store=store, **limits))
        nodes = [await stack.enter_async_context(node(running, seed)) for seed in (b"a", b"b")]
        for each in nodes:
            each.hold_base()
        await until(lambda: all(each.events(Plan) for each in nodes))
        first, last = sorted(nodes, key=lambda each: each.reply.stage)
        notice = first.notice(last, 0)
        yield service, first, str(FrameKey(running.spec.id, notice.name)), notice.size


async def test_a_member_stores_an_object_in_parts(planned: tuple[OddS3, Node, str, int]) -> None:
    service, miner, key, size = planned
    assert size > 300
    async with ObjectClient() as client:
        await RunObjects(miner.client, client).put(key, bytes(size))
    assert service.objects[f"runs/one/{key}"] == bytes(size)
    assert len([seen for seen in service.seen if seen == f"PUT /bucket/runs/one/{key}"]) == -(-size // 100)


async def test_a_plan_has_no_url_for_what_is_stored_in_parts(planned: tuple[OddS3, Node, str, int]) -> None:
    _, miner, _, _ = planned
    assert next(heard.urls for heard in miner.heard if isinstance(heard.event, Plan)) == {}


async def test_who_asks_for_parts_too_often_waits(planned: tuple[OddS3, Node, str, int]) -> None:
    _, miner, key, size = planned
    request = ObjectRequest(method=Method.PUT, key=key, size=size)
    uploads = set()
    for _ in range(4):
        parts = (await miner.client.objects(request)).parts
        assert parts is not None
        uploads.add(parts.upload)
    assert len(uploads) == 1
    with pytest.raises(Problem) as refused:
        await miner.client._ask("POST", "/v1/objects", request, retry_for_s=0.0)
    assert refused.value.type is ProblemType.RATE_LIMITED


async def test_an_upload_of_nobodys_key_is_forbidden(planned: tuple[OddS3, Node, str, int]) -> None:
    """The right to an object is asked for again when it is to be made of its parts."""
    _, miner, key, size = planned
    upload = (await miner.client.objects(ObjectRequest(method=Method.PUT, key=key, size=size))).parts
    assert upload is not None
    other = ObjectRequest(method=Method.PUT, key=f"{key[:-3]}1.b", size=size, upload=upload.upload)
    with pytest.raises(Problem) as refused:
        await miner.client.objects(other)
    assert refused.value.type is ProblemType.FORBIDDEN
