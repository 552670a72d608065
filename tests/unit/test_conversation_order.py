"""A report goes out with the receipts that were queued before it, or after them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from iota.client.conversation import Conversation
from iota.identity.keys import Hotkey
from iota.protocol.events import ExchangeReply
from iota.protocol.messages import ExchangeRequest, Ready
from iota.protocol.receipts import OpKind
from miner.receipt_log import ReceiptLog

REPORT = Ready(epoch=0, digest="0" * 64)


class Client:
    """Answers an exchange that says something at once, and keeps it."""

    def __init__(self) -> None:
        self.heard: list[ExchangeRequest] = []

    async def exchange(self, request: ExchangeRequest, *, retry_for_s: float) -> ExchangeReply:
        if request.receipts is None and not request.reports:
            await asyncio.Event().wait()
        self.heard.append(request)
        stored = request.receipts.receipts[-1].seq if request.receipts is not None else 0
        return ExchangeReply(events=(), receipts=stored)


async def test_a_report_does_not_overtake_a_backlog_of_receipts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miner.receipt_log.BATCH", 1)
    log = ReceiptLog(tmp_path / "receipts", "0" * 64, Hotkey.from_seed(b"1" * 32))
    for part in range(3):
        log.append(
            {
                "epoch": 0,
                "step": 0,
                "microbatch": part,
                "stage": 0,
                "kind": OpKind.MERGE,
                "version": 0,
                "output": "0" * 64,
                "started": 1.0,
                "ended": 1.0,
                "device": "cpu",
            }
        )
    client: Any = Client()
    async with Conversation(client, 0, receipts_after=log.after) as talk:
        talk.send(receipts=log.count, reports=(REPORT,))
        assert await talk.flush(60)
    last = {request.receipts.receipts[-1].seq: request.reports for request in client.heard}
    assert last == {1: (), 2: (), 3: (REPORT,)}
    log.close()
