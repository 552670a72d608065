"""The public status and its stream: what is sent once is not sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from iota.identity.keys import Hotkey
from iota.protocol.run_status import MAX_LOSSES
from iota.protocol.status_delta import delta, merged
from orchestrator.coordinator.state import Phase
from tests.support.orchestrators import Running, node, orchestrator, raw, until


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal.db") as made:
        yield made


async def events(
    running: Running, count: int, *, query: str = "", headers: dict[str, str] | None = None, after: Any = None
) -> list[tuple[str, dict[str, Any], int]]:
    """The first `count` events of a new stream: (id, data, bytes); `after(n)` runs behind event n."""
    found = []
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession() as http,
        http.get(f"{running.url}/v1/stream{query}", headers=headers, read_bufsize=1 << 20) as response,
    ):
        name = ""
        while len(found) < count:
            line = await response.content.readline()
            if line.startswith(b"id: "):
                name = line[4:].decode().strip()
            elif line.startswith(b"data: "):
                found.append((name, json.loads(line[6:]), len(line)))
                if after is not None:
                    after(len(found))
    return found


async def test_a_stream_sends_each_loss_once(running: Running) -> None:
    losses = running.coordinator.state.totals.losses
    losses += [5.0 - n / 1000 for n in range(1000)]

    def one_more(number: int) -> None:
        losses.append(float(number))

    (_, first, whole), (name, second, small) = await events(running, 2, after=one_more)
    assert (first["losses_from"], len(first["losses"])) == (0, 1000)
    assert (second["losses_from"], second["losses"]) == (1000, [1.0])
    assert small < 400 < whole / 10
    assert name == f"{running.spec.id[:16]}-1001"
    assert merged(first, second)["losses"] == losses[:1001]


async def test_a_stream_begins_with_every_field_of_the_status(running: Running) -> None:
    running.coordinator.state.phase, running.coordinator.state.run_end_sent = Phase.FINISHED, True
    _, status, _ = await raw(running, "/v1/status", b"", method="GET")
    [(_, first, _)] = await events(running, 1)
    assert status["waiting"] is None
    assert first == status


async def test_a_stream_goes_on_from_the_last_event_id(running: Running) -> None:
    running.coordinator.state.totals.losses += [1.0, 2.0, 3.0]
    run = running.spec.id[:16]
    [(_, resumed, _)] = await events(running, 1, headers={"Last-Event-ID": f"{run}-2"})
    assert (resumed["losses_from"], resumed["losses"], resumed["run"]) == (2, [3.0], running.spec.id)
    [(_, asked, _)] = await events(running, 1, query="?since=1")
    assert asked["losses"] == [2.0, 3.0]
    [(_, other, _)] = await events(running, 1, headers={"Last-Event-ID": "0123456789abcdef-2"})
    assert other["losses"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("since", ["-1", "x", "9999999999999", "%D9%A3", ""])
async def test_a_since_that_is_no_number_gives_the_newest(running: Running, since: str) -> None:
    running.coordinator.state.totals.losses += [1.0]
    _, status, _ = await raw(running, f"/v1/status?since={since}", b"", method="GET")
    assert status["losses"] == [1.0]


async def test_a_status_holds_a_bounded_number_of_losses(running: Running) -> None:
    running.coordinator.state.totals.losses += [0.5] * (MAX_LOSSES + 10)
    _, newest, _ = await raw(running, "/v1/status", b"", method="GET")
    assert (newest["losses_from"], len(newest["losses"])) == (10, MAX_LOSSES)
    _, oldest, _ = await raw(running, "/v1/status?since=0", b"", method="GET")
    assert (oldest["losses_from"], len(oldest["losses"])) == (0, MAX_LOSSES)
    _, rest, _ = await raw(running, f"/v1/status?since={MAX_LOSSES}", b"", method="GET")
    both = merged(oldest, rest)
    assert len(both["losses"]) == both["losses_total"] == MAX_LOSSES + 10


async def test_a_joined_member_is_all_that_a_stream_repeats(running: Running) -> None:
    async with node(running, b"a"):
        await until(lambda: len(running.coordinator.members) == 1)
        async with node(running, b"b") as second:
            await until(lambda: len(running.coordinator.members) == 2)

            def late(number: int) -> None:
                running.coordinator.members[second.hotkey.ss58].withdrawn = 3

            (_, first, _), (_, changed, _) = await events(running, 2, after=late)
            assert [m["hotkey"] for m in changed["members"]] == [second.hotkey.ss58]
            assert merged(first, changed)["members"][1]["withdrawn"] == 3


async def test_the_run_says_which_software_it_runs_on(running: Running) -> None:
    _, document, _ = await raw(running, "/v1/run", b"", method="GET")
    assert {"iota", "python", "torch", "transformers", "bittensor"} <= set(document["software"])
    async with running.client(Hotkey.from_seed(b"s" * 32)) as client:
        assert (await client.run()).software == document["software"]


_FIELDS = st.fixed_dictionaries(
    {
        "run": st.just("a" * 64),
        "step": st.integers(0, 3),
        "members": st.lists(st.integers(0, 2), max_size=4).map(
            lambda marks: [{"hotkey": str(n), "order": n, "tokens": mark} for n, mark in enumerate(marks)]
        ),
        "nodes": st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
    }
)


@given(before=_FIELDS, after=_FIELDS)
def test_a_delta_leads_to_the_later_status(before: dict[str, Any], after: dict[str, Any]) -> None:
    known = {m["hotkey"] for m in after["members"]}
    after["members"] += [m for m in before["members"] if m["hotkey"] not in known]
    after["nodes"] = {**before["nodes"], **after["nodes"]}
    assert merged(before, delta(before, after)) == after
