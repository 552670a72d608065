"""The receipt chain on the miner's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.receipts import GENESIS, RECEIPTS_DOMAIN, OpKind, signed_payload
from miner.receipt_log import ReceiptLog

RUN = "ab" * 32


def _fields(index: int, epoch: int = 0) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": 0,
        "microbatch": index,
        "stage": 0,
        "kind": OpKind.FORWARD,
        "version": 0,
        "output": "cd" * 32,
        "started": 1.0,
        "ended": 2.0,
        "device": "test",
    }


@pytest.fixture
def hotkey() -> Hotkey:
    return Hotkey.generate()


def test_receipts_chain_and_their_batch_is_signed(tmp_path: Path, hotkey: Hotkey) -> None:
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    first, second = log.append(_fields(0)), log.append(_fields(1))
    assert (first.seq, first.previous) == (1, GENESIS)
    assert (second.seq, second.previous) == (2, first.content_digest())
    batch = log.after(0)
    assert batch is not None
    assert batch.receipts == (first, second)
    message = signing_bytes(RECEIPTS_DOMAIN, signed_payload(RUN, hotkey.ss58, second.content_digest()))
    assert verify(message, bytes.fromhex(batch.signature), hotkey.ss58)


def test_a_new_process_continues_the_chain_and_finds_what_was_run(tmp_path: Path, hotkey: Hotkey) -> None:
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    receipt = log.append(_fields(0))
    log.close()
    again = ReceiptLog(tmp_path / "log", RUN, hotkey)
    assert (again.count, again.head) == (1, receipt.content_digest())
    assert again.find((0, 0, 0, 0, OpKind.FORWARD)) == receipt
    assert again.find((0, 0, 1, 0, OpKind.FORWARD)) is None
    assert again.append(_fields(1)).previous == receipt.content_digest()


def test_a_torn_last_line_is_as_if_it_had_never_been_written(tmp_path: Path, hotkey: Hotkey) -> None:
    path = tmp_path / "log"
    log = ReceiptLog(path, RUN, hotkey)
    log.append(_fields(0))
    log.append(_fields(1))
    log.close()
    path.write_bytes(path.read_bytes()[:-20])
    again = ReceiptLog(path, RUN, hotkey)
    assert again.count == 1
    again.append(_fields(2))
    again.close()
    assert ReceiptLog(path, RUN, hotkey).count == 2


def test_stored_receipts_are_not_offered_again(tmp_path: Path, hotkey: Hotkey) -> None:
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    for index in range(3):
        log.append(_fields(index))
    log.stored(2)
    batch = log.after(0)
    assert batch is not None
    assert [r.seq for r in batch.receipts] == [3]
    assert log.after(3) is None


def test_a_lost_disk_continues_from_what_the_orchestrator_knows(tmp_path: Path, hotkey: Hotkey) -> None:
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    log.continue_from(41, "ef" * 32)
    receipt = log.append(_fields(0))
    assert (receipt.seq, receipt.previous) == (42, "ef" * 32)
    log.close()
    assert ReceiptLog(tmp_path / "log", RUN, hotkey).count == 42


def test_another_runs_log_is_refused(tmp_path: Path, hotkey: Hotkey) -> None:
    ReceiptLog(tmp_path / "log", RUN, hotkey).close()
    with pytest.raises(ValueError, match="another run or hotkey"):
        ReceiptLog(tmp_path / "log", "00" * 32, hotkey)
