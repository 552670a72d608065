"""The public record of one epoch, from which validators replay ops and score miners."""

from __future__ import annotations

from typing import Final

from pydantic import TypeAdapter

from iota.protocol.events import EpochClose, MergeAssign, MergeReady, Reroute
from iota.protocol.messages import Hotkey, StoredObject
from iota.protocol.workers import Certificate
from iota.spec import Count, Frozen, Hex32, Listed, Small


class CountedList(Frozen):
    """The microbatches that one replica summed in one step, in order: A(t, s, r) of training.md."""

    step: Small
    miner: Hotkey
    counted: Listed[tuple[Small, Small]]
    """(microbatch, attempt)"""


class BaseRecord(Frozen):
    """A stored base of one stage, with the digest of (W, m) that its replicas agreed on."""

    epoch: Small
    stage: Small
    digest: Hex32
    parts: Listed[StoredObject]


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


class MinerRecord(Frozen):
    """A miner's part in the epoch."""

    hotkey: Hotkey
    """The key that signs its receipts."""
    owner: Hotkey
    """The hotkey that is paid for its work: its own, unless it has a certificate."""
    certificate: Certificate | None
    stage: Small
    joined: Small
    """Step of this epoch at which its version was the base."""
    first_receipt: Count
    last_receipt: Count
    """Receipts of this epoch are those with first_receipt <= seq <= last_receipt; (1, 0) when none."""
    withdrawn: Count
    """Microbatches taken from it because it was late or lost: they lower its timeliness."""


class EpochRecord(Frozen):
    """A sealed epoch. Receipts are fetched separately and checked against the seal's root."""

    epoch: Small
    seal: EpochClose
    miners: Listed[MinerRecord]
    plans: Listed[PlanRecord]
    reroutes: Listed[Reroute]
    counted: Listed[CountedList]
    bases: Listed[BaseRecord]
    """Those that are stored: of this epoch and of the next one."""
    deltas: Listed[DeltaRecord]
    merge_assigns: Listed[MergeAssign]
    merges: Listed[MergeReady]
