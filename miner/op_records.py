"""What an op leaves on disk: its frame, and then its receipt. Called in the recorder's thread only."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from iota.identity.keys import Hotkey
from iota.outer.partition import PartError
from iota.protocol.frames import FrameName, FrameNotice
from iota.protocol.receipts import OpKey, OpKind, Receipt
from iota.spec import RunSpec
from iota.wire.frame import FrameError, FrameHeader, check_frame, encode_frame, make_header
from iota.wire.transport import OutgoingFrame
from miner.committer import Committer
from miner.core.schedule import Op
from miner.disk import MinerDisk
from miner.receipt_log import ReceiptLog

log = logging.getLogger(__name__)


class StateLost(Exception):
    """This replica's weights cannot be trusted or rebuilt; it must join again from the run's base."""


@dataclass
class OpRecords:
    """One replica's frames and receipts. All raise OSError if the disk is full; nothing was then written."""

    spec: RunSpec
    stage: int
    hotkey: Hotkey
    log: ReceiptLog
    disk: MinerDisk
    device: str
    """Device class that the receipts name."""
    committer: Committer = field(repr=False)

    def frame(self, op: Op, payload: bytes | memoryview, digest: str, receiver: str) -> OutgoingFrame:
        """The op's signed frame, written to disk before its receipt.

        A frame that an earlier process wrote for the same payload is sent again, whoever received it then:
        signatures are randomised, so a second one would make other bytes than those that may be in the store.
        """
        name = FrameName.of(op.key, self.stage)
        header = make_header(self.spec, name, digest, self.hotkey.ss58, receiver)
        data = self._kept_frame(header)
        if data is None:
            data = encode_frame(header, payload, self.hotkey.sign)
            self.disk.save_frame(name, data)
        notice = FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data))
        return OutgoingFrame(notice, data)

    def _kept_frame(self, header: FrameHeader) -> bytes | None:
        """The frame on disk with this header but for its receiver; None if there is none, or another one."""
        try:
            data = self.disk.frame(header.name).read_bytes()
            kept = check_frame(data, self.spec).header
            if kept.model_copy(update={"receiver": header.receiver}) == header:
                return data
        except FileNotFoundError:
            return None
        except FrameError as error:
            log.warning("frame %s on this disk is damaged and is made anew: %s", header.name, error)
        return None

    def receipt(self, op: Op, **fields: Any) -> None:
        """Append the op's receipt, or compare the result with the receipt of an earlier process.

        Raises StateLost if they differ.
        """
        self._write(op.key, op.version, self.log.find(op.key), fields)

    def commits(self) -> None:
        """Write the receipts of the commitments that are complete, in order.

        None of an epoch may stand after those of a later one: it is then left out. Raises StateLost and
        OSError; the receipts before the one concerned are written.
        """
        try:
            ready = self.committer.take()
        except PartError as error:
            raise StateLost(f"the error feedback on this disk is damaged: {error}") from error
        for done, earlier in ready:
            if done.epoch < self.log.newest_epoch:
                continue
            key = (done.epoch, done.version, 0, 0, OpKind.COMMIT)
            fields = {
                "output": done.made.root,
                "commitment": done.made,
                "started": done.started,
                "ended": done.ended,
            }
            self._write(key, done.version, earlier, fields)

    def _write(self, key: OpKey, version: int, earlier: Receipt | None, fields: dict[str, Any]) -> None:
        epoch, step, microbatch, attempt, kind = key
        if earlier is None:
            self.log.append(
                {
                    "epoch": epoch,
                    "step": step,
                    "microbatch": microbatch,
                    "attempt": attempt,
                    "stage": self.stage,
                    "kind": kind,
                    "version": version,
                    "device": self.device,
                    **fields,
                }
            )
        elif not _agrees(earlier, fields):
            raise StateLost(f"{kind} {step}/{microbatch} no longer gives the result that was receipted")


def _agrees(earlier: Receipt, fields: dict[str, Any]) -> bool:
    """Whether a repeated op gave the receipted result."""
    found = (fields["output"], fields.get("update"), fields.get("commitment"))
    return (earlier.output, earlier.update, earlier.commitment) == found
