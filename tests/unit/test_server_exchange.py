"""The exchange: long polls, acknowledgements, receipts, silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from iota.client.conversation import Conversation
from iota.identity.keys import Hotkey
from iota.objects import DeltaKey, FrameKey, part_count
from iota.protocol.events import Delivered, FrameReady, LoadBase, Plan, RunEnd, StepClose
from iota.protocol.frames import StoredObject
from iota.protocol.messages import (
    AuditsDone,
    Delta,
    ExchangeRequest,
    NodeStatus,
    Ready,
    Role,
    WeightsSet,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind
from orchestrator.coordinator import Exchanged, Lost, Returned
from orchestrator.coordinator.epoch_state import EpochState
from tests.support.orchestrators import (
    BASE,
    Log,
    Node,
    Running,
    give_work,
    join_request,
    make_spec,
    node,
    orchestrator,
    raw,
    until,
)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal") as running:
        yield running


async def planned(*nodes: Node) -> None:
    """Let nodes report their base and get the first plan."""
    for each in nodes:
        each.hold_base()
    await until(lambda: all(each.events(Plan) for each in nodes))


async def test_a_poll_waits_and_is_answered_when_there_is_news(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        await planned(a, b)
        for each, other in ((a, b), (b, a)):
            first = each.events(Plan)[0].share.microbatches[0]
            assert {first.before, first.after} == {None, other.hotkey.ss58}


async def test_a_newer_poll_releases_the_older_without_events(running: Running) -> None:
    hotkey = Hotkey.from_seed(b"a" * 32)
    async with running.client(hotkey) as client:
        await client.join(join_request())
        request = ExchangeRequest(cursor=1000, wait_s=5)
        older = asyncio.create_task(client.exchange(request))
        await until(lambda: len(running.coordinator.members) == 1)
        newer = asyncio.create_task(client.exchange(request))
        async with asyncio.timeout(2):
            done, _ = await asyncio.wait({older, newer}, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert done.pop().result().events == ()
        await asyncio.gather(older, newer)


async def test_what_was_missed_before_is_no_news_to_a_reader_that_is_behind(running: Running) -> None:
    hotkey, later = Hotkey.from_seed(b"a" * 32), Delivered(seq=10**6, event=RunEnd())
    async with running.client(hotkey) as client:
        reply = await client.join(join_request())
        async with Conversation(client, reply.cursor, wait_s=0.1) as talk:
            await until(lambda: talk.is_news(later))
            missed = await anext(talk.events())
            assert isinstance(missed.event, LoadBase)
            assert not talk.is_news(missed)


async def test_a_frame_reaches_its_receiver_with_a_url_to_read_it(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        await planned(a, b)
        notice = a.notice(b, 0)
        a.talk.send(frames=[notice])
        await until(lambda: bool(b.events(FrameReady)))
        [delivered] = [d for d in b.heard if isinstance(d.event, FrameReady)]
        assert isinstance(delivered.event, FrameReady)
        assert delivered.event.notice == notice
        assert "op=get" in delivered.urls[str(FrameKey(running.spec.id, notice.name))]


async def test_an_exchange_without_news_is_not_journaled(running: Running) -> None:
    hotkey = Hotkey.from_seed(b"a" * 32)
    async with running.client(hotkey) as client:
        await client.join(join_request())
        await client.exchange(ExchangeRequest(cursor=0, wait_s=0, status=NodeStatus(state="idle")))
        assert not [e for e in running.journal.replay() if isinstance(e, Exchanged)]
        status = await client.status()
        assert status["nodes"][hotkey.ss58]["state"] == "idle"


async def test_receipts_are_stored_once_however_often_they_are_sent(running: Running) -> None:
    async with node(running, b"a") as a:
        give_work(running, a)
        for _ in range(3):
            a.log.add()
        batch = a.log.after(0)
        for _ in range(2):
            reply = await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, receipts=batch))
            assert reply.receipts == 3
        stored = [r for e in running.journal.replay() if isinstance(e, Exchanged) for r in e.receipts]
        assert [r.seq for r in stored] == [1, 2, 3]


async def test_receipts_after_a_gap_are_not_taken_and_the_answer_says_so(
    running: Running,
) -> None:
    async with node(running, b"a") as a:
        give_work(running, a)
        for _ in range(4):
            a.log.add()
        reply = await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, receipts=a.log.after(2)))
        assert reply.receipts == 0
        reply = await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, receipts=a.log.after(0)))
        assert reply.receipts == 4


async def refused_news(a: Node, **news: object) -> ProblemType:
    with pytest.raises(Problem) as caught:
        await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, **news), retry_for_s=0)
    return caught.value.type


async def test_receipts_of_another_signer_stage_or_chain_change_nothing(
    running: Running,
) -> None:
    async with node(running, b"a") as a:
        give_work(running, a)
        log = Log(a.hotkey, running.spec.id, a.reply.stage)
        log.add()
        forged = log.sign(log.receipts, by=Hotkey.from_seed(b"z" * 32))
        assert await refused_news(a, receipts=forged) is ProblemType.BAD_SIGNATURE
        other = Log(a.hotkey, running.spec.id, 1 - a.reply.stage)
        other.add()
        assert await refused_news(a, receipts=other.after(0)) is ProblemType.BAD_RECEIPTS
        torn = Log(a.hotkey, running.spec.id, a.reply.stage)
        torn.add()
        torn.add(previous="e" * 64)
        assert await refused_news(a, receipts=torn.after(0)) is ProblemType.BAD_RECEIPTS
        await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, receipts=log.after(0)))
        fork = Log(a.hotkey, running.spec.id, a.reply.stage)
        fork.add(output="f" * 64)
        fork.add()
        assert await refused_news(a, receipts=fork.after(0)) is ProblemType.BAD_RECEIPTS
        assert running.coordinator.members[a.hotkey.ss58].head == log.receipts[0].content_digest()


async def test_receipts_that_no_op_gives_are_refused(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b, node(running, b"v", Role.VALIDATOR) as v:
        first, last = (a, b) if a.reply.stage == 0 else (b, a)

        async def refused(by: Node, kind: OpKind, **fields: object) -> None:
            log = Log(by.hotkey, running.spec.id, max(0, by.reply.stage))
            log.add(kind, **fields)
            assert await refused_news(by, receipts=log.after(0)) is ProblemType.BAD_RECEIPTS, (kind, fields)

        await refused(first, OpKind.MERGE)
        await refused(v, OpKind.FORWARD)
        await refused(first, OpKind.LOSS, loss=1.0)
        await refused(last, OpKind.FORWARD, loss=1.0)
        await refused(last, OpKind.LOSS, loss=-1.0)
        await refused(last, OpKind.LOSS, loss=1e30)
        await refused(first, OpKind.FORWARD, started=0.0)
        await refused(first, OpKind.FORWARD, started=2.0, ended=1.0)
        await refused(first, OpKind.FORWARD, epoch=1)
        assert not [e for e in running.journal.replay() if isinstance(e, Exchanged)]


async def test_receipts_do_not_go_back_to_an_earlier_epoch(running: Running) -> None:
    async with node(running, b"a") as a:
        state = running.coordinator.state
        state.epoch = 1
        state.epochs[1] = EpochState(1)
        give_work(running, a)
        a.log.add(epoch=1)
        back = Log(a.hotkey, running.spec.id, a.reply.stage, list(a.log.receipts))
        back.add(epoch=0)
        assert await refused_news(a, receipts=back.after(0)) is ProblemType.BAD_RECEIPTS
        await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, receipts=a.log.after(0)))
        assert await refused_news(a, receipts=back.after(1)) is ProblemType.BAD_RECEIPTS
        a.log.add(epoch=1)
        reply = await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, receipts=a.log.after(1)))
        assert reply.receipts == 2


async def test_a_delta_names_every_part_of_its_stage_once(running: Running) -> None:
    async with node(running, b"a") as a:
        stage, hotkey = a.reply.stage, a.hotkey.ss58
        stored = [
            StoredObject(key=str(DeltaKey(running.spec.id, 0, stage, hotkey, n)), digest=BASE, size=4096)
            for n in range(part_count(running.spec, stage))
        ]
        for wrong in (stored[:-1], stored[:1] * len(stored), []):
            delta = Delta(epoch=0, parts=tuple(wrong))
            assert await refused_news(a, reports=(delta,)) is ProblemType.FORBIDDEN
        whole = Delta(epoch=0, parts=tuple(stored))
        await a.client.exchange(ExchangeRequest(cursor=0, wait_s=0, reports=(whole,)))


def exchanges(running: Running) -> int:
    """How many exchanges with news were journaled."""
    return len(said(running))


def said(running: Running) -> list[Exchanged]:
    """The exchanges with news that were journaled."""
    return [entry for entry in running.journal.replay() if isinstance(entry, Exchanged)]


async def test_repeated_news_is_journaled_once(running: Running) -> None:
    async with node(running, b"v", Role.VALIDATOR) as v:
        news, nothing = WeightsSet(block=7, weights={}, compute_share=0.5), AuditsDone(epoch=0)
        request = ExchangeRequest(cursor=0, wait_s=0, reports=(news, nothing))
        for _ in range(3):
            await v.client.exchange(request)
        assert [entry.reports for entry in said(running)] == [(news,)]
        await v.client.join(join_request(Role.VALIDATOR))
        await v.client.exchange(request)
        assert exchanges(running) == 1


async def test_a_frame_is_journaled_once_and_only_where_it_is_wanted(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        request = ExchangeRequest(cursor=0, wait_s=0, frames=(a.notice(b, 0),))
        await a.client.exchange(request)
        assert exchanges(running) == 0  # nothing is planned yet
        await planned(a, b)
        before = exchanges(running)
        for _ in range(3):
            await a.client.exchange(request)
        assert exchanges(running) == before + 1


async def test_frames_of_another_stage_and_reports_of_another_role_are_refused(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b, node(running, b"v", Role.VALIDATOR) as v:
        assert await refused_news(a, frames=(b.notice(a, 0),)) is ProblemType.FORBIDDEN
        assert await refused_news(a, reports=(AuditsDone(epoch=0),)) is ProblemType.FORBIDDEN
        assert await refused_news(v, reports=(Ready(epoch=0, digest=BASE),)) is ProblemType.FORBIDDEN
        foreign = f"{running.spec.id}/delta/0/{b.reply.stage}/{b.hotkey.ss58}/part-000"
        delta = Delta(epoch=0, parts=(StoredObject(key=foreign, digest=BASE, size=4096),))
        assert await refused_news(a, reports=(delta,)) is ProblemType.FORBIDDEN
        assert not [e for e in running.journal.replay() if isinstance(e, Exchanged)]


async def test_a_silent_member_is_lost_and_one_heard_again_is_back(tmp_path: Path) -> None:
    hotkey = Hotkey.from_seed(b"a" * 32)
    async with orchestrator(tmp_path / "j", silence_s=0.2) as running, running.client(hotkey) as client:
        await client.join(join_request())
        await until(lambda: not running.coordinator.members[hotkey.ss58].live)
        await client.exchange(ExchangeRequest(cursor=0, wait_s=0))
        assert running.coordinator.members[hotkey.ss58].live
        kinds = [type(e) for e in running.journal.replay() if isinstance(e, Lost | Returned)]
        assert kinds[:2] == [Lost, Returned]


async def test_a_member_whose_poll_is_always_open_is_not_lost(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j", silence_s=0.6) as running, node(running, b"a") as a:
        await until(lambda: running.chain.number == 1 and bool(a.events(LoadBase)))
        end = asyncio.get_running_loop().time() + 1.5
        await until(lambda: asyncio.get_running_loop().time() > end)
        assert not [e for e in running.journal.replay() if isinstance(e, Lost)]


async def test_leaving_is_recorded_once(running: Running) -> None:
    async with node(running, b"a") as a:
        await a.client.leave("done")
        await a.client.leave("done")
        assert running.coordinator.members[a.hotkey.ss58].left
        assert sum(e.kind == "left" for e in running.journal.replay()) == 1


async def test_a_full_disk_answers_unavailable_and_changes_nothing_in_memory(tmp_path: Path) -> None:
    spec = make_spec(microbatches=900)
    async with orchestrator(tmp_path / "full", spec) as running, node(running, b"a") as a:
        give_work(running, a)
        for _ in range(900):
            a.log.add(output="9" * 64)
        pages = running.journal._db.execute("PRAGMA page_count").fetchone()[0]
        running.journal._db.execute(f"PRAGMA max_page_count = {pages}")
        request = ExchangeRequest(cursor=0, wait_s=0, receipts=a.log.after(0))
        with pytest.raises(Problem) as caught:
            await a.client.exchange(request, retry_for_s=0)
        assert (caught.value.status, caught.value.type) == (503, ProblemType.UNAVAILABLE)
        assert running.coordinator.members[a.hotkey.ss58].receipts == 0
        running.journal._db.execute("PRAGMA max_page_count = 1000000")
        assert (await a.client.exchange(request)).receipts == 900


async def test_a_new_block_is_recorded(running: Running) -> None:
    await until(lambda: running.coordinator.state.head.block == 1)
    running.chain.number = 2
    await until(lambda: running.coordinator.state.head.block == 2)


async def test_a_step_closes_through_receipts_alone(running: Running) -> None:
    async with node(running, b"a") as a, node(running, b"b") as b:
        await planned(a, b)
        first, last = (a, b) if a.reply.stage == 0 else (b, a)
        for i in range(running.spec.schedule.microbatches):
            first.log.add(OpKind.FORWARD, microbatch=i)
            first.talk.send(receipts=len(first.log.receipts), frames=[first.notice(last, i)])
            last.log.add(OpKind.LOSS, microbatch=i, loss=4.0, inputs=(last.input_from(first, i),))
            last.talk.send(receipts=len(last.log.receipts), frames=[last.notice(first, i)])
            first.log.add(OpKind.BACKWARD, microbatch=i, inputs=(first.input_from(last, i),))
            first.talk.send(receipts=len(first.log.receipts))
        await until(lambda: bool(a.events(StepClose) and b.events(StepClose)))
        assert len(a.events(StepClose)[0].counted) == running.spec.schedule.microbatches


async def test_metrics_health_and_the_stream_answer(running: Running) -> None:
    import aiohttp

    async with node(running, b"a"), aiohttp.ClientSession() as http:
        await until(lambda: len(running.coordinator.members) == 1)
        async with http.get(running.url + "/metrics") as response:
            text = await response.text()
            assert 'iota_members{live="true",role="miner"} 1.0' in text
            assert "iota_journal_commit_seconds_count" in text
        async with http.get(running.url + "/healthz") as response:
            assert response.status == 200
        async with http.get(running.url + "/readyz") as response:
            assert response.status == 200
        async with http.get(running.url + "/v1/stream") as response, asyncio.timeout(5):
            assert (await response.content.readline()).startswith(b"id: ")
            assert (await response.content.readline()).startswith(b'data: {"run":')
    assert (await raw(running, "/v1/status", b"", method="GET"))[0] == 200
