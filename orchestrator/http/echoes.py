"""Echoes, by which a node measures its line to the orchestrator."""

from __future__ import annotations

import time
from typing import Final

from iota.http.token_buckets import TokenBuckets
from iota.protocol.echo import EchoReply, EchoRequest
from iota.protocol.problems import Problem, ProblemType
from orchestrator.http.middleware import Call
from orchestrator.intake import parse

_RATE: Final = 1 / 10
_BURST: Final = 32.0
"""Echoes of one hotkey: a node measures at its start, with a dozen, and seldom later."""


class Echoes:
    """Answers echoes of admitted hotkeys, which need not have joined."""

    def __init__(self) -> None:
        self._buckets = TokenBuckets(_RATE, _BURST)

    async def echo(self, call: Call) -> bytes:
        """POST /v1/echo: an EchoReply. Raises Problem: RATE_LIMITED."""
        if wait := self._buckets.take(call.hotkey, time.monotonic()):
            raise Problem(ProblemType.RATE_LIMITED, "this hotkey measures too often", retry_after=wait)
        request = parse(EchoRequest, call.body)
        reply = EchoReply(address=call.request.remote or "", filler="0" * request.answer)
        return reply.model_dump_json().encode()
