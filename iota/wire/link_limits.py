"""The constants by which links are chosen, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from iota.wire.link import LinkKind


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What is assumed of a link before it is measured, and what a frame costs on it beside its transfer."""

    latency_s: float
    bytes_per_s: float
    transfers: float = 1.0
    """Transfers of the same length until the receiver has the frame."""
    extra_s: float = 0.0
    """What passes between them."""


def _priors() -> Mapping[LinkKind, Prior]:
    """A good link of each kind: who is too hopeful loses a hedge delay once, who is not never tries it.

    The store takes two transfers, the sender's PUT, which alone is measured, and the receiver's GET; between
    them an exchange announces the frame and an event delivers it.
    """
    return MappingProxyType(
        {
            LinkKind.DIRECT: Prior(latency_s=0.05, bytes_per_s=50e6),
            LinkKind.IROH: Prior(latency_s=0.1, bytes_per_s=20e6),
            LinkKind.STORE: Prior(latency_s=0.15, bytes_per_s=20e6, transfers=2.0, extra_s=0.1),
        }
    )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The constants of a `Chooser`."""

    priors: Mapping[LinkKind, Prior] = field(default_factory=_priors)
    max_peers: int = 4096
    """Peers whose links are remembered: more than a run has miners; about 5 kB for each."""

    weight: float = 0.25
    """Of a new value in a smoothed one: four frames are seconds of training, and one outlier is no trend."""
    samples: int = 32
    """Measured times that deadlines are made of."""
    min_samples: int = 8
    """With fewer the MAD is too noisy for a deadline."""
    sure_after: int = 3
    """Measured frames after which the best of them replaces the prior: the first one also dialled."""
    censored: float = 2.0
    """A transfer that was not there after t seconds is taken for one of so many t: it could take any longer
    time, and it must not look as good as the link that brought the frame."""
    worst_rate: float = 0.9
    """Most that a failure rate counts: beyond it the breaker decides, and a cost stays finite."""

    min_deadline_s: float = 10.0
    """A deadline ends what hangs. What is only late is hedged long before, so this one is generous to a busy
    processor and to a dial through a NAT."""
    max_deadline_s: float = 30.0
    """Longest deadline of a frame without bytes, and so of a peer that answers nothing."""
    slowest_bytes_per_s: float = 32 * 1024
    """What the longest deadline allows for each byte: a frame of 2.2 MB has 97 s."""
    deadline_mads: float = 6.0
    """As in the coordinator's deadlines: one of thousands of honest transfers passes it."""

    min_hedge_s: float = 0.5
    """A fifth of a stage's compute for a microbatch, and longer than pauses of a busy processor."""
    first_hedge_s: float = 1.0
    """Before a link was measured: what a dial through a NAT takes."""
    hedge_times: float = 2.0
    """A transfer is late at twice what is expected, at the earliest."""
    few_hedge_times: float = 4.0
    """The same with fewer samples than `min_samples`."""
    hedge_mads: float = 4.0
    """Before the deadline's six, after which nearly no honest transfer comes."""

    failures_to_break: int = 3
    """Failures in a row that open a breaker: one or two may be a restart of the peer."""
    refusals_to_break: int = 8
    """The same of refusals: a link may answer "later" for ever."""
    first_pause_s: float = 1.0
    """Until the first probe: a peer restarts in seconds."""
    max_pause_s: float = 120.0
    """Longest pause between probes: one doubled frame in two minutes is 2 % of them at Orion's pace."""
    gain: float = 0.8
    """A probe must promise a time below so much of the best link's: less is not worth a doubled frame."""

    def pause_s(self, probes: int) -> float:
        """The pause after so many probes without success; it doubles."""
        return min(self.max_pause_s, self.first_pause_s * 2.0 ** min(probes, 64))

    def longest_s(self, load: int) -> float:
        """The longest deadline of a frame, with `load` bytes of it and before it."""
        return self.max_deadline_s + load / self.slowest_bytes_per_s
