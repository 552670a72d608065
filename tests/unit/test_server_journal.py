"""A server over a journal of the test's own: any `Journal` may be given, and no core file knows of it."""

from __future__ import annotations

import asyncio

import pytest

from iota.protocol.messages import ExchangeRequest
from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator import Exchanged, Resumed
from orchestrator.journal import JournalBroken
from tests.support.journals import MemoryJournal
from tests.support.orchestrators import give_work, node, orchestrator


async def test_a_run_is_recorded_served_and_restored_by_any_journal() -> None:
    journal = MemoryJournal()
    async with orchestrator(journal) as running, node(running, b"a") as miner:
        give_work(running, miner)
        miner.log.add()
        batch = miner.log.after(0)
        assert (
            await miner.client.exchange(ExchangeRequest(cursor=0, wait_s=0, receipts=batch))
        ).receipts == 1
        assert journal.receipts(miner.hotkey.ss58, 0) == [batch]
        before = running.coordinator.members[miner.hotkey.ss58].head
    async with orchestrator(journal) as again:
        assert again.coordinator.members[miner.hotkey.ss58].head == before
        kinds = [type(entry) for entry in journal.replay()]
        assert kinds.count(Exchanged) == 1
        assert kinds.count(Resumed) == 1


async def test_a_journal_that_cannot_store_changes_nothing_and_news_is_taken_later() -> None:
    journal = MemoryJournal()
    async with orchestrator(journal) as running, node(running, b"a") as miner:
        give_work(running, miner)
        miner.log.add()
        request = ExchangeRequest(cursor=0, wait_s=0, receipts=miner.log.after(0))
        journal.full = True
        with pytest.raises(Problem) as caught:
            await miner.client.exchange(request, retry_for_s=0)
        assert caught.value.type is ProblemType.UNAVAILABLE
        assert running.coordinator.members[miner.hotkey.ss58].receipts == 0
        journal.full = False
        assert (await miner.client.exchange(request)).receipts == 1


async def test_a_broken_journal_ends_the_server() -> None:
    journal = MemoryJournal()
    async with orchestrator(journal) as running:
        journal.broken = True
        running.chain.number += 1  # a new head has to be recorded
        async with asyncio.timeout(10):
            await asyncio.wait([running.background])
        with pytest.raises(ExceptionGroup) as caught:
            running.background.result()
        assert caught.group_contains(JournalBroken)
