"""The direct link: a frame is the body of one HTTP/1.1 request over TCP, and its answer the acknowledgement.

This side pushes; `iota.wire.direct_server` takes frames. Connections are kept open and used again.
"""

from __future__ import annotations

import time
from typing import Final

import aiohttp
from pydantic import ValidationError
from yarl import URL

from iota.http import (
    AddressRefused,
    AnswerRefused,
    HttpClient,
    NoAnswer,
    NotSent,
    Reach,
    UploadPace,
    proxy_for,
)
from iota.identity.signatures import SIGNATURE_BYTES
from iota.protocol.contacts import Contact
from iota.settings.urls import split_host_port
from iota.wire.direct_server import HELLO, PATH, Refused
from iota.wire.link import DoorRefused, LinkKind
from iota.wire.transport import OutgoingFrame, TransferRefused, TransportError, Unreachable

CONNECTIONS: Final = 128
"""Connections to peers that are open at once."""
_MAX_ANSWER: Final = 1024


class DirectLink:
    """A `Link` to peers that have an address, as a client. `serve_frames` is the other side."""

    kind = LinkKind.DIRECT

    def __init__(self, reach: Reach, pace: UploadPace | None = None) -> None:
        """A peer's address may lead nowhere that `reach` refuses, since anybody may name one."""
        self._http, self._reach = HttpClient(CONNECTIONS, reach.check, pace), reach
        self._best: dict[str, str] = {}
        """By hotkey: the address that answered last."""

    def reaches(self, peer: Contact) -> bool:
        return any(self._may_lead(address) for address in peer.direct)

    async def push(self, frame: OutgoingFrame, peer: Contact) -> bytes:
        last: TransportError = Unreachable("it names no address")
        best = self._best.get(peer.hotkey)
        for address in sorted(filter(self._may_lead, peer.direct), key=lambda each: each != best):
            try:
                answer = await self._push(frame, address, peer.certificate)
            except Unreachable as error:
                last = error
            else:
                self._best[peer.hotkey] = address
                return answer
        raise last

    async def round_trip(self, peer: Contact) -> float:
        """Seconds from a request to its answer, over an open connection. Raises Unreachable."""
        last = "it names no address that may be dialled"
        for address in filter(self._may_lead, peer.direct):
            try:
                for _ in range(2):  # the first one opens the connection
                    began = time.perf_counter()
                    async with self._http.open(
                        "GET", _url(address, peer.certificate, HELLO), certificate=peer.certificate
                    ):
                        pass
                return time.perf_counter() - began
            except (NotSent, NoAnswer, AnswerRefused, OSError, ValueError) as error:
                last = f"{address}: {error}"
        raise Unreachable(last)

    async def close(self) -> None:
        await self._http.close()

    def _may_lead(self, address: str) -> bool:
        """False for an IP address that `reach` refuses. A name is looked at when it is connected to; where a
        proxy would look it up, none is dialled."""
        try:
            self._reach.check(split_host_port(address)[0])
        except AddressRefused:
            return False
        except ValueError:  # a name
            return _is_resolved_here(address)
        return True

    async def _push(self, frame: OutgoingFrame, address: str, certificate: str | None) -> bytes:
        headers = {"Content-Length": str(len(frame.data)), "Content-Type": "application/octet-stream"}
        try:
            async with self._http.open(
                "POST",
                _url(address, certificate, PATH),
                headers=headers,
                body=memoryview(frame.data),
                certificate=certificate,
            ) as answer:
                body = await _bounded(answer)
        except (NotSent, NoAnswer, OSError, ValueError) as error:
            raise Unreachable(f"{address}: {error}") from error
        except AnswerRefused as error:
            raise TransportError(f"{address}: {error}") from error
        if answer.status == 200 and len(body) == SIGNATURE_BYTES:
            return body
        raise _refusal(address, answer.status, body)


def _url(address: str, certificate: str | None, path: str) -> URL:
    """Raises ValueError: contacts may have addresses that are none, such as one with port 99999."""
    return URL(f"{'http' if certificate is None else 'https'}://{address}{path}")


def _is_resolved_here(address: str) -> bool:
    """Whether no proxy resolves the name of an address, and connects to wherever it leads. False for none."""
    try:
        return all(proxy_for(f"{scheme}://{address}") is None for scheme in ("http", "https"))
    except ValueError:
        return False


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    body = await answer.content.read(_MAX_ANSWER + 1)
    return bytes(body)


def _refusal(address: str, status: int, body: bytes) -> TransportError:
    try:
        found = Refused.model_validate_json(body)
    except ValidationError:
        return TransportError(f"{address} answers with status {status}")
    refused = DoorRefused(found.why, found.detail)
    error = TransferRefused(f"{address}: {refused}")
    error.__cause__ = refused
    return error
