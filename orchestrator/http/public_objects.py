"""Handlers for anyone: the stored bases, and URLs of their parts, of plans and of the tokenizer."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiohttp import web
from cachetools import TLRUCache

from iota.objects import BaseKey, PlanKey, parse_key, tokenizer_key
from iota.protocol.messages import ObjectReply
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.records import BaseEpochs
from iota.store import ObjectStore
from orchestrator.coordinator import Coordinator
from orchestrator.http.public import path_number

_MAX_URLS: Final = 4096
"""URLs that are kept: strangers ask for the same objects, and signing takes time."""


class PublicObjects:
    """Handlers of unsigned requests for what an export needs."""

    def __init__(self, coordinator: Coordinator, store: ObjectStore, expires_s: float) -> None:
        """A URL is valid for between half of `expires_s` seconds and all of them."""
        self._coordinator, self._store, self._expires_s = coordinator, store, expires_s
        self._tokenizer = tokenizer_key(coordinator.spec.data.manifest)
        self._urls: TLRUCache[str, ObjectReply, float] = TLRUCache(
            _MAX_URLS, ttu=lambda key, reply, now: reply.expires - expires_s / 2, timer=time.time
        )
        self._signing = asyncio.Lock()

    async def epochs(self, request: web.Request) -> web.Response:
        """GET /v1/bases: the epochs whose base is stored by every stage."""
        reply = BaseEpochs(epochs=tuple(self._coordinator.stored_epochs()))
        return _json(reply.model_dump_json())

    async def base(self, request: web.Request) -> web.Response:
        """GET /v1/bases/EPOCH/STAGE: the record of a stored base, else NOT_FOUND."""
        epoch, stage = path_number(request, "epoch"), path_number(request, "stage")
        record = self._coordinator.stored_base(epoch, stage)
        if record is None:
            raise self._not_stored(epoch, stage)
        return _json(await asyncio.to_thread(record.model_dump_json))

    async def url(self, request: web.Request) -> web.Response:
        """GET /v1/objects?key=KEY: a presigned URL of a stored base's part, of a plan or of the tokenizer.

        Raises Problem: NOT_FOUND for one that is not there, FORBIDDEN for any other key.
        """
        key = request.query.get("key", "")
        self._check_public(key)
        async with self._signing:  # one at a time: strangers must not fill the threads
            reply = self._urls.get(key)
            if reply is None:
                url = await asyncio.to_thread(self._store.presign_get, key, self._expires_s)
                reply = self._urls[key] = ObjectReply(url=url, expires=time.time() + self._expires_s)
        return _json(reply.model_dump_json())

    def _check_public(self, key: str) -> None:
        if key == self._tokenizer:
            return
        named = parse_key(key)
        if isinstance(named, PlanKey):
            root = self._coordinator.plan_root(named.epoch, named.step)
            if (named.run, named.root) == (self._coordinator.spec.id, root):
                return
            raise Problem(ProblemType.NOT_FOUND, "no epoch that can be read has this plan")
        if not isinstance(named, BaseKey):
            what = "only parts of stored bases, plans and the tokenizer are public"
            raise Problem(ProblemType.FORBIDDEN, what)
        record = self._coordinator.stored_base(named.epoch, named.stage)
        if record is None or all(part.key != key for part in record.parts):
            raise self._not_stored(named.epoch, named.stage)

    def _not_stored(self, epoch: int, stage: int) -> Problem:
        stored = self._coordinator.stored_epochs()
        return Problem(
            ProblemType.NOT_FOUND,
            f"no such base of epoch {epoch} is stored for stage {stage}; those of epochs {stored} are",
        )


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
