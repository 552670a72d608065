"""Scores and weights: a pure function of public records and of what the verdicts come to.

work(w)       = model FLOPs of the worker's ops in the window that have vested (`vesting.py`)
timeliness(w) = microbatches ended / (ended + withdrawn through its own doing)
valid(o)      = 0 while the owner is banned, then a ramp, else 1
score(o)      = valid(o) · sum of work(w) · timeliness(w) over its workers w
weight(o)     = (1 - burn) · score(o) / sum(score)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from iota.model.layout import stage_flops
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec, RunSpec
from validator.core.vesting import Findings, Vesting, WorkState, ban_end, failed_epochs, validity

_THIRDS = {OpKind.FORWARD: 1, OpKind.BACKWARD: 1, OpKind.LOSS: 2, OpKind.EVAL: 1}
"""An op's share, in thirds, of one forward and backward, without the weight gradient's. Recomputation is not
paid (training.md)."""
_WEIGHT_GRADIENT = (OpKind.BACKWARD, OpKind.LOSS)
"""Ops with a weight gradient, which is another third."""


@dataclass(frozen=True)
class MinerWork:
    """One worker's work in one epoch."""

    epoch: int
    hotkey: str
    """The worker's key, which signs its receipts."""
    owner: str
    """The hotkey that is paid."""
    flops: int
    ended: int
    """Microbatches whose backward it ran and its stage counts."""
    withdrawn: int
    """Microbatches taken from it because it was late or lost."""
    segments: tuple[int, ...] = ()
    """Seqs of the COMMITs that end its segments, which are drawn from these."""


@dataclass(frozen=True)
class EpochPay:
    """What became of one worker's work in one epoch."""

    epoch: int
    worker: str
    flops: int
    state: WorkState
    settled: int | None
    """The epoch whose verdict vested or voided it; None while it is open."""


@dataclass(frozen=True)
class Score:
    """An owner's score with its factors, so that it can see the reasons."""

    hotkey: str
    work: int
    """Model FLOPs in the window that have vested."""
    open: int
    """Those that wait for an audit."""
    voided: int
    timeliness: float
    """Share of its vested work that its workers' timeliness leaves."""
    valid: float
    failed_epochs: tuple[int, ...]
    banned_until: int
    """First epoch after the last ban; 0 without a ban."""
    score: float
    weight: float = 0.0
    """Share of the validator's weights, in [0, 1]."""
    epochs: tuple[EpochPay, ...] = ()
    """The window, by epoch and worker."""


def op_flops(spec: RunSpec, receipt: Receipt, *, weight_gradient: bool) -> int:
    """Model FLOPs of one op. The token count is the run's, not the one that the receipt claims.

    `weight_gradient` says whether the op's weight gradient is paid too: through a STEP that sums it.
    """
    flops = stage_flops(spec.model, spec.layout.cuts, receipt.stage, spec.data.sequence_length, spec.boundary)
    thirds = _THIRDS.get(receipt.kind, 0) + (weight_gradient and receipt.kind in _WEIGHT_GRADIENT)
    return flops * spec.data.tokens * thirds // 3


def scores(
    audit: AuditSpec,
    now: int,
    work: Iterable[MinerWork],
    findings: Findings,
    owners: Mapping[str, str] | None = None,
) -> tuple[Score, ...]:
    """Scores and weights after epoch `now`, in order of owner. Weights add up to 1 - burn, or to 0.

    Args:
        work: of any epochs; only those in the window (now - window, now] count.
        findings: of the whole run.
        owners: the owner of each worker that has no work in the window, since its bans last longer.
    """
    window = range(now - audit.window + 1, now + 1)
    by_owner: dict[str, list[MinerWork]] = defaultdict(list)
    for entry in work:
        if entry.epoch in window:
            by_owner[entry.owner].append(entry)
    here = {entry.hotkey: entry.owner for entries in by_owner.values() for entry in entries}
    vesting = Vesting(findings, now)
    failed = failed_epochs(findings, {**(owners or {}), **here}, audit.window)
    found = [
        _score(owner, entries, vesting, failed.get(owner, ()), now, audit.window)
        for owner, entries in sorted(by_owner.items())
    ]
    total = math.fsum(score.score for score in found)
    share = (1 - audit.burn) / total if total > 0 else 0.0
    return tuple(replace(score, weight=score.score * share) for score in found)


def _score(
    owner: str,
    entries: list[MinerWork],
    vesting: Vesting,
    failed: tuple[int, ...],
    now: int,
    window: int,
) -> Score:
    epochs = tuple(
        EpochPay(entry.epoch, entry.hotkey, entry.flops, *vesting.of(entry.epoch, entry.hotkey))
        for entry in sorted(entries, key=lambda work: (work.epoch, work.hotkey))
    )
    sums = {state: sum(pay.flops for pay in epochs if pay.state is state) for state in WorkState}
    vested: dict[str, int] = defaultdict(int)
    for pay in epochs:
        if pay.state is WorkState.VESTED:
            vested[pay.worker] += pay.flops
    earned = math.fsum(flops * _timeliness(worker, entries) for worker, flops in vested.items())
    work, valid = sums[WorkState.VESTED], validity(failed, now, window)
    return Score(
        hotkey=owner,
        work=work,
        open=sums[WorkState.OPEN],
        voided=sums[WorkState.VOIDED],
        timeliness=earned / work if work else 0.0,
        valid=valid,
        failed_epochs=failed,
        banned_until=ban_end(failed, window),
        score=valid * earned,
        epochs=epochs,
    )


def _timeliness(worker: str, entries: list[MinerWork]) -> float:
    """Over the whole window, vested or not: withdrawn work never vests."""
    own = [entry for entry in entries if entry.hotkey == worker]
    ended = sum(entry.ended for entry in own)
    given = ended + sum(entry.withdrawn for entry in own)
    return ended / given if given else 0.0
