"""A conversation over a network that breaks: connections die at random, in both directions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from iota.protocol.events import FrameReady, Plan
from orchestrator.coordinator import Exchanged
from tests.support.orchestrators import Running, make_spec, node, orchestrator, until

MICROBATCHES = 40


class Breaking:
    """A TCP relay whose connections are cut after a random number of bytes, while `cutting`."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self.cutting = False
        self.cuts = 0

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        budget = [self._random.randrange(500, 12_000)]
        ways = [
            asyncio.create_task(self._pump(reader, far_writer, budget)),
            asyncio.create_task(self._pump(far_reader, writer, budget)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, far_writer):
            end.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: list[int]
    ) -> None:
        try:
            while data := await source.read(2048):
                budget[0] -= len(data)
                if self.cutting and budget[0] < 0:
                    self.cuts += 1
                    return
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            return


@asynccontextmanager
async def breaking(running: Running, seed: int) -> AsyncIterator[tuple[Running, Breaking]]:
    """The orchestrator as seen through a network that breaks."""
    relay = Breaking(int(running.url.rpartition(":")[2]), seed)
    server = await asyncio.start_server(relay.relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    seen = Running(
        f"http://127.0.0.1:{port}",
        running.spec,
        running.coordinator,
        running.journal,
        running.chain,
        running.members,
        running.background,
        running.store,
    )
    try:
        yield seen, relay
    finally:
        server.close()


async def test_nothing_is_lost_or_doubled_over_connections_that_break(tmp_path: Path) -> None:
    spec = make_spec(microbatches=MICROBATCHES)
    async with (
        orchestrator(tmp_path / "j", spec) as running,
        breaking(running, 7) as (seen, relay),
        node(seen, b"a") as a,
        node(seen, b"b") as b,
    ):
        for each in (a, b):
            each.hold_base()
        await until(lambda: bool(a.events(Plan) and b.events(Plan)))
        relay.cutting = True
        sender, receiver = (a, b) if a.reply.stage == 0 else (b, a)
        for microbatch in range(MICROBATCHES):
            sender.log.add(microbatch=microbatch)
            sender.talk.send(receipts=microbatch + 1, frames=[sender.notice(receiver, microbatch)])
            await until(lambda m=microbatch: len(receiver.events(FrameReady)) > m, 30)  # type: ignore[misc]
        relay.cutting = False
        assert await sender.talk.flush(20)
        assert relay.cuts > 5
        said = [e for e in running.journal.replay() if isinstance(e, Exchanged)]
        assert [r.seq for e in said for r in e.receipts] == list(range(1, MICROBATCHES + 1))
        ready = [e.notice.name.microbatch for e in receiver.events(FrameReady)]
        assert ready == list(range(MICROBATCHES))
        heard = [d.seq for d in receiver.heard]
        assert heard == list(range(heard[0], heard[0] + len(heard)))
