"""The form of a verdict bundle: its manifest, and the names of its members.

manifest.json                     `Manifest`: the verdict, what it rests on, the digests of the others
spec.json                         the RunSpec
record.json                       the bytes whose BLAKE3 the seal names
receipts/<epoch>/<hotkey>.json    a miner's signed batches
bases/<epoch>/<stage>.json        the BaseRecord of a base whose record has no parts
objects/<key>                     an object of the run: plans, frames, parts of a base, evidence
tokens/<epoch>/<step>/<index>     the token ids of a microbatch, int32, little endian
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from iota.protocol.frames import EvidenceItem, StoredObject
from iota.protocol.messages import AuditKind, Hotkey, Verdict
from iota.protocol.seals import SignedSeal
from iota.spec import Count, Frozen, Hex32, RunSpec, Small
from validator.core.tasks import AuditTask

BUNDLE_VERSION: Final = 4
"""Version of the form of a verdict bundle."""
MANIFEST: Final = "manifest.json"
SPEC: Final = "spec.json"
RECORD: Final = "record.json"
MAX_MEMBERS: Final = 60_000
"""Members of a bundle; above 65,535 a zip's directory has another form."""
MAX_NAME: Final = 600
"""Characters of a member's name: a key of the store, and a folder."""
MAX_DELIVERED: Final = 1 << 12
"""Pieces of evidence that one audit reads: a few states, and the frames of a segment's steps."""
TOKEN_BYTES: Final = 4
"""Bytes of a token id."""


def receipts_name(epoch: int, hotkey: str) -> str:
    """The member with a miner's receipts."""
    return f"receipts/{epoch}/{hotkey}.json"


def base_name(epoch: int, stage: int) -> str:
    """The member with the record of a base."""
    return f"bases/{epoch}/{stage}.json"


def object_name(key: str) -> str:
    """The member with an object of the run."""
    return f"objects/{key}"


def tokens_name(epoch: int, step: int, index: int) -> str:
    """The member with the token ids of a microbatch."""
    return f"tokens/{epoch}/{step}/{index}"


def tokens_bytes(spec: RunSpec) -> int:
    """Bytes of the token ids of a microbatch."""
    return spec.data.sequences * (spec.data.sequence_length + 1) * TOKEN_BYTES


class Member(Frozen):
    """A member with its digest (BLAKE3) and size in bytes."""

    name: Annotated[str, Field(pattern=rf"^[A-Za-z0-9._/-]{{1,{MAX_NAME}}}$")]
    digest: Hex32
    size: Count


class Delivered(Frozen):
    """Evidence that the miner delivered for the audit: a state, or the frames of a step."""

    item: EvidenceItem
    version: Small
    stored: StoredObject


class Task(Frozen):
    """The audit, as `validator.core.tasks.AuditTask`."""

    kind: AuditKind
    name: Annotated[str, Field(max_length=100)]
    seq: Count
    step: Small

    @classmethod
    def of(cls, task: AuditTask) -> Task:
        """The form of a task."""
        return cls(kind=task.kind, name=task.name, seq=task.seq, step=task.step)

    def task(self) -> AuditTask:
        """The task itself."""
        return AuditTask(self.kind, self.name, self.seq, self.step)


class Manifest(Frozen):
    """What a bundle is about. Whoever reads it checks all of it: nothing here is signed as a whole."""

    version: Literal[4] = BUNDLE_VERSION
    run: Hex32
    orchestrator: Hotkey
    """Who signed the seal."""
    validator: Hotkey
    """Who signed the verdict."""
    seal: SignedSeal
    block_hash: Annotated[str, Field(pattern=r"^(0x)?[0-9a-f]{64}$")]
    """Of the seal's block, as the validator's chain gave it."""
    link: Hex32
    """That the validator revealed for the epoch."""
    task: Task
    verdict: Verdict
    delivered: tuple[Delivered, ...] = Field((), max_length=MAX_DELIVERED)
    members: tuple[Member, ...] = Field(max_length=MAX_MEMBERS)
