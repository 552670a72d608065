"""The swarm's processes, as real ones: they end with their parent, and are started again when they die."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from iota.retry import Backoff
from iota.swarm.processes import Launcher, Program
from iota.swarm.supervisor import ProgramFailed, RestartRule, Supervisor

HERE = Path(__file__).parents[1] / "support"
QUICK = RestartRule(most=2, window_s=600.0, backoff=Backoff(first_s=0.01, max_s=0.01))
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def _programs_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{HERE.parents[1]}")


def program(tmp_path: Path, name: str, function: str, *arguments: object, **more: bool) -> Program:
    texts = tuple(str(a) for a in arguments)
    return Program(name, f"small_programs:{function}", texts, tmp_path / f"{name}.log", **more)


@asynccontextmanager
async def launching(tmp_path: Path) -> AsyncIterator[Launcher]:
    launcher = Launcher(("json",), tmp_path / "preload.log", threads=1)
    try:
        yield launcher
    finally:
        await launcher.close(grace_s=5.0)


async def pid_in(path: Path) -> int:
    async with asyncio.timeout(DEADLINE_S):
        while not path.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    return int(path.read_text())


def ends_within(pid: int, seconds: float) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


async def test_no_process_survives_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220 - the test has nothing else to do
        [sys.executable, str(HERE / "small_programs.py"), str(tmp_path)]
    )
    try:
        children = [await pid_in(tmp_path / "plain.pid"), await pid_in(tmp_path / "forked.pid")]
        assert not any(ends_within(pid, 0) for pid in children)
    finally:
        parent.kill()
        parent.wait()
    assert all(ends_within(pid, 10) for pid in children)


@pytest.mark.parametrize("forked", [False, True])
async def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path, forked: bool) -> None:
    async with launching(tmp_path) as launcher:
        mark = tmp_path / "pid"
        running = await launcher.start(program(tmp_path, "deaf", "ignore_sigterm", mark, forked=forked))
        assert await pid_in(mark) == running.pid
        await launcher.stop([running], grace_s=0.2)
        assert running.ended.result() == -signal.SIGKILL
        assert launcher.running == []


@pytest.mark.parametrize("forked", [False, True])
async def test_every_program_leads_its_own_process_group(tmp_path: Path, forked: bool) -> None:
    async with launching(tmp_path) as launcher:
        running = await launcher.start(
            program(tmp_path, "one", "wait_forever", tmp_path / "pid", forked=forked)
        )
        await pid_in(tmp_path / "pid")
        assert os.getpgid(running.pid) == running.pid != os.getpgid(0)


@pytest.mark.parametrize("forked", [False, True])
async def test_what_dies_is_started_again_until_it_ends_well(tmp_path: Path, forked: bool) -> None:
    async with launching(tmp_path) as launcher:
        supervisor = Supervisor(launcher, RestartRule(backoff=Backoff(first_s=0.01)))
        await supervisor.keep(
            program(tmp_path, "weak", "die_until", tmp_path / "count", 3, forked=forked, ends=True)
        )
        assert supervisor.restarts == {"weak": 2}


async def test_restarts_are_bounded_and_the_error_quotes_the_log(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        with pytest.raises(ProgramFailed, match=r"broken ended 3 times in 600 s(?s:.*)start 3 went wrong"):
            await Supervisor(launcher, QUICK).keep(
                program(tmp_path, "broken", "end_with", tmp_path / "count", 1)
            )
    assert (tmp_path / "count").read_text() == "3"


async def test_a_program_that_refuses_its_arguments_is_not_started_again(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        with pytest.raises(ProgramFailed, match=r"broken refused to start.*broken\.log"):
            await Supervisor(launcher, QUICK).keep(
                program(tmp_path, "broken", "end_with", tmp_path / "count", 2)
            )
    assert (tmp_path / "count").read_text() == "1"


async def test_each_restart_says_why_with_the_log_and_the_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    broken = program(tmp_path, "miner-02", "fail_after_warnings")
    async with launching(tmp_path) as launcher:
        supervisor = Supervisor(launcher, QUICK, describe=lambda name: f"{name} (stage 1)")
        with pytest.raises(ProgramFailed, match=r"miner-02 \(stage 1\) ended 3 times"):
            await supervisor.keep(broken)
    why = "miner-02 (stage 1) ended with code 1: RuntimeError: no such device: cuda:7 (asked http://store/x"
    assert [r.message.startswith(why) for r in caplog.records] == [True, True]
    assert caplog.records[0].message.endswith(f"log: {broken.log}; restart 1 of 2")
    assert caplog.records[1].message.endswith("restart 2 of 2")
    assert "SECRET" not in caplog.text
    assert len(supervisor.ends) == 2


async def test_a_killed_program_is_not_said_to_have_failed_by_an_older_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "pid"
    one = program(tmp_path, "one", "wait_forever", mark, ends=True)
    one.log.write_text("RuntimeError: of an earlier process\n")
    async with launching(tmp_path) as launcher:
        keeping = asyncio.create_task(Supervisor(launcher, QUICK).keep(one))
        os.kill(await pid_in(mark), signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_S):
            while not caplog.records:  # noqa: ASYNC110 - the supervisor logs it
                await asyncio.sleep(0.01)
        keeping.cancel()
    assert "one was ended by SIGKILL (by the kernel, if memory ran out)" in caplog.text
    assert "earlier" not in caplog.text


@pytest.mark.parametrize("forked", [False, True])
async def test_a_process_has_its_name_in_the_list_of_processes(tmp_path: Path, forked: bool) -> None:
    async with launching(tmp_path) as launcher:
        one = program(tmp_path, "miner-07", "wait_forever", tmp_path / "pid", forked=forked)
        running = await launcher.start(one)
        await pid_in(tmp_path / "pid")
        assert Path(f"/proc/{running.pid}/comm").read_text().strip() == "miner-07"


async def test_a_server_that_ends_with_code_0_is_started_again(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        with pytest.raises(ProgramFailed):
            await Supervisor(launcher, QUICK).keep(
                program(tmp_path, "server", "end_with", tmp_path / "count", 0)
            )
    assert (tmp_path / "count").read_text() == "3"


async def test_nodes_come_back_after_their_preloaded_parent_was_killed(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        first = await launcher.start(program(tmp_path, "a", "wait_forever", tmp_path / "a", forked=True))
        await pid_in(tmp_path / "a")
        os.kill(_parent_of(first.pid), signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_S):
            assert await first.ended == -signal.SIGKILL
        second = await launcher.start(program(tmp_path, "b", "wait_forever", tmp_path / "b", forked=True))
        assert await pid_in(tmp_path / "b") == second.pid


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(("recent", "wait_s"), [(1, 0.5), (2, 1.0), (5, 8.0), (10, 10.0)])
def test_restarts_wait_longer_each_time(recent: int, wait_s: float) -> None:
    assert RestartRule().backoff.pause_s(recent) == wait_s
