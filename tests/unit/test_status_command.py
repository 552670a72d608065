"""`iota status` and `iota explain` as real commands, against a real orchestrator."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from iota.identity.keys import create_hotkey
from iota.swarm.run_dir import RunDir, write_json
from tests.support.orchestrators import ORCHESTRATOR, Running, join_request, node, orchestrator, until
from tests.support.terminals import as_a_service, frames, in_a_pipe, on_terminal
from tests.support.workers import OWNER, certified_join, key

STATUS = ["iota.cli.main", "status"]


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal.db") as made:
        made.coordinator.state.totals.losses += [5.0, 4.0]
        yield made


def on(term: str) -> dict[str, str]:
    return {**os.environ, "TERM": term, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
async def test_a_live_page_fits_its_terminal_to_the_last_member(
    running: Running, size: tuple[int, int]
) -> None:
    async with node(running, b"a") as one, node(running, b"b") as two:
        await until(lambda: len(running.coordinator.members) == 2)

        def end(written: str) -> None:
            if two.hotkey.ss58[:8] in written:
                running.coordinator.state.run_end_sent = True

        code, written = await on_terminal(
            [*STATUS, "--live", "--orchestrator", running.url], size, on("xterm-256color"), end
        )
        pages = frames(written)
        assert code == 0
        assert pages
        assert all(len(page) < size[1] and max(map(len, page)) <= size[0] for page in pages)
        assert any(one.hotkey.ss58[:8] in row for row in pages[0])
        assert written.rstrip().endswith("the run has ended")


async def test_a_dumb_terminal_and_a_pipe_get_plain_lines(running: Running) -> None:
    live = [*STATUS, "--live", "--orchestrator", running.url]

    def end(written: str) -> None:
        if "loss 4.0000" in written:
            running.coordinator.state.run_end_sent = True

    code, written = await on_terminal(live, (80, 24), on("dumb"), end)
    assert (code, "\x1b" in written) == (0, False)
    assert "epoch 0 (last: 1) step 0/2  loss 4.0000" in written
    code, written = await in_a_pipe(live, on("xterm"))
    assert (code, "\x1b" in written) == (0, False)
    assert "loss 4.0000" in written.splitlines()[0]
    assert written.splitlines()[-1] == "the run has ended"


async def test_a_service_s_conditions_change_nothing(running: Running) -> None:
    running.coordinator.state.run_end_sent = True
    for arguments in ([], ["--live"]):
        code, written = await in_a_pipe(
            [*STATUS, *arguments, "--orchestrator", running.url], as_a_service(), closed_stdin=True
        )
        assert code == 0, written
        assert "4.0000" in written


async def test_a_live_status_goes_on_after_the_orchestrator_was_away(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    shown = asyncio.Event()

    def note(written: str) -> None:
        if "4.0]" in written:
            shown.set()

    async with orchestrator(journal) as first:
        port = int(first.url.rpartition(":")[2])
        first.coordinator.state.totals.losses += [5.0, 4.0]
        live = [*STATUS, "--live", "--json", "--orchestrator", first.url]
        following = asyncio.create_task(on_terminal(live, (80, 24), on("xterm"), note))
        async with asyncio.timeout(60):
            await shown.wait()
    async with orchestrator(journal, port=port) as again:
        again.coordinator.state.totals.losses += [5.0, 4.0, 3.0]
        again.coordinator.state.run_end_sent = True
        code, written = await following
    assert code == 0, written
    seen = [json.loads(text) for text in written.splitlines()]
    assert seen[0]["losses"] == [5.0, 4.0]
    assert seen[-1]["losses"] == [5.0, 4.0, 3.0]


async def test_the_status_and_the_record_of_a_run_that_ended_come_from_its_journal(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    async with orchestrator(root / "journal.db") as ended, node(ended, b"a") as one:
        await until(lambda: len(ended.coordinator.members) == 1)
        write_json(root / "spec.json", ended.spec.model_dump(mode="json"))
        hotkeys = {"orchestrator": ORCHESTRATOR.ss58, "miner-00": one.hotkey.ss58}
        write_json(root / "run.json", {"url": "http://127.0.0.1:1", "hotkeys": hotkeys})
    code, written = await in_a_pipe([*STATUS, "--run-dir", str(root)], on("xterm"))
    assert code == 0, written
    assert "the run stands still at epoch 0, step 0 of 2" in written
    assert f"up --run-dir {root}` goes on from here" in written
    assert "miner-00" in written
    code, written = await in_a_pipe(["iota.cli.main", "explain", "miner-00", "--run-dir", str(root)], on("x"))
    assert code == 0, written
    assert written.startswith(f"{one.hotkey.ss58} (miner-00), miner of stage 0 of run")
    assert written.rstrip().endswith(f"up --run-dir {root}` goes on from here")


async def test_a_run_that_an_iota_up_holds_is_not_said_to_stand_still(tmp_path: Path) -> None:
    with RunDir(tmp_path / "run") as held:
        async with orchestrator(held.journal) as killed, node(killed, b"a") as one:
            await until(lambda: len(killed.coordinator.members) == 1)
            hotkeys = {"orchestrator": ORCHESTRATOR.ss58, "miner-00": one.hotkey.ss58}
            held.note(url="http://127.0.0.1:1", hotkeys=hotkeys)
        for command in (STATUS, ["iota.cli.main", "explain", "miner-00"]):
            code, written = await in_a_pipe([*command, "--run-dir", str(held.root)], on("xterm"))
            assert code == 0, written
            assert "an `iota up` is starting or stopping its orchestrator" in written
            assert "stopped" not in written
            assert "nothing runs" not in written


async def test_a_member_is_explained_by_hotkey_short_form_or_wallet_name(
    running: Running, tmp_path: Path
) -> None:
    async with node(running, b"a") as one:
        await until(lambda: len(running.coordinator.members) == 1)
        hotkey, at = one.hotkey.ss58, ["--orchestrator", running.url]
        for given in (hotkey, f"{hotkey[:8]}…", hotkey[:10]):
            code, written = await in_a_pipe(["iota.cli.main", "explain", given, *at], on("xterm"))
            assert code == 0, written
            assert written.startswith(f"{hotkey}, miner of stage 0 of run")
            assert "now: loading: it loads the base of epoch 0; until it reports that base" in written
            assert "work: none yet" in written
        wrong = f"{hotkey[:6]}zz{hotkey[8:]}"
        code, written = await in_a_pipe(["iota.cli.main", "explain", wrong, *at], on("xterm"))
        assert (code, f"did you mean {hotkey}?" in written) == (2, True)
        mine = create_hotkey("w", "my miner", tmp_path / "wallets").ss58
        wallet = ["--wallet.path", str(tmp_path / "wallets"), "--wallet.name", "w"]
        code, written = await in_a_pipe(["iota.cli.main", "explain", "my miner", *at, *wallet], on("xterm"))
        assert (code, "my miner is no member of this run" in written) == (2, True), mine
        code, written = await in_a_pipe(["iota.cli.main", "explain", "no such", *at, *wallet], on("xterm"))
        assert (code, "is no hotkey" in written) == (2, True)


async def test_an_owner_is_explained_by_its_workers_also_where_it_is_no_member(running: Running) -> None:
    explain, at = ["iota.cli.main", "explain"], ["--orchestrator", running.url]
    for number in (1, 2):
        async with running.client(key(number)) as client:
            await client.join(certified_join(running.spec.id, key(number)))
    for given in (OWNER.ss58, OWNER.ss58[:8]):
        code, written = await in_a_pipe([*explain, given, *at], on("xterm"))
        assert code == 0, written
        assert written.startswith(f"{OWNER.ss58} has 2 workers in this run:\n  {key(1).ss58}, stage 0: live;")
    code, written = await in_a_pipe([*explain, OWNER.ss58, "--json", *at], on("xterm"))
    assert (code, [w["hotkey"] for w in json.loads(written)["workers"]]) == (0, [key(1).ss58, key(2).ss58])
    code, written = await in_a_pipe([*explain, key(1).ss58, *at], on("xterm"))
    assert f"a worker of {OWNER.ss58}, who is paid for it" in written
    assert "has 2 workers" not in written
    async with running.client(OWNER) as client:
        await client.join(join_request())
    code, written = await in_a_pipe([*explain, OWNER.ss58, *at], on("xterm"))
    assert written.startswith(f"{OWNER.ss58}, miner of stage")
    assert f"{OWNER.ss58} has 2 workers in this run:" in written
