"""Tries what a run needs of an S3 service, one thing after another, and chooses how to use it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from iota.http import Answer, AnswerRefused, Compressed, HttpClient, NoAnswer
from iota.store.checks import CHECK_FOLDER, Check, State
from iota.store.s3_api import PartInfo, S3Api, typed_errors
from iota.store.s3_modes import MAX_EXPIRY_S, CreateOnce, Deletes, Parts, S3Modes
from iota.store.store import ObjectExists, StoreError, StoreUnavailable, UrlRefused

_TRIAL_S: Final = 30.0
"""Deadline of one request."""
_URL_S: Final = 60
"""Life of the URLs that are tried; a run needs at least that."""
_HOUR_S: Final = 3600
"""Life of the URLs that nodes are given."""
_EXPIRIES_S: Final = (MAX_EXPIRY_S, 86_400, 43_200, 21_600, _HOUR_S, 1800, 900, 600, 300)
"""Lives of URLs that are tried, the longest first."""
_EXPIRED_S: Final = 2.0
"""Age at which a URL of one second must be refused."""
_DATA: Final = b"what an object has: " + bytes(range(236))
_OTHER: Final = _DATA[::-1]
_MAX_ANSWER: Final = 1 << 16
_IN_WORDS: Final = {
    Deletes.BATCH: "in batches without it",
    Deletes.BATCH_MD5: "in batches with it",
    Deletes.ONE_BY_ONE: "one by one",
}
"""What is done where a way to delete is missing."""
_PERMISSION: Final = "give the credentials s3:ListBucket"
Say = Callable[[Check], None]


async def probe(api: S3Api, prefix: str, say: Say) -> tuple[S3Modes, tuple[Check, ...]]:
    """How to use the service, and what was found; each check is given to `say` when it is made.

    It works below `prefix` in a folder of its own, which it empties.

    Raises:
        BucketMissing, UrlRefused, StoreUnavailable: nothing can be found out.
    """
    folder = f"{prefix}{CHECK_FOLDER}/{uuid.uuid4().hex}/"
    api.modes = S3Modes()
    listed = await asyncio.to_thread(api.list, folder)
    async with HttpClient() as http:
        trial = _Probe(api, http, folder, say)
        trial.found("list", listed == [], "objects below a prefix")
        try:
            await trial.run()
        finally:
            await trial.clean_up()
    return api.modes, tuple(trial.checks)


class _Probe:
    """The trials in their order; `api.modes` becomes what they find."""

    def __init__(self, api: S3Api, http: HttpClient, folder: str, say: Say) -> None:
        self._api, self._http, self._folder, self._say = api, http, folder, say
        self.checks: list[Check] = []

    def found(
        self, name: str, works: bool, found: str, follows: str = "", otherwise: State = State.MISSING
    ) -> None:
        """Note a check; `follows` and `otherwise` are for one that does not work."""
        check = Check(name, State.WORKS if works else otherwise, found, "" if works else follows)
        self.checks.append(check)
        self._say(check)

    async def run(self) -> None:
        """Make all trials; none follow where nothing can be stored."""
        expired, since = self._url("get_object", "first", life_s=1), time.monotonic()
        if not await self._puts():
            return
        await self._create_once()
        await self._parts()
        await self._sizes_and_signatures()
        await self._reads()
        await self._deletes()
        await self._expiries()
        await asyncio.sleep(max(0.0, since + _EXPIRED_S - time.monotonic()))
        answer = await self._send("GET", expired)
        follows = "who has had a URL can use it for ever"
        self.found("expired URL", answer.status in (400, 401, 403), _status(answer), follows)

    async def clean_up(self) -> None:
        """Delete what the trials have left."""
        try:
            for item in await asyncio.to_thread(self._api.list, self._folder):
                await asyncio.to_thread(self._api.delete_one, item.key)
        except StoreError as error:
            self.found("cleaning up", False, _short(error), f"delete what is below {self._folder}")

    async def _puts(self) -> bool:
        try:
            await self._blocking(self._api.client.put_object, Key=self._key("first"), Body=_DATA)
        except UrlRefused as error:
            self.found("put", False, _short(error), "nothing can be stored", State.FATAL)
            return False
        self.found("put", True, "with credentials")
        answer = await self._send("PUT", self._put_url("second"), _DATA)
        put = answer.status < 300
        read = put and (await self._send("GET", self._url("get_object", "second"))).body == _DATA
        self.found("presigned PUT", put, _status(answer), "nodes cannot store anything", State.FATAL)
        self.found("presigned GET", read, "the same bytes", "nodes cannot read anything", State.FATAL)
        return put and read

    async def _create_once(self) -> None:
        """Whether a condition keeps what is there, in both ways of signing; else by copies."""
        api, key = self._api, self._key("first")
        try:
            await self._blocking(api.client.put_object, Key=key, Body=_OTHER, IfNoneMatch="*")
            held, said = False, "an object was overwritten all the same"
        except ObjectExists:
            held, said = True, "with credentials, If-None-Match: * is refused for a key that exists"
        except StoreError as error:
            held, said = False, f"with credentials, If-None-Match: * {_short(error)}"
        self.found("create once", held, said)
        condition = {"If-None-Match": "*"}
        new = await self._send("PUT", self._put_url("third", once=True), _DATA, condition)
        again = await self._send("PUT", self._put_url("third", once=True), _OTHER, condition)
        by_url = new.status < 300 and again.status in (409, 412)
        said = f"signed If-None-Match: * gives {new.status}, and {again.status} for a key that exists"
        self.found(
            "create once, URL", by_url, said, "uploads go to keys of their own, and are copied from there"
        )
        if not by_url:
            api.modes = replace(api.modes, create_once=CreateOnce.COPY)
            await self._copies()

    async def _copies(self) -> None:
        source, target = self._key("second"), self._key("fourth")
        try:
            await asyncio.to_thread(self._api.copy, source, target)
            copied = (await self._send("GET", self._url("get_object", "fourth"))).body == _DATA
            said = "within the bucket"
        except StoreError as error:
            copied, said = False, _short(error)
        self.found("copy", copied, said, "nothing keeps an object from being overwritten", State.FATAL)

    async def _parts(self) -> None:
        """Whether an object can be stored in parts, and whether its completion can be held to a condition."""
        api = self._api
        try:
            parts = await self._sent_part("fifth")
            await asyncio.to_thread(api.complete_upload, self._key("fifth"), *parts, once=False)
            works = (await self._send("GET", self._url("get_object", "fifth"))).body == _DATA
            said = "presigned parts, one object"
        except StoreError as error:
            works, said = False, _short(error)
        self.found("parts", works, said, "an object has at most 5 GiB, and goes by one request")
        api.modes = replace(api.modes, parts=Parts.LOOK if works else Parts.NONE)
        if works:
            await self._parts_once()

    async def _parts_once(self) -> None:
        upload, parts = await self._sent_part("third")
        try:
            await asyncio.to_thread(self._api.complete_upload, self._key("third"), upload, parts, once=True)
            held, said = False, "an object was overwritten all the same"
        except ObjectExists:
            held, said = True, "If-None-Match: * is refused for a key that exists"
        except StoreError as error:
            held, said = False, f"If-None-Match: * {_short(error)}"
        self.found("create once, parts", held, said, "the orchestrator looks before it completes an object")
        await asyncio.to_thread(self._api.abort_uploads, self._folder)
        if held:
            self._api.modes = replace(self._api.modes, parts=Parts.CONDITION)

    async def _sent_part(self, name: str) -> tuple[str, Sequence[PartInfo]]:
        """An upload with its only part, which was stored by URL."""
        api, key = self._api, self._key(name)
        upload = await asyncio.to_thread(api.begin_upload, key)
        if await asyncio.to_thread(api.begin_upload, key) != upload:
            raise StoreError("list: an upload that was begun is not listed")
        how = {"UploadId": upload, "PartNumber": 1, "ContentLength": len(_DATA)}
        answer = await self._send("PUT", api.url("upload_part", key, _URL_S, **how), _DATA)
        if answer.status >= 300:
            raise StoreError(f"PUT: {_status(answer)}")
        return upload, await asyncio.to_thread(api.parts, key, upload)

    async def _sizes_and_signatures(self) -> None:
        longer = await self._send("PUT", self._put_url("longer"), _DATA + b"x")
        self.found(
            "exact size",
            longer.status >= 400,
            f"a longer body gives {longer.status}",
            "members can store more than they were allowed; what they announce is measured all the same",
        )
        url = self._url("get_object", "second")
        forged = await self._send("GET", url[:-1] + ("0" if url[-1] != "0" else "1"))
        self.found(
            "signature",
            forged.status in (400, 401, 403),
            f"a forged URL gives {forged.status}",
            "whoever reaches the service can read and write: for tests only",
        )

    async def _reads(self) -> None:
        part = await self._send("GET", self._url("get_object", "second"), headers={"Range": "bytes=3-9"})
        exact = (part.status, part.body) == (206, _DATA[3:10])
        self.found("ranges", exact, _status(part), "training data cannot be read", State.FATAL)
        absent = await self._send("GET", self._url("get_object", "absent"))
        self.found("absent object", absent.status == 404, _status(absent), _PERMISSION, State.FATAL)

    async def _deletes(self) -> None:
        api = self._api
        single, said = await self._deletes_by(lambda: api.delete_one(self._key("fourth")))
        self.found("single delete", single, said)
        ways = {}
        for way in (Deletes.BATCH, Deletes.BATCH_MD5):
            api.modes = replace(api.modes, deletes=way)
            ways[way] = await self._deletes_by(lambda: api.delete([self._key("fourth")]))
        chosen = next((way for way, (works, _) in ways.items() if works), Deletes.ONE_BY_ONE)
        api.modes = replace(api.modes, deletes=chosen)
        for way, (works, said) in ways.items():
            self.found(f"{way}", works, said, f"objects are deleted {_IN_WORDS[chosen]}")
        if chosen is Deletes.ONE_BY_ONE and not single:
            self.found("delete", False, "in no way", "closed epochs would stay for ever", State.FATAL)

    async def _deletes_by(self, work: Callable[[], None]) -> tuple[bool, str]:
        """Whether `work` deletes the fourth object, and what was seen."""
        await self._blocking(self._api.client.put_object, Key=self._key("fourth"), Body=_DATA)
        try:
            await asyncio.to_thread(work)
        except StoreError as error:
            return False, _short(error)
        then = await self._send("GET", self._url("get_object", "fourth"))
        return then.status == 404, f"the object then {_status(then)}"

    async def _expiries(self) -> None:
        longest_s = _URL_S
        for life_s in _EXPIRIES_S:
            if (await self._send("GET", self._url("get_object", "second", life_s))).status < 300:
                longest_s = life_s
                break
        self._api.modes = replace(self._api.modes, max_expiry_s=longest_s)
        follows = "nodes ask again for URLs that are older"
        self.found("expiry", longest_s >= _HOUR_S, f"URLs live up to {longest_s} s", follows)

    def _key(self, name: str) -> str:
        return self._folder + name

    def _put_url(self, name: str, *, once: bool = False) -> str:
        return self._api.put_url(self._key(name), len(_DATA), _URL_S, once=once)

    def _url(self, operation: str, name: str, life_s: int = _URL_S) -> str:
        return self._api.url(operation, self._key(name), life_s)

    async def _send(
        self, method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request by URL, as a node sends it; any status is an answer."""
        try:
            return await self._http.fetch(
                method, url, max_bytes=_MAX_ANSWER, timeout_s=_TRIAL_S, headers=headers, body=body
            )
        except Compressed as error:  # a gateway's page of an error
            return Answer(error.status, {}, b"")
        except (NoAnswer, AnswerRefused) as error:
            raise StoreUnavailable(f"{method} by URL: {error}") from error

    async def _blocking(self, operation: Callable[..., object], **parameters: Any) -> None:
        def call() -> None:
            with typed_errors(parameters["Key"]):
                operation(Bucket=self._api.bucket, **parameters)

        await asyncio.to_thread(call)


def _status(answer: Answer) -> str:
    return f"gives {answer.status}"


def _short(error: StoreError) -> str:
    """The service's own code and status, where it gave them."""
    answer = getattr(error.__cause__, "response", None)
    if answer is None:
        return str(error)
    return f"gives {answer['ResponseMetadata']['HTTPStatusCode']} {answer['Error'].get('Code', '')}".strip()
