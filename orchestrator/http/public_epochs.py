"""Handlers for anyone: the seal, the record, the receipts and the links of sealed epochs."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Final

from aiohttp import web
from blake3 import blake3
from cachetools import LRUCache
from pydantic import TypeAdapter

from iota.protocol.merkle import merkle_paths
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import ReceiptBatch
from iota.protocol.records import EpochRecord
from iota.protocol.seals import SealedPart, SignedSeal, member_parts
from orchestrator.coordinator import Coordinator
from orchestrator.coordinator.state import SealedRecord
from orchestrator.http.public import path_number
from orchestrator.http.statements import Statements
from orchestrator.journal import Journal

_FOR_EVER: Final = "public, max-age=31536000, immutable"
"""Cache-Control of what never changes: a seal, and the record that it names."""
_ASK_AGAIN: Final = "public, no-cache"
"""Cache-Control of what may grow: caches keep it, and compare the ETag before they serve it."""
_EPOCHS_IN_PARTS: Final = 2
"""Epochs whose parts are kept ready: at each seal every miner asks for its own."""
_BATCHES: Final = TypeAdapter(list[ReceiptBatch])


class PublicEpochs:
    """Handlers of unsigned requests for what a validator audits, and a miner checks. NOT_FOUND for an epoch
    that is not sealed, or whose audits were closed more than `audit.window` epochs ago."""

    def __init__(self, coordinator: Coordinator, journal: Journal, statements: Statements) -> None:
        self._coordinator, self._journal, self._statements = coordinator, journal, statements
        self._parts: LRUCache[int, dict[str, bytes]] = LRUCache(_EPOCHS_IN_PARTS)
        """By epoch: hotkey -> its `SealedPart` as JSON."""
        self._working = asyncio.Lock()
        """One large answer is made at a time, so that strangers fill neither memory nor threads."""

    async def seal(self, request: web.Request) -> web.Response:
        """GET /v1/epochs/EPOCH/seal: a SignedSeal."""
        seal = self._sealed(request).seal
        body = SignedSeal(seal=seal, signature=self._statements.seal(seal)).model_dump_json().encode()
        return _answer(request, body, seal.content_digest(), _FOR_EVER)

    async def record(self, request: web.Request) -> web.Response:
        """GET /v1/epochs/EPOCH/record: the bytes whose BLAKE3 is the seal's `record`."""
        sealed = self._sealed(request)
        if _has(request, sealed.seal.record):
            return _answer(request, b"", sealed.seal.record, _FOR_EVER)
        async with self._working:
            body = await asyncio.to_thread(zlib.decompress, sealed.packed)
        return _answer(request, body, sealed.seal.record, _FOR_EVER)

    async def part(self, request: web.Request) -> web.Response:
        """GET /v1/epochs/EPOCH/record/HOTKEY: a miner's SealedPart; NOT_FOUND where it had no part in it."""
        sealed, hotkey = self._sealed(request), request.match_info["hotkey"]
        epoch = sealed.seal.epoch
        async with self._working:
            if epoch not in self._parts:
                self._parts[epoch] = await asyncio.to_thread(_parts, sealed.packed)
            body = self._parts[epoch].get(hotkey)
        if body is None:
            raise Problem(ProblemType.NOT_FOUND, f"{hotkey[:64]} had no part in epoch {epoch}")
        return _answer(request, body, blake3(body).hexdigest(), _FOR_EVER)

    async def receipts(self, request: web.Request) -> web.Response:
        """GET /v1/epochs/EPOCH/receipts/HOTKEY: the batches that touch the epoch, as their miner signed them.

        They may grow by receipts that came after the seal, which the record does not name.
        """
        epoch, hotkey = self._sealed(request).seal.epoch, request.match_info["hotkey"]
        if hotkey not in self._coordinator.members:
            raise Problem(ProblemType.NOT_FOUND, f"{hotkey[:64]} is no member of this run")
        async with self._working:
            body = await asyncio.to_thread(lambda: _BATCHES.dump_json(self._journal.receipts(hotkey, epoch)))
        return _answer(request, body, blake3(body).hexdigest(), _ASK_AGAIN)

    async def links(self, request: web.Request) -> web.Response:
        """GET /v1/epochs/EPOCH/links: validator -> its revealed link; they grow while audits are open."""
        links = self._coordinator.links(self._sealed(request).seal.epoch)
        body = json.dumps(links, sort_keys=True, separators=(",", ":")).encode()
        return _answer(request, body, blake3(body).hexdigest(), _ASK_AGAIN)

    def _sealed(self, request: web.Request) -> SealedRecord:
        epoch = path_number(request, "epoch")
        if (sealed := self._coordinator.published(epoch)) is None:
            raise Problem(
                ProblemType.NOT_FOUND, f"epoch {epoch} is not sealed yet, or it was too long ago to be kept"
            )
        return sealed


def _parts(packed: bytes) -> dict[str, bytes]:
    parts = member_parts(EpochRecord.model_validate_json(zlib.decompress(packed)))
    paths = merkle_paths([part.content_digest() for part in parts])
    return {
        part.miner.hotkey: SealedPart(part=part, at=at, count=len(parts), path=path)
        .model_dump_json()
        .encode()
        for at, (part, path) in enumerate(zip(parts, paths, strict=True))
    }


def _has(request: web.Request, tag: str) -> bool:
    return any(each.value == tag for each in request.if_none_match or ())


def _answer(request: web.Request, body: bytes, tag: str, cached: str) -> web.Response:
    """The body, or 304 where the client has it; `tag` is a digest of it."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": cached}
    if _has(request, tag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)
