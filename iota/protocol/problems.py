"""Problem documents (RFC 9457): the form of every HTTP error, with a stable `type`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Self

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:iota:problem:"


class ProblemType(StrEnum):
    """The kind of a problem: its name, its HTTP status, and a title that is the same for every occurrence.

    The names never change, since programs branch on them.
    """

    status: int
    summary: str

    def __new__(cls, name: str, status: int, summary: str) -> Self:
        kind = str.__new__(cls, name)
        kind._value_, kind.status, kind.summary = name, status, summary
        return kind

    UNSIGNED = "unsigned", 401, "The request is not signed"
    MALFORMED_AUTH = "malformed-auth", 400, "The signature's headers are malformed"
    WRONG_RECEIVER = "wrong-receiver", 403, "The request was signed for another receiver"
    STALE = "stale", 401, "The request's time is not the server's"
    RESTARTED = "restarted", 503, "The request was signed before this server started"
    REPLAYED = "replayed", 409, "The request was taken before"
    BAD_SIGNATURE = "bad-signature", 401, "The signature does not fit the request"
    NOT_A_MEMBER = "not-a-member", 403, "The hotkey is not admitted to this run"
    BAD_CERTIFICATE = "bad-certificate", 403, "The worker's certificate cannot be taken"
    NOT_JOINED = "not-joined", 409, "The hotkey has not joined this run"
    FORBIDDEN = "forbidden", 403, "This is not the caller's to do"
    MALFORMED_BODY = "malformed-body", 400, "The request is malformed"
    BAD_RECEIPTS = "bad-receipts", 400, "The receipts cannot be taken"
    TOO_LARGE = "too-large", 413, "The request is too large"
    TOO_SLOW = "too-slow", 408, "The request took too long to arrive"
    CONFLICT = "conflict", 409, "The variable is not as the write says"
    LATE = "late", 409, "This came after its time"
    VERSION_MISMATCH = "version-mismatch", 426, "No protocol version in common"
    RUN_ENDED = "run-ended", 410, "The run has ended"
    REFUSED = "refused", 409, "The request does not fit the state of the run"
    NOT_FOUND = "not-found", 404, "There is no such thing"
    WRONG_METHOD = "wrong-method", 405, "This method is not offered here"
    RATE_LIMITED = "rate-limited", 429, "Too many requests"
    UNAVAILABLE = "unavailable", 503, "The server cannot do this now"
    INTERNAL = "internal", 500, "The server failed"


class Standing(StrEnum):
    """Why a hotkey is not admitted: the extra field `standing` of NOT_A_MEMBER."""

    NOT_REGISTERED = "not-registered"
    NO_PERMIT = "no-permit"
    NOT_LISTED = "not-listed"
    REVOKED = "revoked"


_BY_NAME: Final = {kind.value: kind for kind in ProblemType}
_TRANSIENT: Final = frozenset({408, 429, 502, 503, 504})
"""HTTP statuses after which the same request may succeed later; 502 and 504 come from proxies."""


class Problem(Exception):
    """A refused or failed request. `detail` says what to do; `extra` has more fields for programs.

    With a true `final` in it, the same node asks in vain until its operator has changed something.

    `status` follows from `type`, except for answers that do not come from an orchestrator (a proxy's).
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
        self.status = type.status if status is None else status
        self.title = type.summary
        self.retry_after = retry_after
        """Seconds to wait before the next try."""
        self.extra = dict(extra or {})

    @property
    def transient(self) -> bool:
        """Whether the same request, signed anew, may succeed later."""
        return self.status in _TRANSIENT

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of the answer: Retry-After in whole seconds, if there is one."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}

    def to_json(self) -> bytes:
        """The problem document (media type `MEDIA_TYPE`)."""
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
        """The problem in an answer with an error status; never raises.

        A body that is no problem document (a proxy's page) gives UNAVAILABLE for a transient status, else
        INTERNAL, with the answer's status.
        """
        try:
            document = json.loads(body)
            named = document.get("type", "").removeprefix(TYPE_PREFIX)
            problem = cls(_BY_NAME[named], str(document.get("detail", "")), status=status)
        except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
            kind = ProblemType.UNAVAILABLE if status in _TRANSIENT else ProblemType.INTERNAL
            text = body[:200].decode("utf-8", "replace")
            return cls(kind, f"HTTP {status}, not from an orchestrator: {text}", status=status)
        known = {"type", "title", "status", "detail", "retry_after"}
        problem.extra = {key: value for key, value in document.items() if key not in known}
        problem.retry_after = _seconds(document.get("retry_after", retry_after))
        return problem


def _seconds(value: Any) -> float | None:
    """A Retry-After in seconds; None where it is malformed (an HTTP date included) or longer than a day."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):  # the last for an integer beyond all floats
        return None
    return seconds if 0 <= seconds < 86400 else None
