"""What was measured of one link: smoothed times, failures, the breaker. Pure; times are arguments."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from statistics import median
from typing import Final

from iota.wire.link_limits import Limits, Prior

_LEAST_S: Final = 1e-6
"""No latency is shorter: times stay positive, so that ratios of them exist."""
_LEAST_S_PER_BYTE: Final = 1e-12
"""No throughput is higher, for the same reason."""


class Outcome(StrEnum):
    """How a transfer ended."""

    ARRIVED = "arrived"
    """The peer's acknowledgement is here and checked; for the store, the object is stored."""
    FAILED = "failed"
    """Not reached, reset, past its deadline, or a wrong acknowledgement."""
    REFUSED_LATER = "refused-later"
    """The peer's door did not take it now: no fault of the link."""
    CANCELLED = "cancelled"
    """Another transfer of the frame won, or nobody wants it any more."""


@dataclass(eq=False, slots=True)
class Transfer:
    """One frame on its way over one link."""

    size: int
    """Bytes."""
    began_s: float
    expected_s: float
    """What it was expected to take, from its start."""
    measured: bool
    """Whether the link was measured before."""
    probe: bool
    alone_s: float
    """`LinkHistory.alone_s` at its start."""
    ended: bool = False


class LinkHistory:
    """One link's past, and what follows from it for the next frame. All operations take constant time.

    An error of the expected time changes latency and throughput in the parts that they have in the prior's
    time for a frame of that size. Frames of one size cannot tell them apart, and need not.
    """

    __slots__ = (
        "_alone_at",
        "_best",
        "_breaks",
        "_limits",
        "_offered",
        "_prior",
        "_ratios",
        "_s_per_byte",
        "_spread",
        "_transfers",
        "alone_s",
        "arrived",
        "broken",
        "failure_rate",
        "failures",
        "latency_s",
        "probe_at",
        "probes",
        "probing",
        "refusals",
        "tried_at",
        "under_way",
    )

    def __init__(
        self, prior: Prior, limits: Limits, *, breaks: bool = True, before: LinkHistory | None = None
    ) -> None:
        """`breaks`: whether it has a breaker; the last resort has none.

        `before`: the history before the peer's contact changed. Only its probes are taken over: a new address
        may be reached at once, so the pause is the first one again. A peer that changes its contact all the
        time gets no more than a probe in each such pause, for a link that brought no frame stays with probes.
        """
        self._prior, self._limits, self._breaks = prior, limits, breaks
        self.latency_s = prior.latency_s
        self._s_per_byte = 1 / prior.bytes_per_s
        self._best: tuple[float, float] | None = None
        """Latency and seconds a byte of the shortest measured time."""
        self._ratios: deque[float] = deque(maxlen=limits.samples)
        """Measured times, as parts of what was expected: they hold for frames of all sizes."""
        self._spread: tuple[float, float] | None = None
        self.failure_rate = 0.0
        self.arrived = 0
        """Frames that were measured."""
        self.under_way = 0
        """Bytes of the transfers that have begun and not ended."""
        self._transfers = 0
        self.alone_s = 0.0
        """Sum of the seconds in which transfers were under way, each divided by their number."""
        self._alone_at = 0.0
        self.failures = self.refusals = 0
        """In a row."""
        self.broken = False
        """Whether its breaker is open: only probes go over it."""
        self.probes = 0
        """Probes that did not bring it back to use."""
        self.probe_at, self.tried_at = -inf, -inf
        """When the next probe may go, and since when it waits."""
        self.probing = 0
        """Probes under way."""
        self._offered = False
        if before is not None:
            self.broken = before.broken or (not before.arrived and before.tried_at > -inf)
            self.probes, self.tried_at = before.probes, before.tried_at
            self.probe_at = before.tried_at + limits.first_pause_s

    # ---- what is expected ----------------------------------------------------------------------------

    @property
    def bytes_per_s(self) -> float:
        """Smoothed throughput."""
        return 1 / self._s_per_byte

    def expected_s(self, size: int) -> float:
        """How long a frame of `size` bytes takes after those that are under way."""
        return self.latency_s + (size + self.under_way) * self._s_per_byte

    def cost_s(self, size: int, *, idle: bool = False) -> float:
        """When the receiver has such a frame, on average over failures. `idle`: if nothing were under way."""
        alone = self._alone(size) if idle else self.expected_s(size)
        whole = alone * self._prior.transfers + self._prior.extra_s
        return whole / (1 - min(self.failure_rate, self._limits.worst_rate))

    def hope_s(self, size: int) -> float:
        """`cost_s` at the link's best: as it once was, or as the prior has it before it is known.

        0 for one that was never tried: it is tried once, so that it is known, and dialled, when it is needed.
        """
        if self._breaks and not self.arrived and self.tried_at == -inf:
            return 0.0
        latency, s_per_byte = self._prior.latency_s, 1 / self._prior.bytes_per_s
        if self._best and self.arrived >= self._limits.sure_after:
            latency, s_per_byte = self._best
        return (latency + size * s_per_byte) * self._prior.transfers + self._prior.extra_s

    def deadline_s(self, size: int) -> float:
        """median + 6 MAD of what was measured, for a frame of `size` bytes, within bounds."""
        longest = self._limits.longest_s(size + self.under_way)
        if len(self._ratios) < self._limits.min_samples:
            return longest
        return min(longest, max(self._limits.min_deadline_s, self._late_s(size, self._limits.deadline_mads)))

    def hedge_s(self, size: int) -> float:
        """When a frame is late, so that another link is tried beside this one."""
        limits = self._limits
        if not self.arrived:
            late = max(limits.first_hedge_s, limits.few_hedge_times * self.expected_s(size))
        elif len(self._ratios) < limits.min_samples:
            late = limits.few_hedge_times * self.expected_s(size)
        else:
            late = max(self._late_s(size, limits.hedge_mads), limits.hedge_times * self.expected_s(size))
        return min(max(limits.min_hedge_s, late), self.deadline_s(size))

    def _late_s(self, size: int, mads: float) -> float:
        if self._spread is None:
            middle = median(self._ratios)
            self._spread = middle, median(abs(ratio - middle) for ratio in self._ratios)
        middle, mad = self._spread
        return self.expected_s(size) * (middle + mads * mad)

    # ---- probes --------------------------------------------------------------------------------------

    def offer_probe(self, now: float) -> None:
        """The next transfer is a probe. The one after it waits for twice the pause, whatever comes of it."""
        self._offered = True
        self.probes += 1
        self._wait(now)

    def _wait(self, now: float) -> None:
        self.tried_at = now
        self.probe_at = max(self.probe_at, now + self._limits.pause_s(self.probes))

    # ---- what happens --------------------------------------------------------------------------------

    def began(self, size: int, now: float) -> Transfer:
        """A frame of `size` bytes is on its way."""
        self._share(now)
        transfer = Transfer(size, now, self.expected_s(size), self.arrived > 0, self._offered, self.alone_s)
        self._offered = False
        self.probing += transfer.probe
        self.under_way += size
        self._transfers += 1
        return transfer

    def ended(self, transfer: Transfer, now: float, outcome: Outcome) -> None:
        """It is not on its way any more. Raises ValueError the second time."""
        if transfer.ended:
            raise ValueError("this transfer has ended before")
        transfer.ended = True
        self._share(now)
        alone_s = self._time_alone(transfer, now)
        self.under_way -= transfer.size
        self._transfers -= 1
        self.probing -= transfer.probe
        if outcome is Outcome.ARRIVED:
            self._arrived(transfer, now, alone_s)
        elif outcome is Outcome.REFUSED_LATER:
            self._refused(now)
        else:
            self._takes_at_least(transfer.size, alone_s)
            self._wait(now)
            if outcome is Outcome.FAILED:
                self._failed()

    def _share(self, now: float) -> None:
        if self._transfers:
            self.alone_s += max(0.0, now - self._alone_at) / self._transfers
        self._alone_at = now

    def _time_alone(self, transfer: Transfer, now: float) -> float:
        """What the transfer would have taken without those beside it, which share the throughput alone."""
        elapsed = max(0.0, now - transfer.began_s)
        latency = min(elapsed, self.latency_s)
        if elapsed == 0:
            return 0.0
        return latency + (elapsed - latency) * (self.alone_s - transfer.alone_s) / elapsed

    def _arrived(self, transfer: Transfer, now: float, alone_s: float) -> None:
        again = transfer.probe or self.broken or not self.arrived
        weight = 1.0 if again else self._limits.weight  # what was known before is out of date
        self._learn(transfer.size, weight * (alone_s - self._alone(transfer.size)))
        self.failure_rate *= 0.0 if self.broken else 1 - self._limits.weight
        if transfer.measured and not transfer.probe:
            self._ratios.append(max(_LEAST_S, now - transfer.began_s) / transfer.expected_s)
            self._spread = None
            self.probes //= 2
        self.arrived += 1
        self.failures = self.refusals = 0
        self.broken = False
        self._remember(transfer.size, max(_LEAST_S, alone_s))

    def _alone(self, size: int) -> float:
        return self.latency_s + size * self._s_per_byte

    def _learn(self, size: int, error_s: float) -> None:
        moving = size / self._prior.bytes_per_s
        part = moving / (self._prior.latency_s + moving)
        self.latency_s = max(_LEAST_S, self.latency_s + (1 - part) * error_s)
        if size:
            self._s_per_byte = max(_LEAST_S_PER_BYTE, self._s_per_byte + part * error_s / size)

    def _remember(self, size: int, alone_s: float) -> None:
        if self._best is None or alone_s < self._best[0] + size * self._best[1]:
            factor = alone_s / self._alone(size)
            self._best = (self.latency_s * factor, self._s_per_byte * factor)

    def _takes_at_least(self, size: int, alone_s: float) -> None:
        factor = alone_s / self._alone(size)
        if factor >= 1:  # a transfer that was not late yet says nothing
            self.latency_s *= self._limits.censored * factor
            self._s_per_byte *= self._limits.censored * factor

    def _refused(self, now: float) -> None:
        self.refusals += 1
        if self.refusals >= self._limits.refusals_to_break:
            self._wait(now)
            self.broken = self._breaks
        else:
            self.failures, self.broken = 0, False

    def _failed(self) -> None:
        self.failures += 1
        if self.broken:
            return
        self.failure_rate += self._limits.weight * (1 - self.failure_rate)
        allowed = 1 if self.probes else self._limits.failures_to_break
        self.broken = self._breaks and self.failures >= allowed
