"""The receipt chain on the miner's disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.receipts import GENESIS, RECEIPTS_DOMAIN, OpKind, Receipt, signed_payload
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
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    log.append(_fields(0))
    log.close()
    with pytest.raises(ValueError, match="another run or hotkey"):
        ReceiptLog(tmp_path / "log", "00" * 32, hotkey)


def test_a_log_without_receipts_serves_another_run(tmp_path: Path, hotkey: Hotkey) -> None:
    ReceiptLog(tmp_path / "log", RUN, hotkey).close()
    log = ReceiptLog(tmp_path / "log", "00" * 32, hotkey)
    receipt = log.append(_fields(0))
    log.close()
    assert ReceiptLog(tmp_path / "log", "00" * 32, hotkey).head == receipt.content_digest()


def _written(path: Path, hotkey: Hotkey, count: int, epochs: int = 1) -> list[Receipt]:
    """A closed log with so many receipts in each of so many epochs."""
    log = ReceiptLog(path, RUN, hotkey)
    made = [log.append(_fields(n, epoch)) for epoch in range(epochs) for n in range(count)]
    log.close()
    return made


def _changed(line: bytes) -> bytes:
    """The same receipt of another version of the weights."""
    assert b'"version":0' in line
    return line.replace(b'"version":0', b'"version":1')


def _resigned(line: bytes) -> bytes:
    """Changed, and with the digest that fits the change: only the chain tells."""
    text = _changed(line).removesuffix(b"\n").partition(b" ")[2]
    return blake3(text).hexdigest().encode() + b" " + text + b"\n"


@pytest.mark.parametrize("damage", [_changed, lambda line: b"", lambda line: b"\0" * len(line) + b"\n"])
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_log_changed_in_any_place_is_kept_aside_and_goes_on_from_its_intact_receipts(
    tmp_path: Path,
    hotkey: Hotkey,
    at: int,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "log"
    made = _written(path, hotkey, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[at] = damage(lines[at])
    path.write_bytes(b"".join(lines))
    changed = path.read_bytes()
    log = ReceiptLog(path, RUN, hotkey)
    assert (log.count, log.head) == (at - 1, made[at - 1].previous)
    assert (tmp_path / "log.damaged-1").read_bytes() == changed
    assert f"damaged after receipt {at - 1}" in caplog.text
    assert "log.damaged-1" in caplog.text
    log.continue_from(4, made[3].content_digest())  # the orchestrator has four
    assert log.append(_fields(9)).seq == max(4, at - 1) + 1
    log.close()
    assert ReceiptLog(path, RUN, hotkey).count == max(4, at - 1) + 1


def test_a_receipt_that_was_changed_with_its_digest_breaks_the_chain(tmp_path: Path, hotkey: Hotkey) -> None:
    path = tmp_path / "log"
    _written(path, hotkey, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = _resigned(lines[2])
    path.write_bytes(b"".join(lines))
    assert ReceiptLog(path, RUN, hotkey).count == 2


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\0" * 5000, b"x" * 200_000])
def test_a_file_that_is_no_log_is_kept_aside(tmp_path: Path, hotkey: Hotkey, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    log = ReceiptLog(path, RUN, hotkey)
    assert (log.count, log.head) == (0, GENESIS)
    log.append(_fields(0))
    log.close()
    assert ReceiptLog(path, RUN, hotkey).count == 1
    assert (tmp_path / "log.damaged-1").read_bytes() == content


def test_a_log_of_another_version_is_kept_aside(tmp_path: Path, hotkey: Hotkey) -> None:
    path = tmp_path / "log"
    _written(path, hotkey, 1)
    first, rest = path.read_bytes().split(b"\n", 1)
    text = first.partition(b" ")[2].replace(b'"version":5', b'"version":4')
    path.write_bytes(blake3(text).hexdigest().encode() + b" " + text + b"\n" + rest)
    assert ReceiptLog(path, RUN, hotkey).count == 0
    assert (tmp_path / "log.damaged-1").exists()


def test_an_orchestrator_with_another_chain_is_followed_and_the_loss_is_said(
    tmp_path: Path, hotkey: Hotkey, caplog: pytest.LogCaptureFixture
) -> None:
    made = _written(tmp_path / "log", hotkey, 5)
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    log.continue_from(3, "ef" * 32)
    assert (log.count, log.head, log.after(3)) == (3, "ef" * 32, None)
    assert "receipts 4 to 5 is lost" in caplog.text
    assert made[4].content_digest().encode() in (tmp_path / "log.damaged-1").read_bytes()


@pytest.mark.parametrize("stored", [0, 3, 5])
def test_an_orchestrator_with_the_same_chain_gets_the_rest(
    tmp_path: Path, hotkey: Hotkey, stored: int, caplog: pytest.LogCaptureFixture
) -> None:
    made = _written(tmp_path / "log", hotkey, 5)
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    log.continue_from(stored, made[stored - 1].content_digest() if stored else GENESIS)
    batch = log.after(stored)
    assert [r.seq for r in (batch.receipts if batch else ())] == list(range(stored + 1, 6))
    assert caplog.text == ""


def test_of_a_long_log_the_last_two_epochs_are_in_memory(tmp_path: Path, hotkey: Hotkey) -> None:
    _written(tmp_path / "log", hotkey, 3, epochs=5)
    log = ReceiptLog(tmp_path / "log", RUN, hotkey)
    assert log.count == 15
    assert [log.find((epoch, 0, 0, 0, OpKind.FORWARD)) is not None for epoch in range(5)] == [
        False, False, False, True, True
    ]  # fmt: skip
    batch = log.after(9)
    assert batch is not None
    assert [r.seq for r in batch.receipts] == list(range(10, 16))
