"""From a sender's notice to its receiver's event with the GET begun: a few milliseconds on loopback."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from iota.objects import FrameKey
from iota.protocol.events import Delivered, Plan
from tests.support.orchestrators import make_spec as small_spec
from tests.support.orchestrators import node, orchestrator, until
from tests.support.store_servers import embedded

pytestmark = pytest.mark.alone

NOTICES = 200
BATCHES = 3
BOUND_S = 0.020


async def test_a_notice_reaches_its_receiver_within_20_ms_at_the_99th_percentile(tmp_path: Path) -> None:
    """The receiver opens its GET at the embedded store; every stage is a real socket, fsync included."""
    spec = small_spec(microbatches=BATCHES * NOTICES)
    async with (
        embedded(tmp_path / "store", time.time) as store,
        orchestrator(tmp_path / "journal", spec, store=store) as running,
        node(running, b"a") as a,
        node(running, b"b") as b,
        aiohttp.ClientSession() as http,
    ):
        for each in (a, b):
            each.hold_base()
        await until(lambda: bool(a.events(Plan) and b.events(Plan)))
        sender, receiver = (a, b) if a.reply.stage == 0 else (b, a)
        [plan] = [d for d in sender.heard if isinstance(d.event, Plan) and d.event.share.step == 0]
        ready: asyncio.Queue[Delivered] = asyncio.Queue()
        receiver.on_heard = ready.put_nowait
        quantiles = []
        # The machine may be shared: other load comes and goes, what the system adds stays.
        for batch in range(BATCHES):
            times = []
            for microbatch in range(batch * NOTICES, (batch + 1) * NOTICES):
                notice = sender.notice(receiver, microbatch)
                key = str(FrameKey(spec.id, notice.name))
                async with http.put(plan.urls[key], data=bytes(notice.size)) as answer:
                    assert answer.status in (200, 201)
                begun = time.perf_counter()
                sender.talk.send(frames=[notice])
                async with asyncio.timeout(10):
                    while key not in (delivered := await ready.get()).urls:
                        pass
                async with http.get(delivered.urls[key]) as answer:
                    times.append(time.perf_counter() - begun)
                    assert answer.status == 200
            quantiles.append(sorted(times)[int(0.99 * NOTICES)])
            if quantiles[-1] < BOUND_S:
                break
        assert min(quantiles) < BOUND_S, quantiles
