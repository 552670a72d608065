"""Public calls of an orchestrator for `iota status`, `iota explain` and `iota bridge`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from iota.console.command import WorkFailed
from iota.console.redaction import without_secrets
from iota.protocol.status_delta import MAX_STATUS_BYTES, Status
from iota.settings import NodeSettings

if TYPE_CHECKING:
    from iota.protocol.bridge import WatchReply
    from iota.protocol.member_records import MemberRecord

ANSWER_S: Final = 10.0
AWAY_S: Final = 120.0
"""How long a stream that broke is asked for again."""
_PAUSE_S: Final = 2.0
_MAX_DESCRIBED: Final = 300
_EVENT_ID: Final = re.compile(rb"id: ([0-9a-f]{1,64}-[0-9]{1,16})\s*")


class NoOrchestrator(WorkFailed):
    """No orchestrator answers at the URL."""


def orchestrator_url(run_dir: Path | None, flags: dict[str, Any]) -> str:
    """The orchestrator's URL, from a run's folder or the settings. Raises ValueError for both or neither."""
    from iota.swarm.run_dir import no_run, read_info

    if run_dir is not None:
        if flags.get("orchestrator") is not None:
            raise ValueError("give --orchestrator or --run-dir, not both")
        url = read_info(run_dir).get("url")
        if not isinstance(url, str):
            raise no_run(run_dir)
        return url
    return NodeSettings.load(**flags).orchestrator


def get(url: str, path: str) -> bytes | None:
    """The body of GET `path`; None for 404. Raises NoOrchestrator, and ValueError for another refusal."""
    from iota.http import AnswerRefused, HttpClient, NoAnswer  # slow to import, and a --help needs none of it

    async def ask() -> bytes | None:
        async with HttpClient() as http:
            answer = await http.fetch("GET", f"{url}{path}", max_bytes=MAX_STATUS_BYTES, timeout_s=ANSWER_S)
        return answer.body if _found(url, path, answer.status) else None

    try:
        return asyncio.run(ask())
    except (NoAnswer, AnswerRefused) as error:
        raise no_orchestrator(url, error) from None


def status(url: str) -> Status:
    """The status of the run. Raises NoOrchestrator, and ValueError where something else answers."""
    body = get(url, "/v1/status")
    if body is None:
        raise ValueError(f"{without_secrets(url)} has no status of a run: check --orchestrator")
    return _taken(url, None, body)


def member(url: str, hotkey: str) -> MemberRecord | None:
    """The record of the member whose hotkey begins so; None where there is none. Raises as `status`."""
    from pydantic import ValidationError

    from iota.protocol.member_records import MemberRecord
    from iota.settings.sentences import sentence

    body = get(url, f"/v1/members/{hotkey}")
    try:
        return None if body is None else MemberRecord.model_validate_json(body)
    except ValidationError as error:
        raise _stranger(url, "record of a member", sentence(error)[:_MAX_DESCRIBED]) from None


def _taken(url: str, before: Status | None, body: bytes) -> Status:
    from iota.protocol.run_status import MalformedStatus, take_status

    try:
        return take_status(before, body)
    except MalformedStatus as error:
        raise _stranger(url, "status of a run", error) from None


def _stranger(url: str, what: str, reason: object) -> ValueError:
    return ValueError(f"what {without_secrets(url)} sends is no {what} ({reason}): check --orchestrator")


def statuses(url: str) -> Iterator[Status]:
    """Each new status of the run, whole, until it has ended; a broken stream is taken up where it was.

    Raises NoOrchestrator where none answers at first, or for `AWAY_S` after a break; else as `status`.
    """
    whole: Status | None = None
    for data in _events(url, "/v1/stream"):
        whole = _taken(url, whole, data)
        yield whole
        if whole["finished"]:
            return


def variable_changes(url: str, prefix: str, revision: int | None) -> Iterator[WatchReply]:
    """Changes of public variables after a revision, without an end; a broken stream is taken up.

    A snapshot comes whole. Raises as `statuses`.
    """
    from urllib.parse import urlencode

    from pydantic import ValidationError

    from iota.protocol.bridge import ListReply, WatchReply
    from iota.settings.sentences import sentence

    since = {} if revision is None else {"revision": revision}
    try:
        for data in _events(url, f"/v1/bridge/stream?{urlencode({'prefix': prefix, **since})}"):
            found = WatchReply.model_validate_json(data)
            while found.more and found.snapshot:
                query = urlencode({"prefix": prefix, "after": found.changes[-1].name})
                listed = ListReply.model_validate_json(get(url, f"/v1/bridge/list?{query}") or b"")
                found = found.with_page(listed)
            yield found
    except ValidationError as error:
        raise _stranger(url, "variables of a run", sentence(error)[:_MAX_DESCRIBED]) from None


def _events(url: str, path: str) -> Iterator[bytes]:
    """The data of a stream's events, without an end; a broken stream is taken up where it was.

    Raises NoOrchestrator where none answers at first, or for `AWAY_S` after a break; else as `get`.
    """
    last_id, away_since, heard = "", None, False
    while True:
        try:
            for line in _stream(url, path, last_id):
                if found := _EVENT_ID.fullmatch(line):
                    last_id = found[1].decode()
                elif line.startswith(b"data: "):
                    away_since, heard = None, True
                    yield line[6:]
        except NoOrchestrator:
            if not heard:
                raise
        away_since = away_since or time.monotonic()
        if time.monotonic() > away_since + AWAY_S:
            raise NoOrchestrator(f"no orchestrator has answered at {url} for {AWAY_S:.0f} s")
        time.sleep(_PAUSE_S)


def _stream(url: str, path: str, last_id: str) -> Iterator[bytes]:
    """The lines of the stream after event `last_id`, until it breaks. Raises as `get`."""
    from iota.http import AnswerRefused, HttpClient, NoAnswer, lines

    async def read() -> AsyncGenerator[bytes]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with HttpClient() as http, http.open("GET", f"{url}{path}", headers=headers) as answer:
            if _found(url, path, answer.status):
                async for line in lines(answer, MAX_STATUS_BYTES):
                    yield line

    found = read()

    async def following() -> bytes | None:
        return await anext(found, None)

    with asyncio.Runner() as runner:
        try:
            while (line := runner.run(following())) is not None:
                yield line
        except (NoAnswer, AnswerRefused) as error:
            raise no_orchestrator(url, error) from None
        finally:
            runner.run(found.aclose())


def _found(url: str, path: str, status: int) -> bool:
    """Whether an answer holds what was asked for: False for 404. Raises ValueError for another refusal."""
    if status not in (200, 404):
        raise ValueError(f"{without_secrets(url)}{path} answers HTTP {status}")
    return status == 200


def no_orchestrator(url: str, reason: object) -> NoOrchestrator:
    """The error for an orchestrator that does not answer at `url`, for `reason`."""
    return NoOrchestrator(
        f"no orchestrator answers at {without_secrets(url)} ({reason}): is the run going? Give"
        " --orchestrator URL, or --run-dir DIR for a run of `iota up`"
    )
