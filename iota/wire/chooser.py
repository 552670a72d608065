"""The choice of the link that a frame is sent over. Pure: times are arguments, in monotonic seconds.

The caller sends a frame so, with at most two transfers of it at a time:

1. `choose` says which link. `began` when the transfer starts, `ended` when it ends, for every transfer.
2. After `hedge_after_s` without an end, `next` says which link is tried beside it. Of two transfers that
   are under way already, the one that began first makes way: it is stopped and CANCELLED.
3. A transfer past its `deadline_s` is stopped and has FAILED. When one fails alone, `next` says the link to
   fall back on; None: all were tried, and the caller begins anew after a pause, as after a refusal alone.
   When one fails or is refused beside another that is late by its `hedge_after_s`, `next` is asked as well.
4. The first acknowledgement counts, and the frame is done. Another transfer of it is stopped and CANCELLED,
   unless it is a probe: that one goes on to its deadline, since a dial through a NAT that is stopped each
   time another link wins would never come to its end. Its acknowledgement is heard, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from iota.wire.link import LinkKind
from iota.wire.link_history import LinkHistory, Outcome, Transfer
from iota.wire.link_limits import Limits

__all__ = ["Choice", "Chooser", "Limits", "LinkSummary", "Outcome", "Token"]


@dataclass(frozen=True)
class Choice:
    """One link for one frame."""

    kind: LinkKind
    deadline_s: float
    """Seconds after its start at which the transfer has failed."""
    hedge_after_s: float | None
    """Seconds after its start at which another link is tried beside it; None: no other is left."""
    probe: bool
    """Whether the link is tried to see how it is. It is hedged at once, so that the frame loses no time."""


@dataclass(frozen=True)
class LinkSummary:
    """What is known of a link, for people to look at."""

    latency_s: float
    bytes_per_s: float
    failure_rate: float
    """Between 0 and 1, smoothed."""
    measured: int
    """Frames that it has brought."""
    under_way: int
    """Bytes."""
    broken: bool
    """Whether its breaker is open."""
    probe_at: float
    """When it may be probed, if it promises more than the links in use."""


@dataclass(frozen=True, eq=False)
class Token:
    """A transfer that has begun."""

    kind: LinkKind
    link: LinkHistory
    links: Mapping[LinkKind, LinkHistory]
    """All links to the peer itself."""
    transfer: Transfer


class Chooser:
    """The links of all peers. Each call takes constant time; peers that were not used for long are forgotten.

    A link's breaker opens after failures in a row; then only probes go over it, with pauses that double.
    Links that are slower than another, but once were better or were never measured, are probed likewise.
    The store is always among the links, has no breaker, and is the same for all peers.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._peers: LRUCache[str, dict[LinkKind, LinkHistory]] = LRUCache(self._limits.max_peers)
        self._store = LinkHistory(self._limits.priors[LinkKind.STORE], self._limits, breaks=False)

    def choose(self, peer: str, size: int, now: float, usable: Sequence[LinkKind]) -> Choice:
        """The link for a frame of `size` bytes. `usable`: those that reach the peer, and always the store."""
        links = self._links(peer, usable)
        best = _best(links, _known(links), size)
        probe = self._due(links, best, size, now)
        if probe is None:
            return _regular(links, best, size)
        return _probe(links, probe, size, now, alone=False)

    def next(
        self, peer: str, size: int, now: float, usable: Sequence[LinkKind], tried: Collection[LinkKind]
    ) -> Choice | None:
        """The link for the same frame after or beside those `tried`; None if nothing is left.

        A link whose breaker is open comes last, when the store has been tried too.
        """
        links = {kind: link for kind, link in self._links(peer, usable).items() if kind not in tried}
        if not links:
            return None
        closed = [kind for kind, link in links.items() if not link.broken]
        if closed:
            return _regular(links, _best(links, closed, size), size)
        return _probe(links, _most_hopeful(links, links, size), size, now, alone=len(links) == 1)

    def began(self, peer: str, kind: LinkKind, size: int, now: float) -> Token:
        """A transfer has begun. Each is followed by `ended`."""
        link = self._links(peer, [kind])[kind]
        return Token(kind, link, self._peers[peer], link.began(size, now))

    def ended(self, token: Token, now: float, outcome: Outcome) -> None:
        """It has ended. Raises ValueError if it had before.

        A peer that is away breaks all its links. They are then probed in turn, not each for itself, and when
        one answers the others are tried at once.
        """
        link, was_broken = token.link, token.link.broken
        link.ended(token.transfer, now, outcome)
        others = [other for other in token.links.values() if other is not link]
        if was_broken and not link.broken:
            for other in others:
                other.probe_at = min(other.probe_at, now)
        elif link.broken and all(other.broken for other in others):
            for other in others:
                other.probe_at = max(other.probe_at, link.probe_at)

    def forget(self, peer: str) -> None:
        """Its contact has changed: what was measured holds no more. Transfers under way may still end."""
        known = self._peers.get(peer)
        if known is not None:
            self._peers[peer] = {kind: self._new(kind, old) for kind, old in known.items()}

    def summary(self, peer: str) -> dict[LinkKind, LinkSummary]:
        """What is known of the links to a peer, and of the store."""
        found = {kind: _summary(link) for kind, link in self._peers.get(peer, {}).items()}
        return {**found, LinkKind.STORE: _summary(self._store)}

    def _new(self, kind: LinkKind, old: LinkHistory | None = None) -> LinkHistory:
        return LinkHistory(self._limits.priors[kind], self._limits, before=old)

    def _links(self, peer: str, usable: Iterable[LinkKind]) -> dict[LinkKind, LinkHistory]:
        known = self._peers.get(peer)
        if known is None:
            known = self._peers[peer] = {}
        links: dict[LinkKind, LinkHistory] = {}
        for kind in usable:
            if kind is not LinkKind.STORE:
                links[kind] = known.get(kind) or known.setdefault(kind, self._new(kind))
        links[LinkKind.STORE] = self._store
        return links

    def _due(
        self, links: Mapping[LinkKind, LinkHistory], best: LinkKind, size: int, now: float
    ) -> LinkKind | None:
        """The link to probe now, if the best is known and one without a probe promises more."""
        if best is not LinkKind.STORE and not links[best].arrived:
            return None
        present = links[best].cost_s(size, idle=True)
        due = [
            kind
            for kind, link in links.items()
            if not link.probing
            and link.probe_at <= now
            and link.hope_s(size) < self._limits.gain * present
            and (link.broken or not link.arrived or link.cost_s(size, idle=True) > present)  # else it is busy
        ]
        return _most_hopeful(links, due, size) if due else None


def _known(links: Mapping[LinkKind, LinkHistory]) -> list[LinkKind]:
    """The links whose breakers are closed.

    Once one to the peer itself is measured, those that are not are left to probes.
    """
    closed = [kind for kind, link in links.items() if not link.broken]
    known = [kind for kind in closed if links[kind].arrived and kind is not LinkKind.STORE]
    return [*known, LinkKind.STORE] if known else closed


def _best(links: Mapping[LinkKind, LinkHistory], among: Iterable[LinkKind], size: int) -> LinkKind:
    """The link that costs least."""
    return min(among, key=lambda kind: links[kind].cost_s(size))


def _most_hopeful(links: Mapping[LinkKind, LinkHistory], among: Iterable[LinkKind], size: int) -> LinkKind:
    """The link to probe first: in turn, so that one that never comes back does not keep another waiting."""
    return min(among, key=lambda kind: (links[kind].probes, links[kind].hope_s(size)))


def _regular(links: Mapping[LinkKind, LinkHistory], kind: LinkKind, size: int) -> Choice:
    other = any(not link.broken for rival, link in links.items() if rival is not kind)
    link = links[kind]
    return Choice(kind, link.deadline_s(size), link.hedge_s(size) if other else None, probe=False)


def _probe(
    links: Mapping[LinkKind, LinkHistory], kind: LinkKind, size: int, now: float, *, alone: bool
) -> Choice:
    links[kind].offer_probe(now)
    return Choice(kind, links[kind].deadline_s(size), None if alone else 0.0, probe=True)


def _summary(link: LinkHistory) -> LinkSummary:
    return LinkSummary(
        latency_s=link.latency_s,
        bytes_per_s=link.bytes_per_s,
        failure_rate=link.failure_rate,
        measured=link.arrived,
        under_way=link.under_way,
        broken=link.broken,
        probe_at=link.probe_at,
    )
