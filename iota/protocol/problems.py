"""Problem documents (RFC 9457): every error that crosses HTTP, by a stable `type`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:iota:problem:"


class ProblemType(StrEnum):
    """The kind of a problem. The names never change; programs branch on them."""

    UNSIGNED = "unsigned"
    MALFORMED_AUTH = "malformed-auth"
    WRONG_RECEIVER = "wrong-receiver"
    STALE = "stale"
    RESTARTED = "restarted"
    REPLAYED = "replayed"
    BAD_SIGNATURE = "bad-signature"
    NOT_A_MEMBER = "not-a-member"
    NOT_JOINED = "not-joined"
    FORBIDDEN = "forbidden"
    MALFORMED_BODY = "malformed-body"
    BAD_RECEIPTS = "bad-receipts"
    TOO_LARGE = "too-large"
    TOO_SLOW = "too-slow"
    LATE = "late"
    VERSION_MISMATCH = "version-mismatch"
    RUN_FULL = "run-full"
    RUN_ENDED = "run-ended"
    REFUSED = "refused"
    NOT_FOUND = "not-found"
    WRONG_METHOD = "wrong-method"
    RATE_LIMITED = "rate-limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


_TABLE: Final[dict[ProblemType, tuple[int, str]]] = {
    ProblemType.UNSIGNED: (401, "The request is not signed"),
    ProblemType.MALFORMED_AUTH: (400, "The signature's headers are malformed"),
    ProblemType.WRONG_RECEIVER: (403, "The request was signed for another receiver"),
    ProblemType.STALE: (401, "The request's time is not the server's"),
    ProblemType.RESTARTED: (503, "The request was signed before this server started"),
    ProblemType.REPLAYED: (409, "The request was taken before"),
    ProblemType.BAD_SIGNATURE: (401, "The signature does not fit the request"),
    ProblemType.NOT_A_MEMBER: (403, "The hotkey is not admitted to this run"),
    ProblemType.NOT_JOINED: (409, "The hotkey has not joined this run"),
    ProblemType.FORBIDDEN: (403, "This is not the caller's to do"),
    ProblemType.MALFORMED_BODY: (400, "The request is malformed"),
    ProblemType.BAD_RECEIPTS: (400, "The receipts cannot be taken"),
    ProblemType.TOO_LARGE: (413, "The request is too large"),
    ProblemType.TOO_SLOW: (408, "The request took too long to arrive"),
    ProblemType.LATE: (409, "This came after its time"),
    ProblemType.VERSION_MISMATCH: (426, "No protocol version in common"),
    ProblemType.RUN_FULL: (409, "The run has no free place"),
    ProblemType.RUN_ENDED: (410, "The run has ended"),
    ProblemType.REFUSED: (409, "The request does not fit the state of the run"),
    ProblemType.NOT_FOUND: (404, "There is no such thing"),
    ProblemType.WRONG_METHOD: (405, "This method is not offered here"),
    ProblemType.RATE_LIMITED: (429, "Too many requests"),
    ProblemType.UNAVAILABLE: (503, "The server cannot do this now"),
    ProblemType.INTERNAL: (500, "The server failed"),
}


def status_of(type: ProblemType) -> int:
    """The HTTP status of a problem's type."""
    return _TABLE[type][0]


def title_of(type: ProblemType) -> str:
    """The one-line summary of a problem's type; the same for every occurrence."""
    return _TABLE[type][1]


class Problem(Exception):
    """A request that failed. `detail` says what to do about it; `extra` is for programs.

    `status` and `title` follow from `type`, except in answers of something that is not an
    orchestrator (a proxy), which keep their own.
    """

    def __init__(
        self,
        type: ProblemType,
        detail: str,
        *,
        retry_after: float | None = None,
        extra: Mapping[str, Any] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(f"{type}: {detail}")
        self.type = type
        self.detail = detail
        self.status = status_of(type) if status is None else status
        self.title = title_of(type)
        self.retry_after = retry_after
        """Seconds to wait before the next try."""
        self.extra = dict(extra or {})

    @property
    def transient(self) -> bool:
        """Whether the same request, signed anew, may succeed later."""
        return self.status in (408, 429, 502, 503, 504)

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}

    def to_json(self) -> bytes:
        document = {
            **self.extra,
            "type": TYPE_PREFIX + self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.retry_after is not None:
            document["retry_after"] = round(self.retry_after, 3)
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, status: int, body: bytes, retry_after: str | None = None) -> Problem:
        """The problem that an answer with an error status carries; never raises.

        A body that is no problem document of ours (a proxy's page) is INTERNAL, or UNAVAILABLE
        where the status says that it will pass, with that status.
        """
        try:
            document = json.loads(body)
            named = document.get("type", "").removeprefix(TYPE_PREFIX)
            problem = cls(ProblemType(named), str(document.get("detail", "")), status=status)
        except (ValueError, AttributeError, TypeError, RecursionError):
            passing = status in (408, 429, 502, 503, 504)
            kind = ProblemType.UNAVAILABLE if passing else ProblemType.INTERNAL
            text = body[:200].decode("utf-8", "replace")
            return cls(kind, f"HTTP {status}, not from an orchestrator: {text}", status=status)
        known = {"type", "title", "status", "detail", "retry_after"}
        problem.extra = {key: value for key, value in document.items() if key not in known}
        problem.retry_after = _seconds(document.get("retry_after", retry_after))
        return problem


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 <= seconds < 86400 else None
