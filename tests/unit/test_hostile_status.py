"""`iota status` and `iota explain` against an orchestrator that sends anything: one line, and no commands."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from iota.cli import orchestrator_calls as calls
from iota.client.orchestrator import OrchestratorClient, UntrustedAnswer
from iota.protocol.run_status import MalformedStatus, take_status
from iota.swarm.view import Shown, line, page
from tests.support.orchestrators import Running, node, orchestrator, raw, until
from tests.support.store_servers import serving
from tests.support.terminals import in_a_pipe

EVIL = "\x1b]0;owned\x07\x1b[2J\r\nERROR \u202egnitset\u0000"
Change = Callable[[dict[str, Any]], object]


async def good_status(running: Running) -> dict[str, Any]:
    async with node(running, b"a"):
        await until(lambda: len(running.coordinator.members) == 1)
        running.coordinator.state.totals.losses += [5.0, 4.0]
        _, status, _ = await raw(running, "/v1/status?since=0", b"", method="GET")
        return status


@pytest.fixture
async def status(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """That of a real orchestrator with a member and two losses."""
    async with orchestrator(tmp_path / "journal.db") as running:
        yield await good_status(running)


@asynccontextmanager
async def answering(body: bytes) -> AsyncIterator[str]:
    """A server whose answer to everything is `body`; its stream has that as an event."""

    async def answer(request: web.Request) -> web.Response:
        sent = b"id: x\r\ndata: " + body + b"\n\n" if request.path == "/v1/stream" else body
        return web.Response(body=sent)

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    async with serving(app) as url:
        yield url


CHANGES: dict[str, Change] = {
    "a field that is missing": lambda s: s.pop("losses"),
    "no steps": lambda s: s.update(steps=0),
    "a loss without end": lambda s: s.update(losses=[float("inf")]),
    "a loss that is no number": lambda s: s.update(losses=[float("nan")]),
    "a loss that is text": lambda s: s.update(losses=["x"]),
    "too many losses": lambda s: s.update(losses=[1.0] * 10_001),
    "an epoch that is no number": lambda s: s.update(heldout={"x": 1.0}),
    "a number beyond all bounds": lambda s: s.update(tokens=10**400),
    "members that are none": lambda s: s.update(members=[1]),
    "a member without a role": lambda s: s["members"][0].pop("role"),
    "a hotkey with commands": lambda s: s["members"][0].update(hotkey=EVIL),
    "speeds without end": lambda s: s.update(
        nodes={
            s["members"][0]["hotkey"]: {
                "state": "", "tokens_per_second": float("inf"), "seconds": {}, "memory": 0,
            }
        }
    ),
    "a text without end": lambda s: s.update(waiting="x" * 100_000),
}  # fmt: skip
BODIES = {
    "nothing": b"",
    "no JSON": EVIL.encode(),
    "a list": b"[]",
    "a nest": b"[" * 100_000,
    "no UTF-8": b"\xff{",
}


def hostile(name: str, status: dict[str, Any]) -> bytes:
    if name in BODIES:
        return BODIES[name]
    CHANGES[name](status)
    return json.dumps(status).encode()


@pytest.mark.parametrize("name", [*CHANGES, *BODIES])
async def test_a_status_that_is_none_is_refused_in_one_sentence(name: str, status: dict[str, Any]) -> None:
    async with answering(hostile(name, status)) as url:
        for call in (calls.status, lambda url: list(calls.statuses(url))):
            with pytest.raises(ValueError, match="sends is no status of a run") as caught:
                await asyncio.to_thread(call, url)
            assert len(str(caught.value)) < 500
        async with OrchestratorClient(None, url, retry_for_s=0) as client:
            with pytest.raises(UntrustedAnswer, match="no status of a run"):
                await client.status()


@pytest.mark.parametrize("name", ["a hotkey with commands", "no JSON", "a nest"])
async def test_the_commands_say_so_on_one_printable_line(name: str, status: dict[str, Any]) -> None:
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    async with answering(hostile(name, status)) as url:
        for command in (["status"], ["status", "--live"], ["explain", "5ABCD"]):
            code, written = await in_a_pipe(["iota.cli.main", *command, "--orchestrator", url], environment)
            assert code == 2, written
            assert written.startswith("error: what http://127.0.0.1:")
            assert written.count("\n") == 1
            assert written.rstrip("\n").isprintable()


async def test_a_member_record_that_is_none_is_refused_in_one_sentence() -> None:
    async with answering(json.dumps({"run": EVIL, "hotkey": EVIL}).encode()) as url:
        with pytest.raises(ValueError, match="sends is no record of a member"):
            await asyncio.to_thread(calls.member, url, "5ABCD")


async def test_a_true_status_is_taken_whole_and_holds_no_parts_of_bases(status: dict[str, Any]) -> None:
    assert take_status(None, json.dumps({**status, "a new field": 1}).encode()) == status
    assert all(set(base) == {"epoch", "stage", "digest"} for base in status["bases"])


async def test_a_delta_needs_a_whole_status_before_it(status: dict[str, Any]) -> None:
    with pytest.raises(MalformedStatus, match="missing"):
        take_status(None, b'{"step": 1}')
    with pytest.raises(MalformedStatus, match="losses_from"):
        take_status(status, b'{"losses": [1.0]}')
    with pytest.raises(MalformedStatus, match="missing"):
        take_status(status, json.dumps({"run": "f" * 64}).encode())
    assert take_status(status, b'{"step": 1}') == {**status, "step": 1}


@pytest.mark.parametrize("width", [80, 200])
async def test_the_largest_numbers_and_any_text_can_be_shown(status: dict[str, Any], width: int) -> None:
    hotkey = status["members"][0]["hotkey"]
    most = sys.float_info.max
    verdict = {
        "validator": hotkey, "kind": "verdict", "epoch": 1, "miner": hotkey, "audit": "op", "outcome": "fail",
        "seq": 1, "profile": EVIL, "expected": EVIL, "found": EVIL, "reason": EVIL,
    }  # fmt: skip
    status.update(
        name=EVIL, phase=EVIL[:32], waiting=EVIL, losses=[most, -most, most], losses_total=3,
        merges=[0, 2**53 - 1],
        heldout={"0": most, "999999999": 1.0}, named=[EVIL], verdicts=[verdict], tokens=2**53 - 1,
        weights={hotkey: {hotkey: 1.0}},
        nodes={
            hotkey: {"state": EVIL, "tokens_per_second": most, "seconds": {"wait": most}, "memory": 2**53 - 1}
        },
    )  # fmt: skip
    status["members"][0].update(device=EVIL, tokens=2**53 - 1)
    found = take_status(None, json.dumps(status).encode())
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    console.print(page(found, Shown(speed=most, eta_s=most), width, 23))
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text.isprintable() and len(text) <= width for text in written.split("\n"))
    assert line(found, most, most).isprintable()
