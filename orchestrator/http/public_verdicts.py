"""Handler for anyone: the signed verdicts of an epoch, page by page."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from iota.protocol.problems import Problem, ProblemType
from iota.protocol.verdicts import PAGE
from orchestrator.coordinator import Coordinator
from orchestrator.http.public import path_number


class VerdictCalls:
    """Handler of unsigned requests for verdicts: whoever reads them checks the signatures."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._unpacking = asyncio.Lock()

    async def verdicts(self, request: web.Request) -> web.Response:
        """GET /v1/epochs/N/verdicts[?page=P]: a `VerdictPage`; NOT_FOUND where none are kept."""
        epoch, page = path_number(request, "epoch"), _page(request)
        found = self._coordinator.public_verdicts(epoch)
        if found is None:
            raise Problem(
                ProblemType.NOT_FOUND, f"epoch {epoch} is not sealed yet, or its verdicts are no longer kept"
            )
        head = {"epoch": epoch, "closed": found.closed, "links": found.links, "total": found.log.count}
        async with self._unpacking:  # one at a time: strangers must not fill the threads
            lines = await asyncio.to_thread(found.log.page, page)
        body = json.dumps(head).encode()[:-1] + b', "verdicts": [' + b",".join(lines[:PAGE]) + b"]}"
        return web.Response(body=body, content_type="application/json")


def _page(request: web.Request) -> int:
    text = request.query.get("page", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Problem(ProblemType.NOT_FOUND, "the page is not a number")
    return int(text)
