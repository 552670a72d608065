"""What the orchestrator signs about an epoch: its seal, each step's close, and stored receipts.

The seal binds the whole record by its digest, and each miner's part of it by a Merkle root, so that a miner
need not fetch the record of thousands to check its own part.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from iota.protocol.events import Acknowledgement, EpochClose, StepClose
from iota.protocol.merkle import MAX_PATH, merkle_root_of
from iota.protocol.messages import Hotkey
from iota.protocol.receipts import counted_digest
from iota.protocol.records import EpochRecord, MinerRecord
from iota.spec import Frozen, Hex32, Positive, Small

SEAL_DOMAIN: Final = "seal/1"
"""Domain of the signature on a seal, and the version of its signed form."""
STEP_DOMAIN: Final = "step/1"
"""Domain of the signature on a step's close."""
ACKNOWLEDGEMENT_DOMAIN: Final = "acknowledgement/1"
"""Domain of the signature on an acknowledgement."""
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
"""A hotkey's signature in hex."""


def signed_seal(run: str, seal: EpochClose) -> bytes:
    """The payload of the orchestrator's signature on a seal (domain: `SEAL_DOMAIN`)."""
    fields = (seal.epoch, seal.root, seal.receipts, seal.block, seal.members, seal.record)
    return "\n".join([run, *map(str, fields)]).encode()


def signed_close(run: str, hotkey: str, epoch: int, step: int, counted: str, learning_rate: float) -> bytes:
    """The payload of the signature on what `hotkey` is told at a step's close (domain: `STEP_DOMAIN`).

    `counted` is the `counted_digest` of its list; the learning rate is printed as C's `%a`.
    """
    return f"{run}\n{hotkey}\n{epoch}\n{step}\n{counted}\n{learning_rate.hex()}".encode()


def signed_acknowledgement(run: str, hotkey: str, receipts: int, head: str, sealed: int) -> bytes:
    """The payload of the signature on an acknowledgement (domain: `ACKNOWLEDGEMENT_DOMAIN`)."""
    return f"{run}\n{hotkey}\n{receipts}\n{head}\n{sealed}".encode()


# ---- signed statements, as they are kept and shown to others ------------------------------------------


class SignedSeal(Frozen):
    """GET /v1/epochs/EPOCH/seal: a seal with the orchestrator's signature."""

    seal: EpochClose
    signature: Signature

    def payload(self, run: str) -> bytes:
        """What the signature covers."""
        return signed_seal(run, self.seal)


class SignedRoot(Frozen):
    """The root of a step's plan that a miner heard, with the orchestrator's signature (`PLAN_DOMAIN`)."""

    epoch: Small
    step: Small
    count: Positive
    """Shares under the root."""
    root: Hex32
    signature: Signature

    def payload(self, run: str) -> bytes:
        """What the signature covers, as in `iota.protocol.plans.signed_root`."""
        return f"{run}\n{self.epoch}\n{self.step}\n{self.count}\n{self.root}".encode()


class SignedClose(Frozen):
    """What a miner heard at a step's close, with the orchestrator's signature."""

    hotkey: Hotkey
    epoch: Small
    step: Small
    counted: Hex32
    """`counted_digest` of the list."""
    learning_rate: float
    signature: Signature

    @classmethod
    def of(cls, hotkey: str, close: StepClose, signature: str) -> SignedClose:
        """The statement that came as an event."""
        return cls(
            hotkey=hotkey,
            epoch=close.epoch,
            step=close.step,
            counted=counted_digest(close.counted),
            learning_rate=close.learning_rate,
            signature=signature,
        )

    def payload(self, run: str) -> bytes:
        """What the signature covers."""
        return signed_close(run, self.hotkey, self.epoch, self.step, self.counted, self.learning_rate)


def acknowledgement_payload(run: str, hotkey: str, said: Acknowledgement) -> bytes:
    """What the signature of an acknowledgement to `hotkey` covers."""
    return signed_acknowledgement(run, hotkey, said.receipts, said.head, said.sealed)


# ---- a miner's part of the record --------------------------------------------------------------------


class MemberPart(Frozen):
    """What an epoch's record says about one miner; a pure function of the record."""

    epoch: Small
    miner: MinerRecord
    plans: tuple[Hex32, ...]
    """Root of each step's plan, in order of the steps."""
    counted: tuple[Hex32, ...]
    """`counted_digest` of the miner's list in each of these steps."""


class SealedPart(Frozen):
    """GET /v1/epochs/EPOCH/record/HOTKEY: a miner's part, and its path to the seal's `members`."""

    part: MemberPart
    at: Small
    count: Positive
    """Miners of the record."""
    path: Annotated[tuple[Hex32, ...], Field(max_length=MAX_PATH)]

    def is_of(self, seal: EpochClose) -> bool:
        """Whether the seal covers this part."""
        root = merkle_root_of(self.part.content_digest(), self.at, self.count, self.path)
        return self.part.epoch == seal.epoch and root == seal.members


def member_parts(record: EpochRecord) -> list[MemberPart]:
    """The part of each miner, in the record's order: the leaves of the seal's `members`."""
    empty = counted_digest(())
    lists = {(each.miner, each.step): counted_digest(each.counted) for each in record.counted}
    roots = tuple(plan.root for plan in record.plans)
    return [
        MemberPart(
            epoch=record.epoch,
            miner=miner,
            plans=roots,
            counted=tuple(lists.get((miner.hotkey, plan.step), empty) for plan in record.plans),
        )
        for miner in record.miners
    ]
