"""Tries what a run needs of an embedded store: is it there, has it our secret, does a proxy let all pass."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from iota.store.checks import CHECK_FOLDER, Check, State
from iota.store.store import ObjectExists, ObjectStore, StoreError, StoreUnavailable
from iota.store.transfer import ObjectClient

_TRIAL_S: Final = 30.0
_DATA: Final = b"what an object has: " + bytes(range(236))
Work = Callable[[], Awaitable[bool]]


async def check_embedded(
    store: ObjectStore, client: ObjectClient, say: Callable[[Check], None]
) -> tuple[Check, ...]:
    """Each thing that was tried, in order; a run needs every one. Raises UrlRefused, StoreUnavailable."""
    trials = _Trials(store, client)
    await store.list(trials.folder)  # without the right secret nothing else has a meaning
    checks = []
    try:
        for name, work in trials.all.items():
            checks.append(await _tried(name, work))
            say(checks[-1])
    finally:
        await store.delete_prefix(trials.folder)
    return tuple(checks)


async def _tried(name: str, work: Work) -> Check:
    try:
        works, found = await work(), ""
    except StoreUnavailable:
        raise
    except StoreError as error:
        works, found = False, str(error)
    if works:
        return Check(name, State.WORKS, "as it should")
    found = found or "otherwise than it should"
    return Check(name, State.FATAL, found, "look at what stands before the server")


class _Trials:
    def __init__(self, store: ObjectStore, client: ObjectClient) -> None:
        self._store, self._client = store, client
        self.folder = f"{CHECK_FOLDER}/{uuid.uuid4().hex}"
        self._first, self._second = f"{self.folder}/first", f"{self.folder}/second"
        self.all: dict[str, Work] = {
            "put": self._put,
            "create once": self._create_once,
            "presigned PUT": self._put_by_url,
            "presigned GET": self._get_by_url,
            "create once, URL": self._create_once_by_url,
            "exact size": self._exact_size,
            "ranges": self._ranges,
            "absent object": self._absent,
            "list": self._list,
            "expired URL": self._expired,
            "delete": self._delete,
        }

    async def _put(self) -> bool:
        await self._store.put(self._first, _DATA)
        return await self._store.get(self._first) == _DATA

    async def _create_once(self) -> bool:
        try:
            await self._store.put(self._first, _DATA[::-1])
        except ObjectExists:
            return await self._store.get(self._first) == _DATA
        return False

    async def _put_by_url(self) -> bool:
        return await self._client.put(self._put_url(self._second), _DATA, _TRIAL_S)

    async def _get_by_url(self) -> bool:
        return await self._client.get(self._get_url(), len(_DATA), _TRIAL_S) == _DATA

    async def _create_once_by_url(self) -> bool:
        created = await self._client.put(self._put_url(self._second), _DATA[::-1], _TRIAL_S)
        return not created and await self._get_by_url()

    async def _exact_size(self) -> bool:
        longer = self._client.put(self._put_url(f"{self.folder}/longer"), _DATA + b"x", _TRIAL_S)
        return await _is_refused(longer)

    async def _ranges(self) -> bool:
        part = await self._client.get(self._get_url(), len(_DATA), _TRIAL_S, (3, 10))
        return part == _DATA[3:10]

    async def _absent(self) -> bool:
        return await self._store.size(f"{self.folder}/absent") is None

    async def _list(self) -> bool:
        return [item.key for item in await self._store.list(self.folder)] == [self._first, self._second]

    async def _expired(self) -> bool:
        expired = self._store.presign_get(self._second, -1.0)
        return await _is_refused(self._client.get(expired, len(_DATA), _TRIAL_S))

    async def _delete(self) -> bool:
        deleted = await self._store.delete_prefix(self.folder)
        return deleted == 2 and await self._store.list(self.folder) == []

    def _put_url(self, key: str) -> str:
        return self._store.presign_put(key, len(_DATA), _TRIAL_S)

    def _get_url(self) -> str:
        return self._store.presign_get(self._second, _TRIAL_S)


async def _is_refused(work: Awaitable[object]) -> bool:
    try:
        await work
    except StoreUnavailable:
        raise
    except StoreError:
        return True
    return False
