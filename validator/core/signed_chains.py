"""A miner's receipts from the batches that it signed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from iota.identity.signatures import signing_bytes, verify
from iota.protocol.receipts import RECEIPTS_DOMAIN, Receipt, ReceiptBatch, signed_payload
from iota.protocol.records import MinerRecord
from validator.core.record_checks import SealBroken


def checked_receipts(
    run: str, miner: MinerRecord, epoch: int, batches: Sequence[ReceiptBatch]
) -> list[Receipt]:
    """The miner's receipts of the epoch, from its signed batches.

    Raises SealBroken for a bad signature, a broken chain, a gap, or an end of another epoch. Between its ends
    others may have receipts, as a MERGE of the epoch before.
    """
    chain = signed_chain(run, miner.hotkey, batches)
    there = [r for r in chain if miner.first_receipt <= r.seq <= miner.last_receipt]
    if len(there) != miner.last_receipt - miner.first_receipt + 1:
        raise SealBroken(f"receipts of {miner.hotkey} are missing")
    if there and {there[0].epoch, there[-1].epoch} != {epoch}:
        raise SealBroken(f"a receipt of {miner.hotkey} is of another epoch")
    return [r for r in there if r.epoch == epoch]


def signed_chain(run: str, hotkey: str, batches: Sequence[ReceiptBatch]) -> list[Receipt]:
    """The receipts of signed batches, in order. Raises SealBroken for a bad signature or a broken chain."""
    chain: list[Receipt] = []
    for batch in batches:
        if not batch.receipts:
            continue
        head = batch.receipts[-1].content_digest()
        payload = signing_bytes(RECEIPTS_DOMAIN, signed_payload(run, hotkey, head))
        if not verify(payload, bytes.fromhex(batch.signature), hotkey):
            raise SealBroken(f"a batch of receipts is not signed by {hotkey}")
        # Batches may overlap where one was sent again.
        chain += [r for r in batch.receipts if not chain or r.seq > chain[-1].seq]
    for before, after in pairwise(chain):
        if after.seq != before.seq + 1 or after.previous != before.content_digest():
            raise SealBroken(f"the receipts of {hotkey} do not chain at {after.seq}")
    return chain
