"""The public record of one epoch, from which validators replay ops and score miners."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from iota.protocol.events import MergeAssign, MergeReady, Reroute
from iota.protocol.frames import FrameNotice, StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.messages import Hotkey
from iota.protocol.workers import Certificate
from iota.spec import Count, Frozen, Hex32, Listed, Small


class CountedList(Frozen):
    """The microbatches that one replica summed in one step, in order: A(t, s, r) of training.md."""

    step: Small
    miner: Hotkey
    counted: Listed[tuple[Small, Small]]
    """(microbatch, attempt)"""


class HeldoutRecord(Frozen):
    """A held-out microbatch of the epoch's first step that every stage did: it is paid, its loss counts."""

    microbatch: Small
    attempts: Listed[Small]
    """By stage: the attempt that the next stage went on from; at the last stage, whose EVAL counts."""


class BaseRecord(Frozen):
    """A stored base of one stage, with the digest of (W, m) that its replicas agreed on."""

    epoch: Small
    stage: Small
    digest: Hex32
    parts: Listed[StoredObject]
    makers: Listed[Hotkey] = ()
    """The replicas whose reports decided the digest: they made the base, before it could be loaded."""


START_RECORDS: Final[TypeAdapter[tuple[BaseRecord, ...]]] = TypeAdapter(tuple[BaseRecord, ...])
"""The records of base 0 of a run that starts from existing weights, as JSON in the store (`start_key`)."""


class BaseEpochs(Frozen):
    """GET /v1/bases: the epochs whose base is stored by every stage, in order."""

    epochs: Listed[Small]


class PlanRecord(Frozen):
    """The plan of one step, which is an object of the run (`iota.objects.PlanKey`)."""

    step: Small
    root: Hex32


class DeltaRecord(Frozen):
    """A replica's stored pseudo-gradient, and the tokens that weight it in the merge."""

    miner: Hotkey
    stage: Small
    tokens: Count
    parts: Listed[StoredObject]


class LifeRecord(Frozen):
    """One life of a miner in the epoch: its first, or one that began when it took the base anew."""

    joined: Small
    """Step of the epoch at which its version was the base."""
    first_receipt: Count
    """Its receipts of the epoch are those from this seq up to the next life's; one more than the last where
    it has none."""
    began: Listed[StoredObject] = ()
    """Of the first life in a run with overlap: parts of the miner's pseudo-gradient of the epoch before,
    where all of it was merged. The life begins with the own start that they give, or with the anchor."""
    void: bool = False
    """Whether it began with an own start of a pseudo-gradient that then was not merged: nothing of it counts,
    and the miner began anew with the anchor."""


class LeftOutRecord(Frozen):
    """A pseudo-gradient that is not in the merge of its stage, or not in all parts of it."""

    miner: Hotkey
    stage: Small
    why: LeftOut
    parts: tuple[Small, ...]
    """The parts that leave it out. Empty where it was not there before the deadline, and so is in none."""


MAX_WORDS: Final = 4
"""Words of one miner in one epoch that stand in its record, and that each validator repeats: each costs a
snapshot and the replay of an op. For further ones it loses the work."""


class Word(Frozen):
    """A miner's word that its op on a microbatch gives NaN or Inf, though its input frames are finite."""

    hotkey: Hotkey
    stage: Small
    epoch: Small
    step: Small
    microbatch: Small
    attempt: Small
    """That of the miner."""
    inputs: tuple[FrameNotice, ...]
    """The incoming frames that were stored by then, the forward one first: the orchestrator read them."""
    signature: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")]
    """The miner's, as in its report."""


class MinerRecord(Frozen):
    """A miner's part in the epoch."""

    hotkey: Hotkey
    """The key that signs its receipts."""
    owner: Hotkey
    """The hotkey that is paid for its work: its own, unless it has a certificate."""
    certificate: Certificate | None
    stage: Small
    moments: Hex32 | None
    """Root of the moments of its last COMMIT of the epoch before, where its pseudo-gradient was merged and
    the run carries moments. It begins with these or with zero ones."""
    feedback: Hex32 | None = None
    """Root of the error feedback of its last COMMIT of the epoch before, likewise, where the run has any. It
    begins with this or with none."""
    lives: tuple[LifeRecord, ...] = Field(min_length=1)
    """In order."""
    first_receipt: Count
    last_receipt: Count
    """Seqs of its first and last receipt of this epoch; (1, 0) when none. With overlap there may be receipts
    of other epochs between: a MERGE comes while the next epoch is trained."""
    receipts: Hex32
    """Merkle root over the digests of these receipts."""
    withdrawn: Count
    """Microbatches taken from it because it was late or lost, or because of its frames or words: they lower
    its timeliness."""
    unproven: Count = 0
    """Its words against frames (missing, NaN) that the frames did not bear out, and a false base."""


class EpochRecord(Frozen):
    """A sealed epoch: all that decides its pay, and is not in the receipts.

    It is made once, at the seal, which names the BLAKE3 of its JSON bytes; nothing in it changes later.
    Receipts and plans are fetched separately and checked against the roots here.
    """

    epoch: Small
    root: Hex32
    """Merkle root over the roots of the miners' receipts, by hotkey; miners without any have none."""
    receipts: Count
    """Number of all receipts."""
    miners: Listed[MinerRecord]
    plans: Listed[PlanRecord]
    reroutes: Listed[Reroute]
    counted: Listed[CountedList]
    heldout: Listed[HeldoutRecord] = ()
    """By number of the microbatch."""
    bases: Listed[BaseRecord]
    """Of each stage the base that replicas began from (`RunSpec.anchor`), that of this number, and the one
    that the epoch made; without parts where it was not stored at the seal."""
    deltas: Listed[DeltaRecord]
    merge_assigns: Listed[MergeAssign]
    merges: Listed[MergeReady]
    left_out: Listed[LeftOutRecord] = ()
    words: Listed[Word] = ()
    """By hotkey, and in the order in which they were said."""
    validators: Listed[Hotkey] = ()
    """Live validators at the seal, sorted: the segments of the epoch are given to them by turns."""
