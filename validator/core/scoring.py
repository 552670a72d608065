"""Scores and weights: a pure function of public records and confirmed verdicts.

    work(m)       = model FLOPs of settled, receipted ops in the window
    timeliness(m) = microbatches ended / (ended + withdrawn for lateness or loss)
    valid(m)      = 0 while banned, then a ramp, else 1
    score(m)      = valid · work · timeliness
    weight(m)     = (1 - burn) · score(m) / sum(score)

A failed verdict bans for the window; each further offence after a ban doubles the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from iota.model.layout import stage_flops
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec, RunSpec

_THIRDS = {OpKind.FORWARD: 1, OpKind.BACKWARD: 2, OpKind.LOSS: 3}
"""Shares of an op in forward and backward together; recomputation is no work (training.md)."""


@dataclass(frozen=True)
class MinerWork:
    """What one miner did in one epoch."""

    epoch: int
    hotkey: str
    flops: int
    ended: int
    """Microbatches that it ended."""
    withdrawn: int
    """Microbatches taken from it because it was late or lost."""
    unproven: bool = False
    """It could not be audited and the cause lies with it: such work is not paid."""


@dataclass(frozen=True)
class Score:
    """A score and what it is made of, so that a miner can see why."""

    hotkey: str
    work: int
    timeliness: float
    valid: float
    failed_epochs: tuple[int, ...]
    banned_until: int
    """First epoch after the ban; 0 where there is none."""
    score: float
    weight: float = 0.0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def op_flops(spec: RunSpec, receipt: Receipt) -> int:
    """Model FLOPs of one op; the tokens are the run's and not what the receipt claims."""
    flops = stage_flops(spec.model, spec.layout.cuts, receipt.stage, spec.data.sequence_length, spec.boundary)
    return flops * spec.data.tokens * _THIRDS.get(receipt.kind, 0) // 3


def ban_end(failed: Iterable[int], window: int) -> int:
    """First epoch after all bans. What fails within a ban prolongs it by a window and is no new offence."""
    end, offences = 0, 0
    for epoch in sorted(set(failed)):
        if epoch >= end:
            offences += 1
            end = epoch + window * 2 ** (offences - 1)
        else:
            end = max(end, epoch + window)
    return end


def validity(failed: Iterable[int], now: int, window: int) -> float:
    """0 while banned, then a linear ramp to 1 over one window."""
    seen = [epoch for epoch in failed if epoch <= now]
    if not seen:
        return 1.0
    end = ban_end(seen, window)
    return 0.0 if now < end else min(1.0, (now - end + 1) / window)


def scores(
    audit: AuditSpec, now: int, work: Iterable[MinerWork], failed: Mapping[str, Iterable[int]]
) -> tuple[Score, ...]:
    """Scores and weights after epoch `now`, by hotkey; weights add up to 1 - burn, or to 0.

    Args:
        work: of any epochs; the window (now - window, now] counts.
        failed: by hotkey, epochs with a failed verdict, of the whole run.
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
    return tuple(Score(**{**asdict(s), "weight": s.score * share}) for s in found)


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
