"""When work becomes pay: a passed audit of a segment vests what is open, a bad verdict voids it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MinerEpoch = tuple[int, str]
"""(epoch, worker)"""


class WorkState(StrEnum):
    """What became of one epoch's work."""

    OPEN = "open"
    VESTED = "vested"
    VOIDED = "voided"


@dataclass(frozen=True)
class Findings:
    """What the verdicts of all validators come to (`pool.findings`)."""

    passed: frozenset[MinerEpoch] = frozenset()
    """A segment was re-executed, and everything agreed."""
    undelivered: frozenset[MinerEpoch] = frozenset()
    """The worker owed evidence and did not deliver it."""
    failed: frozenset[MinerEpoch] = frozenset()
    undecided: frozenset[MinerEpoch] = frozenset()
    """Evidence that was drawn is gone or is none. Of an op this validator drew it, and it passed no segment
    of the epoch itself; of a segment epochs before are there too (`with_epochs_before`)."""
    revoked: frozenset[MinerEpoch] = frozenset()
    """The worker owed evidence, and its owner has revoked it."""
    silenced: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """validator -> epochs in which it was refuted."""


class Vesting:
    """What became of the work of each worker, as of epoch `now`.

    Work of epoch w is settled by the first epoch e >= w with a verdict that settles: a fail, an UNDELIVERED
    or a REVOKED voids it, else a pass vests it. So a later verdict never changes what was settled before,
    but for one: an undecided epoch's work does not vest. Who hides what it did not do would else be paid for
    it by the next epoch in which it works, or by another validator that drew what it did.
    """

    def __init__(self, findings: Findings, now: int) -> None:
        voids = findings.undelivered | findings.revoked | findings.failed
        self._undecided = findings.undecided
        self._states = dict.fromkeys(findings.passed, WorkState.VESTED)
        self._states |= dict.fromkeys(voids, WorkState.VOIDED)
        epochs: dict[str, list[int]] = defaultdict(list)
        for epoch, worker in self._states:
            if epoch <= now:
                epochs[worker].append(epoch)
        self._epochs = {worker: sorted(found) for worker, found in epochs.items()}

    def of(self, epoch: int, worker: str) -> tuple[WorkState, int | None]:
        """The state of the worker's work of `epoch`, and the epoch that settled it; None while it is open."""
        epochs = self._epochs.get(worker, [])
        at = bisect_left(epochs, epoch)
        if at == len(epochs):
            return WorkState.OPEN, None
        state = self._states[epochs[at], worker]
        if state is WorkState.VESTED and (epoch, worker) in self._undecided:
            return WorkState.OPEN, None
        return state, epochs[at]


def hidden_epochs(window_epochs: int, extra_every: int) -> int:
    """Epochs that a hidden segment leaves undecided: its own, and those before in which the worker worked.

    After the first public draw of a window a segment is drawn in one epoch of so many, by the public draw or
    an own one, and nearly all compute can be saved in each: what lies after the base's version is shown by
    segments alone. So that many epochs must be lost at least, and two more make it a loss.
    """
    none = (1 - 1 / window_epochs) * (1 - 1 / extra_every)
    return math.ceil(1 / (1 - none)) + 2


def with_epochs_before(
    hidden: Iterable[MinerEpoch], worked: Iterable[MinerEpoch], count: int
) -> set[MinerEpoch]:
    """Epochs of hidden segments, each with those before that it leaves undecided: `count` in all."""
    epochs: dict[str, list[int]] = defaultdict(list)
    for epoch, worker in sorted(worked):
        epochs[worker].append(epoch)
    found = set(hidden)
    for epoch, worker in hidden:
        at = bisect_left(epochs[worker], epoch)
        first = max(0, at - count + 1)
        found |= {(before, worker) for before in epochs[worker][first:at]}
    return found


def failed_epochs(findings: Findings, owners: Mapping[str, str], window: int) -> dict[str, tuple[int, ...]]:
    """Epochs that ban, by owner: those with a fail, and those of a worker's second UNDELIVERED in a window.

    A revocation counts as one UNDELIVERED, in the first epoch of which the worker then owed evidence, though
    there are others: no time that it is given could bring them. So revoking a worker is never better for a
    cheat than to deliver nothing, and an honest owner is not banned for it.

    Args:
        owners: the owner of each worker; a worker that is not among them is its own.
    """
    found: dict[str, set[int]] = defaultdict(set)
    for epoch, worker in findings.failed:
        found[owners.get(worker, worker)].add(epoch)
    last: dict[str, int] = {}
    first = {worker: epoch for epoch, worker in sorted(findings.revoked, reverse=True)}
    for epoch, worker in sorted(findings.undelivered | {(at, worker) for worker, at in first.items()}):
        if worker in last and epoch - last[worker] < window:
            found[owners.get(worker, worker)].add(epoch)
        last[worker] = epoch
    return {owner: tuple(sorted(epochs)) for owner, epochs in found.items()}


def ban_end(failed: Iterable[int], window: int) -> int:
    """First epoch after all bans; 0 without one.

    Offence n bans for 2^(n-1) windows. A failed epoch less than a window after an offence is no new one, but
    bans as long as that, counted from itself. So one more failed epoch never makes a ban shorter.
    """
    end, offences, offence = 0, 0, 0
    for epoch in sorted(set(failed)):
        if offences == 0 or epoch >= offence + window:
            offence, offences = epoch, offences + 1
        end = max(end, epoch + window * 2 ** (offences - 1))
    return end


def validity(failed: Iterable[int], now: int, window: int) -> float:
    """The score's factor for `failed` epochs: 0 while banned, then a linear ramp to 1 over a window."""
    seen = [epoch for epoch in failed if epoch <= now]
    if not seen:
        return 1.0
    end = ban_end(seen, window)
    return 0.0 if now < end else min(1.0, (now - end + 1) / window)
