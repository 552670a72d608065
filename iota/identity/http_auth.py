"""Signed HTTP: proves the sender of a request, and that an answer is the server's to that request.

Requests carry the Bittensor SDK's own scheme (`bittensor.http_auth`, btauth/1), which binds method,
path and query, body, time, sender and receiver. Added to it here: the receiver is never optional,
only sr25519 and one spelling of an address are taken, and a nonce from before this server's birth is
refused, because the record of nonces seen dies with the process. Answers are signed with our own
header, `X-Iota-Signature`.

The SDK is imported at first use: it takes 0.4 s and 46 MB.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from iota.identity import signatures
from iota.identity.keys import Hotkey
from iota.protocol.problems import Problem, ProblemType

SIGNATURE_HEADER: Final = "X-Iota-Signature"
RESPONSE_VERSION: Final = 1
"""The form of the bytes that an answer's signature is made over."""
MAX_AGE_S: Final = 10.0
"""Maximum age of a request when it arrives."""
ALLOWED_SKEW_S: Final = 2.0
"""Maximum lead of the sender's clock over ours."""

_RESPONSE_DOMAIN: Final = f"response/{RESPONSE_VERSION}"
_PREFIX: Final = "x-bittensor-"
_SECOND: Final = 1_000_000_000
_RESTARTED_S: Final = 0.1
"""Seconds until the sender may sign a request from before the server's start anew."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The proven sender of a request."""

    hotkey: str
    nonce: int
    """The sender's clock when it signed, nanoseconds since the Unix epoch."""
    signature: str
    """The request's signature header: what an answer is bound to."""


def sign_request(hotkey: Hotkey, method: str, path_qs: str, body: bytes, receiver: str) -> dict[str, str]:
    """Headers that prove this request to `receiver` (an ss58 address), now.

    `path_qs` is the request target exactly as sent, percent-encoding and query included. Every
    attempt is signed anew: a server takes a signature once.
    """
    from bittensor import http_auth

    headers = http_auth.sign(
        hotkey.keypair,
        method=method,
        path=path_qs,
        body=body,
        receiver_ss58=receiver,
        nonce_ns=_fresh_nonce(),
    )
    return dict(headers)


class RequestVerifier:
    """Checks the requests of one server, each at most once.

    A nonce from before this object's creation is refused, whoever sent it: an earlier process may
    have taken it. A sender whose clock runs ahead (by `ALLOWED_SKEW_S` at most) can have had a nonce
    accepted that lies after our creation; a server that can restart faster than that persists
    `highest_nonce` with what the request changed, and passes it as `fence_ns`.
    """

    def __init__(
        self,
        self_hotkey: str,
        clock: Callable[[], int] = time.time_ns,
        *,
        fence_ns: int = 0,
        max_age_s: float = MAX_AGE_S,
        allowed_skew_s: float = ALLOWED_SKEW_S,
    ) -> None:
        """`self_hotkey` is the server's ss58 address; `clock` gives Unix time in nanoseconds."""
        if not signatures.is_address(self_hotkey):
            raise ValueError(f"{self_hotkey!r} is not an ss58 address (format 42)")
        self._self_hotkey = self_hotkey
        self._clock = clock
        self._max_age_s = max_age_s
        self._allowed_skew_s = allowed_skew_s
        self._floor_ns = max(clock(), fence_ns + 1)
        self._seen = _SeenNonces(int((max_age_s + allowed_skew_s) * _SECOND), clock)
        self.highest_nonce = fence_ns
        """The latest nonce accepted, here or (by `fence_ns`) before."""

    def verify(self, headers: Mapping[str, str], body: bytes, method: str, path_qs: str) -> Caller:
        """The sender of this request; the same request is refused from then on.

        `headers` may be a multi-dict, `body` is the raw bytes as received, `path_qs` the raw target.

        Raises:
            Problem: the request is refused, for the reason in its type. UNSIGNED, MALFORMED_AUTH,
                WRONG_RECEIVER, STALE (with the clock's offset), RESTARTED (may be signed anew and
                repeated), REPLAYED or BAD_SIGNATURE.
        """
        from bittensor import http_auth

        fields = _auth_fields(headers.items())
        self._check_time(fields["nonce"])
        named = {_PREFIX + name: value for name, value in fields.items()}
        try:
            caller = http_auth.verify(
                named,
                body,
                method=method,
                path=path_qs,
                self_hotkey_ss58=self._self_hotkey,
                max_age=self._max_age_s,
                allowed_skew=self._allowed_skew_s,
                nonce_store=self._seen,
                now_ns=self._clock(),
            )
        except http_auth.WrongReceiver as error:
            raise Problem(
                ProblemType.WRONG_RECEIVER, f"{error}; this server is {self._self_hotkey}"
            ) from None
        except http_auth.ReplayedRequest:
            raise Problem(
                ProblemType.REPLAYED, "this request was taken before; sign every attempt anew"
            ) from None
        except http_auth.BadSignature:
            raise Problem(
                ProblemType.BAD_SIGNATURE,
                "the signature is not this hotkey's over this method, path, body, nonce and receiver",
            ) from None
        except http_auth.StaleRequest as error:
            raise Problem(ProblemType.STALE, str(error)) from None
        except http_auth.AuthError as error:
            raise Problem(ProblemType.MALFORMED_AUTH, str(error)) from None
        self.highest_nonce = max(self.highest_nonce, int(caller.nonce_ns))
        return Caller(str(caller.hotkey_ss58), int(caller.nonce_ns), fields["signature"])

    def _check_time(self, nonce_text: str) -> None:
        nonce = int(nonce_text)
        offset_s = (nonce - self._clock()) / _SECOND
        if not -self._max_age_s <= offset_s <= self._allowed_skew_s:
            raise Problem(
                ProblemType.STALE,
                f"the request is dated {offset_s:+.1f} s from this server's clock; between "
                f"-{self._max_age_s:g} and +{self._allowed_skew_s:g} s is taken: set your clock (NTP)",
                extra={"offset_s": offset_s},
            )
        if nonce < self._floor_ns:
            behind_s = (self._floor_ns - nonce) / _SECOND
            raise Problem(
                ProblemType.RESTARTED,
                f"the request is dated {behind_s:.1f} s before this server's start; sign it anew and repeat",
                retry_after=_RESTARTED_S,
            )


def sign_response(
    hotkey: Hotkey, request_nonce: int, status: int, body: bytes, *, request_signature: str = ""
) -> str:
    """The value of `X-Iota-Signature` for an answer.

    Pass `Caller.signature` as `request_signature` wherever you can: a nonce alone can be chosen by
    somebody else, who asks another question in the same nanosecond and has the answer to pass on.
    """
    return hotkey.sign(_response_bytes(request_nonce, status, body, request_signature)).hex()


def verify_response(
    server_ss58: str,
    request_nonce: int,
    status: int,
    body: bytes,
    header: str | None,
    *,
    request_signature: str = "",
) -> bool:
    """Whether `header` proves that this answer to this request is `server_ss58`'s; never raises."""
    if not isinstance(header, str) or len(header) != 2 * signatures.SIGNATURE_BYTES:
        return False
    try:
        signature = bytes.fromhex(header)
    except ValueError:
        return False
    return signatures.verify(
        _response_bytes(request_nonce, status, body, request_signature), signature, server_ss58
    )


class _SeenNonces:
    """(hotkey, nonce) pairs taken within the window, by the server's clock; the SDK's `NonceStore`."""

    def __init__(self, window_ns: int, clock: Callable[[], int]) -> None:
        self._taken: TTLCache[tuple[str, int], None, int] = TTLCache(math.inf, 2 * window_ns, clock)

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        pair = (hotkey_ss58, nonce_ns)
        fresh = pair not in self._taken
        if fresh:
            self._taken[pair] = None
        return fresh


def _auth_fields(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The `X-Bittensor-*` headers by the rest of their names, in the one form that we take."""
    fields: dict[str, str] = {}
    for name, value in items:
        lowered = name.lower()
        if lowered.startswith(_PREFIX):
            short = lowered.removeprefix(_PREFIX)
            if short in fields:
                raise Problem(ProblemType.MALFORMED_AUTH, f"two {name} headers")
            fields[short] = value
    missing = [
        f"X-Bittensor-{n.title()}" for n in ("version", "hotkey", "nonce", "signature") if n not in fields
    ]
    if missing:
        raise Problem(
            ProblemType.UNSIGNED,
            f"sign the request with your hotkey (btauth/1); missing: {', '.join(missing)}",
        )
    nonce = fields["nonce"]
    if not (nonce.isascii() and nonce.isdigit() and len(nonce) <= 20):
        raise Problem(ProblemType.MALFORMED_AUTH, "X-Bittensor-Nonce is Unix time in nanoseconds, in digits")
    if fields.get("crypto", "sr25519") != "sr25519":
        raise Problem(ProblemType.MALFORMED_AUTH, "only sr25519 hotkeys are taken")
    if not signatures.is_address(fields["hotkey"]):
        raise Problem(ProblemType.MALFORMED_AUTH, "X-Bittensor-Hotkey is no ss58 address of format 42")
    return fields


def _response_bytes(nonce: int, status: int, body: bytes, request_signature: str) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    payload = f"{nonce}\n{request_signature}\n{status}\n{digest}"
    return signatures.signing_bytes(_RESPONSE_DOMAIN, payload.encode())


_last_nonce = 0


def _fresh_nonce() -> int:
    """The time in nanoseconds, but never twice in a process: a coarse clock repeats itself."""
    global _last_nonce
    _last_nonce = max(time.time_ns(), _last_nonce + 1)
    return _last_nonce
