"""Scores and weights: a pure function of public records and this validator's verdicts.

    work(m)       = model FLOPs of settled, receipted ops in the window
    timeliness(m) = microbatches ended / (ended + withdrawn because late or lost)
    valid(m)      = 0 while banned, then a ramp, else 1
    score(m)      = valid · work · timeliness
    weight(m)     = (1 - burn) · score(m) / sum(score)

A failed verdict bans for the window; each further offence after a ban doubles the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from iota.model.layout import stage_flops
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec, RunSpec

_THIRDS = {OpKind.FORWARD: 1, OpKind.BACKWARD: 2, OpKind.LOSS: 3}
"""An op's share, in thirds, of one forward and backward. Recomputation is not paid (training.md)."""


@dataclass(frozen=True)
class MinerWork:
    """One miner's work in one epoch."""

    epoch: int
    hotkey: str
    flops: int
    ended: int
    """Microbatches whose backward it ran and its stage counts."""
    withdrawn: int
    """Microbatches taken from it because it was late or lost."""
    unproven: bool = False
    """Whether it could not be audited because of the miner. Such work is not paid."""


@dataclass(frozen=True)
class Score:
    """A miner's score with its factors, so that the miner can see the reasons."""

    hotkey: str
    work: int
    """Model FLOPs in the window."""
    timeliness: float
    valid: float
    failed_epochs: tuple[int, ...]
    banned_until: int
    """First epoch after the last ban; 0 without a ban."""
    score: float
    weight: float = 0.0
    """Share of the validator's weights, in [0, 1]."""


def op_flops(spec: RunSpec, receipt: Receipt) -> int:
    """Model FLOPs of one op. The token count is the run's, not the one that the receipt claims."""
    flops = stage_flops(spec.model, spec.layout.cuts, receipt.stage, spec.data.sequence_length, spec.boundary)
    return flops * spec.data.tokens * _THIRDS.get(receipt.kind, 0) // 3


def ban_end(failed: Iterable[int], window: int) -> int:
    """First epoch after all bans; 0 without one.

    Offence n bans for 2^(n-1) windows. A failure during a ban is no new offence, but extends the ban to at
    least one window from then.
    """
    end, offences = 0, 0
    for epoch in sorted(set(failed)):
        if epoch >= end:
            offences += 1
            end = epoch + window * 2 ** (offences - 1)
        else:
            end = max(end, epoch + window)
    return end


def validity(failed: Iterable[int], now: int, window: int) -> float:
    """The score's factor for `failed` epochs: 0 while banned, then a linear ramp to 1 over a window."""
    seen = [epoch for epoch in failed if epoch <= now]
    if not seen:
        return 1.0
    end = ban_end(seen, window)
    return 0.0 if now < end else min(1.0, (now - end + 1) / window)


def scores(
    audit: AuditSpec, now: int, work: Iterable[MinerWork], failed: Mapping[str, Iterable[int]]
) -> tuple[Score, ...]:
    """Scores and weights after epoch `now`, in order of hotkey. Weights add up to 1 - burn, or to 0.

    Args:
        work: of any epochs; only those in the window (now - window, now] count.
        failed: epochs of the whole run with a failed verdict, by hotkey.
    """
    window = range(now - audit.window + 1, now + 1)
    by_miner: dict[str, list[MinerWork]] = {}
    for entry in work:
        if entry.epoch in window:
            by_miner.setdefault(entry.hotkey, []).append(entry)
    found = [
        _score(hotkey, entries, tuple(sorted(set(failed.get(hotkey, ())))), now, audit.window)
        for hotkey, entries in sorted(by_miner.items())
    ]
    total = sum(score.score for score in found)
    share = (1 - audit.burn) / total if total > 0 else 0.0
    return tuple(replace(score, weight=score.score * share) for score in found)


def _score(hotkey: str, entries: list[MinerWork], failed: tuple[int, ...], now: int, window: int) -> Score:
    work = sum(entry.flops for entry in entries if not entry.unproven)
    ended = sum(entry.ended for entry in entries)
    given = ended + sum(entry.withdrawn for entry in entries)
    timeliness = ended / given if given else 0.0
    valid = validity(failed, now, window)
    return Score(
        hotkey=hotkey,
        work=work,
        timeliness=timeliness,
        valid=valid,
        failed_epochs=failed,
        banned_until=ban_end(failed, window),
        score=valid * work * timeliness,
    )
