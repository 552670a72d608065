"""Signed HTTP: authenticates the sender of a request, and binds an answer to the server and the request.

Requests use the Bittensor SDK's scheme (`bittensor.http_auth`, btauth/1), which covers method, path and
query, body, time, sender and receiver. This module is stricter: the receiver is required; only sr25519 and
one spelling of an address are accepted; a nonce from before the server's start is refused, because the nonces
seen are kept in memory only. Answers are signed in a header of our own, `X-Iota-Signature`.

The SDK is imported at first use, since the import takes 0.4 s and 46 MB.
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
"""Version of the form of the bytes that an answer's signature covers."""
MAX_AGE_S: Final = 10.0
"""Maximum age of a request at arrival."""
ALLOWED_SKEW_S: Final = 2.0
"""Maximum lead of the sender's clock over the server's."""

_RESPONSE_DOMAIN: Final = f"response/{RESPONSE_VERSION}"
_PREFIX: Final = "x-bittensor-"
_SECOND: Final = 1_000_000_000
_RESTARTED_S: Final = 0.1
"""Retry-After for a request that was signed before the server's start."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated sender of a request."""

    hotkey: str
    nonce: int
    """The sender's clock when it signed, nanoseconds since the Unix epoch."""
    signature: str
    """The request's signature header, which the answer's signature covers."""


def sign_request(hotkey: Hotkey, method: str, path_qs: str, body: bytes, receiver: str) -> dict[str, str]:
    """Headers that authenticate this request to `receiver` (an ss58 address).

    `path_qs` is the request target exactly as sent, with percent-encoding and query. Every try must be signed
    anew, since a server accepts a signature once.
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
    """Verifies the requests to one server, and accepts each at most once.

    A nonce from before this object's creation is refused, because an earlier process may have accepted it. An
    earlier process may also have accepted a later nonce, from a sender whose clock is ahead (by at most
    `ALLOWED_SKEW_S`). A server that can restart faster than that must persist `highest_nonce` with the
    request's effect, and pass it as `fence_ns`.
    """

    def __init__(
        self, self_hotkey: str, clock: Callable[[], int] = time.time_ns, *, fence_ns: int = 0
    ) -> None:
        """`self_hotkey` is the server's ss58 address; `clock` gives Unix time in nanoseconds."""
        if not signatures.is_address(self_hotkey):
            raise ValueError(f"{self_hotkey!r} is not an ss58 address (format 42)")
        self._self_hotkey = self_hotkey
        self._clock = clock
        self._floor_ns = max(clock(), fence_ns + 1)
        self._seen = _SeenNonces(int((MAX_AGE_S + ALLOWED_SKEW_S) * _SECOND), clock)
        self.highest_nonce = fence_ns
        """The highest nonce accepted so far, here or (by `fence_ns`) before."""

    def verify(self, headers: Mapping[str, str], body: bytes, method: str, path_qs: str) -> Caller:
        """Authenticate a request, and refuse the same request from then on.

        `headers` may be a multi-dict, `body` is the raw bytes as received, `path_qs` the raw target.

        Raises:
            Problem: UNSIGNED, MALFORMED_AUTH, WRONG_RECEIVER, STALE (with the clock's offset), RESTARTED (the
                sender may sign it anew), REPLAYED or BAD_SIGNATURE.
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
                max_age=MAX_AGE_S,
                allowed_skew=ALLOWED_SKEW_S,
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
        """Raise Problem (STALE or RESTARTED) for a nonce outside of the accepted time."""
        nonce = int(nonce_text)
        offset_s = (nonce - self._clock()) / _SECOND
        if not -MAX_AGE_S <= offset_s <= ALLOWED_SKEW_S:
            raise Problem(
                ProblemType.STALE,
                f"the request is dated {offset_s:+.1f} s from this server's clock; between "
                f"-{MAX_AGE_S:g} and +{ALLOWED_SKEW_S:g} s is taken: set your clock (NTP)",
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
    hotkey: Hotkey, request_nonce: int, status: int, body: bytes, *, request_signature: str
) -> str:
    """The value of `X-Iota-Signature` for an answer. `request_signature` is `Caller.signature`.

    It binds the answer to one request. The nonce alone does not: another sender can choose the same nonce for
    another request, and pass the answer on.
    """
    return hotkey.sign(_response_bytes(request_nonce, status, body, request_signature)).hex()


def verify_response(
    server_ss58: str,
    request_nonce: int,
    status: int,
    body: bytes,
    header: str | None,
    *,
    request_signature: str,
) -> bool:
    """Whether `header` is the signature of `server_ss58` over this answer to this request; never raises."""
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
    """(hotkey, nonce) pairs accepted within the window, by the server's clock; a `NonceStore` of the SDK."""

    def __init__(self, window_ns: int, clock: Callable[[], int]) -> None:
        self._taken: TTLCache[tuple[str, int], None, int] = TTLCache(math.inf, 2 * window_ns, clock)

    def check_and_store(self, hotkey_ss58: str, nonce_ns: int) -> bool:
        """Accept a nonce; False where it was accepted before."""
        pair = (hotkey_ss58, nonce_ns)
        fresh = pair not in self._taken
        if fresh:
            self._taken[pair] = None
        return fresh


def _auth_fields(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The `X-Bittensor-*` headers by name without the prefix. Raises Problem: UNSIGNED or MALFORMED_AUTH."""
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
    """The time in nanoseconds, but never the same twice in a process: clocks may be coarse."""
    global _last_nonce
    _last_nonce = max(time.time_ns(), _last_nonce + 1)
    return _last_nonce
