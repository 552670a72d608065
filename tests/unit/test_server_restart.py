"""An orchestrator that starts again: nothing is lost, nothing is doubled, nobody is blamed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from iota.client.conversation import Conversation
from iota.identity.keys import Hotkey
from iota.protocol.events import FrameReady, Plan, RunEnd
from iota.protocol.frames import FrameName
from iota.protocol.messages import ExchangeRequest, Ready
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind
from orchestrator.coordinator import Exchanged, Resumed
from tests.support.orchestrators import (
    BASE,
    Node,
    Running,
    give_work,
    join_request,
    node,
    orchestrator,
    raw,
    signed,
    until,
)


async def ready_pair(stack: AsyncExitStack, running: Running) -> tuple[Node, Node]:
    """The nodes of stage 0 and 1, with a plan."""
    a = await stack.enter_async_context(node(running, b"a"))
    b = await stack.enter_async_context(node(running, b"b"))
    for each in (a, b):
        each.hold_base()
    await until(lambda: bool(a.events(Plan) and b.events(Plan)))
    return (a, b) if a.reply.stage == 0 else (b, a)


async def test_the_state_and_the_events_come_back_from_the_journal(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(orchestrator(tmp_path / "j"))
        first, last = await ready_pair(stack, running)
        first.talk.send(frames=[first.notice(last, 0)])
        await until(lambda: bool(last.events(FrameReady)))
        before = running.coordinator.events_after(last.hotkey.ss58, 0)
        head = running.coordinator.members[first.hotkey.ss58].head
    async with orchestrator(tmp_path / "j") as again:
        assert again.coordinator.events_after(last.hotkey.ss58, 0)[: len(before)] == before
        assert again.coordinator.members[first.hotkey.ss58].head == head
        assert any(isinstance(e, Resumed) for e in again.journal.replay())


async def test_times_never_go_back_over_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        async with orchestrator(tmp_path / "j") as running, node(running, b"a") as a:
            a.hold_base()
            assert await a.talk.flush(5)
            times = [e.at for e in running.journal.replay()]
            assert times == sorted(times)


async def test_a_conversation_over_a_restart_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Both nodes go on talking while the orchestrator is away, and again afterwards."""
    async with AsyncExitStack() as nodes:
        async with orchestrator(tmp_path / "j") as running:
            port = int(running.url.rpartition(":")[2])
            first, last = await ready_pair(nodes, running)
            first.log.add(OpKind.FORWARD, microbatch=0)
            first.talk.send(receipts=1, frames=[first.notice(last, 0)])
            await until(lambda: len(last.events(FrameReady)) == 1)
        # Nobody answers now: what is said must wait.
        for i in (1, 2):
            first.log.add(OpKind.FORWARD, microbatch=i)
            first.talk.send(receipts=1 + i, frames=[first.notice(last, i)])
        assert not await first.talk.flush(0.2)
        async with orchestrator(tmp_path / "j", port=port, store=running.store) as running:
            first.log.add(OpKind.FORWARD, microbatch=3)
            first.talk.send(receipts=4, frames=[first.notice(last, 3)])
            await until(lambda: len(last.events(FrameReady)) == 4, 20)
            assert await first.talk.flush(10)
            assert first.talk.stored == 4
            said = [e for e in running.journal.replay() if isinstance(e, Exchanged)]
            assert [r.seq for e in said for r in e.receipts] == [1, 2, 3, 4]
            heard = [d.seq for d in last.heard]
            assert heard == sorted(set(heard))
            names: list[FrameName] = [e.notice.name for e in last.events(FrameReady)]
            assert sorted(n.microbatch for n in names) == [0, 1, 2, 3]


async def test_an_answer_that_was_lost_is_made_up_for(tmp_path: Path) -> None:
    """The exchange was stored, but its answer never arrived: said again, it is recognised."""
    async with orchestrator(tmp_path / "j") as running, node(running, b"a") as a:
        give_work(running, a)
        a.log.add()
        a.talk.send(receipts=1)
        await until(lambda: running.coordinator.members[a.hotkey.ss58].receipts == 1)
        assert a.client._http._direct is not None
        connector = a.client._http._direct.connector
        assert connector is not None
        for protocol in list(connector._acquired):
            assert protocol.transport is not None
            protocol.transport.abort()
        a.log.add()
        a.talk.send(receipts=2)
        assert await a.talk.flush(10)
        said = [e for e in running.journal.replay() if isinstance(e, Exchanged)]
        assert [r.seq for e in said for r in e.receipts] == [1, 2]


async def test_a_conversation_that_is_refused_tells_its_reader(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running:
        running.members.only = {Hotkey.from_seed(b"a" * 32).ss58}
        async with running.client(Hotkey.from_seed(b"a" * 32)) as client:
            await client.join(join_request())
            async with Conversation(client, 0, retry_for_s=0.2) as talk:
                running.members.only = set()
                talk.send(reports=[Ready(epoch=0, digest=BASE)])
                caught = None
                try:
                    async for delivered in talk.events():
                        assert not isinstance(delivered.event, RunEnd)
                except Problem as problem:
                    caught = problem.type
                assert caught is ProblemType.NOT_A_MEMBER


async def test_a_request_that_an_earlier_process_took_is_not_taken_again(tmp_path: Path) -> None:
    hotkey, body = Hotkey.from_seed(b"a" * 32), join_request().model_dump_json().encode()
    async with orchestrator(tmp_path / "j") as running:
        headers = signed(hotkey, "/v1/join", body)
        assert (await raw(running, "/v1/join", body, headers=headers))[0] == 200
    async with orchestrator(tmp_path / "j") as again:
        status, document, answer = await raw(again, "/v1/join", body, headers=headers)
        assert (status, document["type"]) == (503, "urn:iota:problem:restarted")
        assert "Retry-After" in answer


async def test_stopping_answers_open_polls_at_once(tmp_path: Path) -> None:
    hotkey = Hotkey.from_seed(b"a" * 32)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(orchestrator(tmp_path / "j"))
        async with running.client(hotkey) as client:
            await client.join(join_request())
            poll = asyncio.create_task(client.exchange(ExchangeRequest(cursor=1000, wait_s=5), retry_for_s=0))
            done, _ = await asyncio.wait([poll], timeout=0.2)
            assert not done
            begun = asyncio.get_running_loop().time()
            await stack.aclose()
            assert asyncio.get_running_loop().time() - begun < 2
            assert (await poll).events == ()
