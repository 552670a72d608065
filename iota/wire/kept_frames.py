"""The frames that a miner's receipts name: it keeps them until the audits of their epoch are closed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from iota.protocol.frames import FrameName
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import RunSpec
from iota.wire.receipt_form import input_headers


def sent_name(receipt: Receipt) -> FrameName | None:
    """The name of the frame that an op sent; None if it sends none."""
    sends = receipt.kind is OpKind.FORWARD or receipt.stage > 0
    of_microbatch = receipt.kind in (OpKind.FORWARD, OpKind.BACKWARD, OpKind.LOSS)
    return FrameName.of(receipt.key, receipt.stage) if sends and of_microbatch else None


def step_frames(spec: RunSpec, receipts: Iterable[Receipt], epoch: int, step: int) -> list[FrameName]:
    """The frames that the receipted ops of a step read and sent, in the order of the receipts, each once.

    Raises ValueError for a receipt that names other inputs than its op has.
    """
    found: dict[FrameName, None] = {}
    for receipt in receipts:
        if (receipt.epoch, receipt.step) != (epoch, step) or receipt.kind is OpKind.MERGE:
            continue
        found |= dict.fromkeys(header.name for header in input_headers(spec, receipt))
        if (sent := sent_name(receipt)) is not None:
            found[sent] = None
    return list(found)
