"""Public calls of an orchestrator for `iota status` and `iota explain`, by the standard library alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from iota.console.redaction import without_secrets
from iota.protocol.status_delta import Status, merged
from iota.settings import NodeSettings

if TYPE_CHECKING:
    from http.client import HTTPResponse

ANSWER_S: Final = 10.0
SILENCE_S: Final = 60.0
"""Timeout of a read from the stream, on which the orchestrator sends something at least every 15 s."""
AWAY_S: Final = 120.0
"""How long a stream that broke is asked for again."""
_PAUSE_S: Final = 2.0


class NoAnswer(ValueError):
    """No orchestrator answers at the URL."""


def orchestrator_url(run_dir: Path | None, flags: dict[str, Any]) -> str:
    """The orchestrator's URL, from a run's folder or the settings. Raises ValueError for both or neither."""
    from iota.swarm.run_dir import read_info

    if run_dir is not None:
        if flags.get("orchestrator") is not None:
            raise ValueError("give --orchestrator or --run-dir, not both")
        url = read_info(run_dir).get("url")
        if not isinstance(url, str):
            raise ValueError(f"there is no run in {run_dir}: give the folder of an `iota up`")
        return url
    return NodeSettings.load(**flags).orchestrator.strip().rstrip("/")


def get(url: str, path: str) -> bytes | None:
    """The body of GET `path`; None for 404. Raises NoAnswer, and ValueError for another refusal."""
    with _answer(url, path, ANSWER_S) as answer:
        return None if answer is None else answer.read()


def statuses(url: str) -> Iterator[Status]:
    """Each new status of the run, whole, until it has ended; a broken stream is taken up where it was.

    Raises NoAnswer where no orchestrator answers at first, or for `AWAY_S` after a break.
    """
    whole: Status | None = None
    last_id, away_since = "", None
    while True:
        try:
            with _answer(url, "/v1/stream", SILENCE_S, {"Last-Event-ID": last_id}) as answer:
                for line in answer or ():
                    if line.startswith(b"id: "):
                        last_id = line[4:].decode().strip()
                    elif line.startswith(b"data: "):
                        away_since = None
                        whole = merged(whole, json.loads(line[6:]))
                        yield whole
                        if whole["finished"]:
                            return
        except NoAnswer:
            if whole is None:
                raise
        away_since = away_since or time.monotonic()
        if time.monotonic() > away_since + AWAY_S:
            raise NoAnswer(f"no orchestrator has answered at {url} for {AWAY_S:.0f} s")
        time.sleep(_PAUSE_S)


@contextmanager
def _answer(
    url: str, path: str, timeout_s: float, headers: dict[str, str] | None = None
) -> Iterator[HTTPResponse | None]:
    """The answer of 200; None for 404. An error while it is read is NoAnswer too."""
    from http.client import HTTPException

    try:
        answer = _asked(url, path, timeout_s, headers or {})
        if answer is None:
            yield None
            return
        with answer:
            yield answer
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NoAnswer(
            f"no orchestrator answers at {without_secrets(url)} ({reason}): is the run going? Give"
            " --orchestrator URL, or --run-dir DIR for a run of `iota up`"
        ) from None


def _asked(url: str, path: str, timeout_s: float, headers: dict[str, str]) -> HTTPResponse | None:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    accept = {"Accept": "application/json, text/event-stream"}
    given = {name: value for name, value in headers.items() if value}
    try:
        answer: HTTPResponse = urlopen(Request(f"{url}{path}", headers=accept | given), timeout=timeout_s)
    except HTTPError as error:
        if error.code == 404:
            return None
        raise ValueError(f"{without_secrets(url)}{path} answers {error.code} {error.reason}") from None
    return answer
