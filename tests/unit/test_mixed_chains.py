"""Chains in which receipts of two epochs are mixed: with overlap an epoch is merged while the next trains."""

from __future__ import annotations

from typing import Any

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import OpKind
from iota.protocol.records import LifeRecord, MinerRecord
from tests.support.audited_miners import batch
from tests.support.orchestrators import Log
from validator.core.record_checks import SealBroken
from validator.core.signed_chains import checked_receipts

MINER = Hotkey.from_seed(b"\x05" * 32)
RUN = "0" * 64


def _log() -> Any:
    """Ops of epochs 0 and 1 with merges of epoch 0 between the latter."""
    log = Log(MINER, RUN, 0)
    for epoch, kind in ((0, OpKind.FORWARD), (1, OpKind.FORWARD), (0, OpKind.MERGE), (1, OpKind.FORWARD)):
        log.add(kind, epoch=epoch, microbatch=len(log.receipts))
    return log


def _miner(first: int, last: int) -> MinerRecord:
    return MinerRecord(
        hotkey=MINER.ss58, owner=MINER.ss58, certificate=None, stage=0, moments=None,
        lives=(LifeRecord(joined=0, first_receipt=first),), first_receipt=first, last_receipt=last,
        receipts=EMPTY, withdrawn=0,
    )  # fmt: skip


@pytest.mark.parametrize(("epoch", "ends", "seqs"), [(0, (1, 3), [1, 3]), (1, (2, 4), [2, 4])])
def test_an_epochs_receipts_are_those_of_it_between_its_ends(
    epoch: int, ends: tuple[int, int], seqs: list[int]
) -> None:
    batches = [batch(RUN, MINER, _log().receipts)]
    assert [r.seq for r in checked_receipts(RUN, _miner(*ends), epoch, batches)] == seqs


@pytest.mark.parametrize("ends", [(1, 2), (2, 3)])
def test_an_end_of_another_epoch_breaks_the_record(ends: tuple[int, int]) -> None:
    with pytest.raises(SealBroken, match="of another epoch"):
        checked_receipts(RUN, _miner(*ends), 0, [batch(RUN, MINER, _log().receipts)])


def test_a_gap_between_the_ends_breaks_the_record() -> None:
    log = _log()
    halves = [batch(RUN, MINER, log.receipts[:1]), batch(RUN, MINER, log.receipts[2:])]
    with pytest.raises(SealBroken, match="do not chain"):
        checked_receipts(RUN, _miner(1, 3), 0, halves)
