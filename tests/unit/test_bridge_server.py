"""The Bridge over HTTP: rights, retries, watches and restarts, with a real orchestrator on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from iota.client.bridge import BridgeClient
from iota.client.orchestrator import UntrustedAnswer
from iota.identity.keys import Hotkey
from iota.protocol.bridge import MAX_PAGE, Check, Set, WatchReply, WriteRequest, WriteRule
from iota.protocol.problems import Problem, ProblemType
from orchestrator.bridge import Bridge, changes_after
from orchestrator.bridge.bridge import MAX_CHANGES
from orchestrator.bridge.reading import Changes
from tests.support.orchestrators import ORCHESTRATOR, Running, node, orchestrator, raw, signed

STRANGER = Hotkey.from_seed(b"s" * 32)


@asynccontextmanager
async def operator(running: Running) -> AsyncIterator[BridgeClient]:
    async with running.client(ORCHESTRATOR, retry_for_s=10.0) as client:
        yield BridgeClient(client)


@asynccontextmanager
async def anyone(running: Running) -> AsyncIterator[BridgeClient]:
    async with running.client(STRANGER, retry_for_s=0.0) as client:
        yield BridgeClient(client, signed=False)


async def events(running: Running, query: str, count: int, last: str = "") -> list[tuple[str, WatchReply]]:
    """The first events of a stream: id and content."""
    found: list[tuple[str, WatchReply]] = []
    headers = {"Last-Event-ID": last} if last else {}
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as http,
        http.get(f"{running.url}/v1/bridge/stream{query}", headers=headers) as response,
    ):
        name = ""
        async for line in response.content:
            if line.startswith(b"id: "):
                name = line[4:].decode().strip()
            elif line.startswith(b"data: "):
                found.append((name, WatchReply.model_validate_json(line[6:])))
                if len(found) == count:
                    break
    return found


async def test_the_operator_writes_and_anyone_reads_what_is_public(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss, anyone(running) as all_:
        await boss.set("run/note", "hello")
        await boss.set("team/secret", 7)
        note = await all_.get("run/note")
        assert note is not None
        assert (note.value, note.owner, note.version) == ("hello", "run", 1)
        assert await all_.get("team/secret") is None
        assert [v.name for v in await all_.list()] == ["run/note"]
        assert [v.name for v in await boss.list()] == ["run/note", "team/secret"]


async def test_the_operator_need_be_no_member_and_takes_no_other_calls_for_it(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        running.members.only = set()
        await boss.set("run/note", 1)
        async with running.client(ORCHESTRATOR, retry_for_s=0.0) as client:
            with pytest.raises(Problem) as caught:
                await client.contacts(None, [])
            assert caught.value.type is ProblemType.NOT_JOINED


async def test_members_write_what_is_theirs_and_strangers_nothing(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, node(running, b"a") as ann:
        own = f"node/{ann.hotkey.ss58}/state"
        mine = BridgeClient(ann.client)
        await mine.set(own, {"ready": True})
        with pytest.raises(Problem) as caught:
            await mine.set("run/paused", True)
        assert caught.value.type is ProblemType.FORBIDDEN
        for call in ("write", "get", "list", "watch"):
            async with running.client(STRANGER, retry_for_s=0.0) as client:
                request = WriteRequest(request="0" * 32, ops=(Set(name=own, value=1),))
                with pytest.raises(Problem) as caught:
                    await client.post(f"/v1/bridge/{call}", request, WatchReply)
                assert caught.value.type is ProblemType.NOT_JOINED
        await ann.client.leave()
        with pytest.raises(Problem) as caught:
            await mine.get(own)
        assert caught.value.type is ProblemType.NOT_JOINED


async def test_a_stale_write_fails_with_the_current_variable_and_is_not_journaled(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        version = await boss.set("a", 1, rule=WriteRule.CAS, expected=0)
        before = len(list(running.journal.replay()))
        with pytest.raises(Problem) as caught:
            await boss.set("a", 2, expected=version + 5)
        assert caught.value.type is ProblemType.CONFLICT
        assert caught.value.extra["name"] == "a"
        assert (caught.value.extra["current"]["value"], caught.value.extra["current"]["version"]) == (
            1,
            version,
        )
        assert len(list(running.journal.replay())) == before


async def test_a_conflict_that_the_orchestrator_did_not_sign_is_believed_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        await boss.set("a", 1)
        monkeypatch.setattr("orchestrator.http.middleware.sign_response", lambda *_, **__: "00" * 64)
        with pytest.raises(UntrustedAnswer):
            await boss.set("a", 2, expected=9)


async def test_of_writes_at_the_same_time_one_sees_the_version(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        version = await boss.set("a", 0, rule=WriteRule.CAS, expected=0)
        tries = [boss.set("a", number, expected=version) for number in range(10)]
        ended = await asyncio.gather(*tries, return_exceptions=True)
        won = [revision for revision in ended if isinstance(revision, int)]
        lost = [each for each in ended if isinstance(each, Problem) and each.type is ProblemType.CONFLICT]
        assert (len(won), len(lost)) == (1, 9)
        last = await boss.get("a")
        assert last is not None
        assert last.version == won[0]


async def test_a_repeated_write_is_answered_as_the_first_after_a_restart_too(tmp_path: Path) -> None:
    request = WriteRequest(
        request="1" * 32,
        ops=(Set(name="a", value=1, rule=WriteRule.CAS, expected=0), Check(name="b", expected=0)),
    )
    async with orchestrator(tmp_path / "j") as running:
        body = request.model_dump_json().encode()
        path = "/v1/bridge/write"
        first = await raw(running, path, body, headers=signed(ORCHESTRATOR, path, body))
        again = await raw(running, path, body, headers=signed(ORCHESTRATOR, path, body))
        assert (first[0], first[1]) == (again[0], again[1]) == (200, {"revision": 1})
        entries = len(list(running.journal.replay()))
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        after = await raw(running, path, body, headers=signed(ORCHESTRATOR, path, body))
        assert after[1] == {"revision": 1}
        found = await boss.get("a")
        assert found is not None
        assert found.version == 1
        bridged = [entry for entry in running.journal.replay() if entry.kind == "bridged"]
        assert len(bridged) == 1
        assert entries >= 1


async def test_a_write_that_comes_again_before_it_is_decided_gets_the_same_answer(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        path = "/v1/bridge/write"
        for number in range(10):
            ops = (Set(name="a", value=number, rule=WriteRule.CAS, expected=2 * number),)
            body = WriteRequest(request=f"{number:032x}", ops=ops).model_dump_json().encode()
            copies = (raw(running, path, body, headers=signed(ORCHESTRATOR, path, body)) for _ in range(5))
            answers = await asyncio.gather(*copies)
            assert [(status, said) for status, said, _ in answers] == [
                (200, {"revision": 2 * number + 1})
            ] * 5
            version = await boss.set("a", number, expected=2 * number + 1)
            assert version == 2 * number + 2


async def test_a_watcher_goes_on_from_its_revision_after_a_restart(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        await boss.set("a/1", 1)
        watch = boss.watch("a")
        first = await anext(watch)
        assert first.snapshot
        assert [change.name for change in first.changes] == ["a/1"]
        waiting = asyncio.ensure_future(anext(watch))
        await boss.set("b", 1)
        await boss.set("a/2", 2)
        second = await waiting
        assert [(change.name, change.revision) for change in second.changes] == [("a/2", 3)]
        await boss.delete("a/1")
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        third = await anext(boss.watch("a", second.revision))
        assert not third.snapshot
        assert [(change.name, change.kind) for change in third.changes] == [("a/1", "deleted")]


async def test_a_snapshot_of_many_pages_is_whole(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        names = [f"a/{number:04}" for number in range(2 * MAX_PAGE + 5)]
        for start in range(0, len(names), 32):
            await boss.write(*(Set(name=name, value=1) for name in names[start : start + 32]))
        found = await anext(boss.watch("a"))
        assert [change.name for change in found.changes] == names
        assert [variable.name for variable in await boss.list("a")] == names


async def test_a_stream_sends_changes_and_goes_on_where_it_broke(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        await boss.set("run/a", 1)
        await boss.set("hidden", 1)
        ((name, first),) = await events(running, "?prefix=run", 1)
        assert first.snapshot
        assert [change.name for change in first.changes] == ["run/a"]
        await boss.write(Set(name="run/a", value=2), Set(name="run/b", value=2), Set(name="hidden", value=2))
        await boss.set("run/c", 3)
        ((name, second),) = await events(running, "", 1, last=name)
        assert [change.name for change in second.changes] == ["run/a", "run/b", "run/c"]
        reading = asyncio.ensure_future(events(running, f"?prefix=run&revision={second.revision}", 2))
        for value in (4, 5):
            await boss.set("run/c", value)
        got = [change.variable.value for _, e in await reading for change in e.changes if change.variable]
        assert got == [4, 5]


async def test_a_stream_that_is_too_far_behind_begins_anew_and_says_so(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        await boss.set("run/a", 1)
        running.coordinator.state.bridge.forgotten = 1
        ((_, found),) = await events(running, "?prefix=run&revision=0", 1)
        assert found.snapshot
        assert MAX_CHANGES > 1


async def test_a_lease_ends_by_the_servers_clock_and_watchers_hear_of_it(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        lease = await boss.lock("job", 1.0)
        await boss.set("job", "mine", lease=lease)
        with pytest.raises(Problem) as caught:
            await boss.lock("job", 1.0)
        assert caught.value.type is ProblemType.CONFLICT
        found = await anext(boss.watch("job", lease + 1))
        assert found.changes[0].variable is not None
        assert found.changes[0].variable.lease is None
        assert await boss.lock("job", 1.0) > lease
        with pytest.raises(Problem):
            await boss.set("job", "late", lease=lease)


async def test_a_variable_expires_by_the_servers_clock(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running, operator(running) as boss:
        version = await boss.set("a", 1, ttl_s=1.0)
        found = await anext(boss.watch("a", version))
        assert [(change.name, change.kind) for change in found.changes] == [("a", "expired")]
        assert await boss.get("a") is None


async def test_a_members_writes_have_a_rate(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j", bridge_burst=3.0) as running, node(running, b"a") as ann:
        own = f"node/{ann.hotkey.ss58}/n"
        async with running.client(ann.hotkey, retry_for_s=0.0) as client:
            mine = BridgeClient(client)
            for number in range(3):
                await mine.set(own, number)
            with pytest.raises(Problem) as caught:
                await mine.set(own, 4)
            assert caught.value.type is ProblemType.RATE_LIMITED


@pytest.mark.parametrize(
    "body",
    [
        {"request": "0" * 32, "ops": []},
        {"request": "0" * 32, "ops": [{"op": "set", "name": "a", "value": 1}] * 33},
        {"request": "0" * 32, "ops": [{"op": "set", "name": "../a", "value": 1}]},
        {"request": "0" * 32, "ops": [{"op": "check", "name": "a", "expected": 0}]},
        {"request": "x", "ops": [{"op": "set", "name": "a", "value": 1}]},
        {"request": "0" * 32, "ops": [{"op": "set", "name": "a", "value": list(range(65))}]},
        {"request": "0" * 32, "ops": [{"op": "set", "name": "a", "value": 1, "owner": "me"}]},
    ],
    ids=range(7),
)
async def test_a_malformed_write_is_refused(tmp_path: Path, body: Any) -> None:
    async with orchestrator(tmp_path / "j") as running:
        data, path = json.dumps(body).encode(), "/v1/bridge/write"
        status, problem, _ = await raw(running, path, data, headers=signed(ORCHESTRATOR, path, data))
        assert (status, problem["type"]) == (400, "urn:iota:problem:malformed-body")


@pytest.mark.parametrize("query", ["get", "get?name=..", "list?prefix=a/", "stream?revision=x", "list?x=1"])
async def test_a_malformed_query_is_refused(tmp_path: Path, query: str) -> None:
    async with orchestrator(tmp_path / "j") as running:
        status, problem, _ = await raw(running, f"/v1/bridge/{query}", b"", method="GET")
        assert (status, problem["type"]) == (400, "urn:iota:problem:malformed-body")


async def test_open_streams_are_bounded(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j", bridge_streams=0) as running:
        status, problem, _ = await raw(running, "/v1/bridge/stream", b"", method="GET")
        assert (status, problem["type"]) == (503, "urn:iota:problem:unavailable")


async def test_an_unsigned_write_is_refused(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "j") as running:
        status, problem, _ = await raw(running, "/v1/bridge/write")
        assert (status, problem["type"]) == (401, "urn:iota:problem:unsigned")


async def test_a_waiting_watcher_looks_at_each_change_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: asyncio.Queue[int | None] = asyncio.Queue()

    def changes(bridge: Bridge, prefix: str, revision: int | None, *, trusted: bool) -> Changes:
        asked.put_nowait(revision)
        return changes_after(bridge, prefix, revision, trusted=trusted)

    async with asyncio.timeout(20), orchestrator(tmp_path / "j") as running, operator(running) as boss:
        version = await boss.set("b", 0)
        monkeypatch.setattr("orchestrator.http.bridge.changes_after", changes)
        waiting = asyncio.ensure_future(anext(boss.watch("a", version)))
        for value in range(3):
            while await asked.get() != version:
                pass
            version = await boss.set("b", value + 1)
        while await asked.get() != version:
            pass
        last = await boss.set("a", 1)
        found = await waiting
        assert ([change.name for change in found.changes], found.revision) == (["a"], last)
