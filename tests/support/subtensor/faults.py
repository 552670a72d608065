"""What can be wrong with a node, on demand: on the wire here, on the chain by `control.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A fault of the wire. Each is for one method, or for all where none is named."""

    HANG = "hang"
    """The request is taken and never answered."""
    DROP = "drop"
    """The connection is cut in place of an answer; the request has no effect."""
    DROP_AFTER = "drop_after"
    """The request takes effect, then the connection is cut: the answer is lost."""
    SLOW = "slow"
    """The answer comes late."""
    RATE_LIMIT = "rate_limit"
    """The answer is the error of a provider that limits its clients."""
    POLICY_CLOSE = "policy_close"
    """The connection is closed for a violated policy."""
    HANDSHAKE_429 = "handshake_429"
    """New connections are answered with HTTP 429; it knows no method."""
    FULL_MEMPOOL = "full_mempool"
    """Submitted extrinsics are dropped, as if the pool were full; its method is fixed."""


@dataclass
class Fault:
    kind: Kind
    method: str | None = None
    """A JSON-RPC method; None is any."""
    times: int | None = None
    """How many requests it meets; None is all until it is cleared."""
    seconds: float = 0.0
    """How late the answers of a slow node are."""
    met: int = 0
    """How many requests it has met."""

    def __post_init__(self) -> None:
        if (self.kind is Kind.SLOW) != (self.seconds > 0):
            raise ValueError("a slow answer needs its seconds, and nothing else has any")
        if self.times is not None and self.times < 1:
            raise ValueError("a fault meets at least one request")

    def meets(self, method: str) -> bool:
        if self.times is not None and self.met >= self.times:
            return False
        if self.kind is Kind.FULL_MEMPOOL:
            return method in ("author_submitExtrinsic", "author_submitAndWatchExtrinsic")
        return self.method is None or self.method == method


class Faults:
    """The faults that are set now."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def set(
        self, kind: Kind, method: str | None = None, *, times: int | None = None, seconds: float = 0.0
    ) -> Fault:
        """Sets a fault until it is cleared or has met `times` requests; returns it, for its `met`."""
        fault = Fault(kind, method, times, seconds)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Everything works again."""
        self._faults.clear()

    def take(self, method: str, kind: Kind) -> Fault | None:
        """The first fault of a kind that meets this request; it has then met it."""
        for fault in self._faults:
            if fault.kind is kind and fault.meets(method):
                fault.met += 1
                return fault
        return None
