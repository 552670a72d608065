"""`iota-miner certify`, `iota-miner revoke` and `iota-miner start --worker`, as their user types them."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iota.identity.hotkey_lock import hold_key_file
from iota.identity.keys import create_hotkey
from iota.identity.worker_file import load_worker, make_worker
from tests.support.orchestrators import ORCHESTRATOR, Running, make_spec, orchestrator
from tests.support.workers import OWNER, RIVAL, certified_join, key


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Call = Callable[..., Coroutine[Any, Any, Done]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Runs `iota-miner` with a wallet that has one hotkey, "h"."""
    create_hotkey("w", "h", tmp_path / "wallets")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("IOTA_", "BT_"))}

    async def run(command: str, *arguments: object) -> Done:
        wallet = (
            "--wallet.path",
            str(tmp_path / "wallets"),
            "--wallet.name",
            "w",
            "--wallet.hotkey",
            "h",
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "miner.cli", command, *wallet, *map(str, arguments),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    return run


def owner(folder: Path) -> str:
    return (folder / "wallets/w/hotkeys/hpub.txt").read_text()


def written_spec(folder: Path) -> Path:
    path = folder / "spec.json"
    path.write_text(json.dumps(make_spec().model_dump(mode="json")))
    return path


async def test_several_worker_files_are_made_from_a_spec_without_a_server(tmp_path: Path, call: Call) -> None:
    spec, out = written_spec(tmp_path), tmp_path / "gpu.json"
    done = await call("certify", "--spec", spec, "--out", out, "--workers", 3)
    assert (done.code, done.err) == (0, "")
    workers = [load_worker(tmp_path / f"gpu-{n}.json") for n in (1, 2, 3)]
    assert len({w.key.ss58 for w in workers}) == len({w.certificate.serial for w in workers}) == 3
    assert {w.certificate.run for w in workers} == {make_spec().id}
    *lines, last = done.out.splitlines()
    assert "`iota-miner start --orchestrator URL --worker FILE --data-dir DIR`" in last
    for line, worker in zip(lines, workers, strict=True):
        assert line.startswith(f"{worker.key.ss58} works for {worker.certificate.owner} in run")
        assert worker.certificate.owner in owner(tmp_path)
    assert stat.S_IMODE((tmp_path / "gpu-1.json").stat().st_mode) == 0o600
    again = await call("certify", "--spec", spec, "--out", tmp_path / "gpu-1.json")
    assert again.code == 2
    assert "never overwritten" in again.err
    assert len(again.err.strip().splitlines()) == 1


async def test_the_run_is_asked_of_an_orchestrator_and_a_stolen_key_is_revoked(
    tmp_path: Path, call: Call
) -> None:
    async with orchestrator(tmp_path / "journal") as running:
        out, place = tmp_path / "worker.json", ("--orchestrator", running.url)
        pinned = (*place, "--orchestrator-hotkey", ORCHESTRATOR.ss58)
        assert (await call("certify", *pinned, "--out", out)).code == 0
        worker = load_worker(out)
        async with running.client(worker.key) as client:
            await client.join(
                certified_join(running.spec.id, worker.key).model_copy(
                    update={"certificate": worker.certificate}
                )
            )
        done = await call("revoke", worker.key.ss58, *place)
        assert done.code == 0
        assert done.out.startswith(
            f"{worker.key.ss58} is revoked in run {running.spec.id[:12]}: its unfinished"
        )
        assert "has not vested is not paid any more" in done.out
        assert (await call("revoke", worker.key.ss58, *place)).out == done.out
        unknown = await call("revoke", key(5).ss58, *place)
        assert unknown.out.startswith(
            f"{key(5).ss58} is no member of run {running.spec.id[:12]}: if it is a "
        )
        assert "is revoked" not in unknown.out
        stolen = await call("start", "--worker", out, *place, "--data-dir", tmp_path / "data")
        assert stolen.code == 2
        assert "has revoked its worker" in stolen.err


async def test_nobody_revokes_the_worker_of_another_hotkey(tmp_path: Path, call: Call) -> None:
    async with orchestrator(tmp_path / "journal") as running:
        await joined(running)
        done = await call("revoke", key(1).ss58, "--orchestrator", running.url)
        assert done.code == 1
        assert f"{key(1).ss58} is no worker of" in done.err
        mistyped = await call("revoke", key(1).ss58[:-1] + "1", "--orchestrator", running.url)
        assert mistyped.code == 2
        assert "is no worker's address" in mistyped.err


async def test_without_an_orchestrator_it_is_said_what_to_give(tmp_path: Path, call: Call) -> None:
    nowhere = ("--orchestrator", "http://127.0.0.1:1")
    done = await call("certify", "--out", tmp_path / "worker.json", *nowhere)
    assert done.code == 1
    assert done.err.strip().endswith("is the run going? Give --orchestrator URL, or the run's --spec FILE")
    assert not (tmp_path / "worker.json").exists()
    done = await call("revoke", key(1).ss58, *nowhere)
    assert (done.code, "is the run going? Give --orchestrator URL" in done.err) == (1, True)


async def joined(running: Running) -> None:
    async with running.client(key(1)) as client:
        await client.join(certified_join(running.spec.id, key(1), RIVAL))


async def test_a_worker_file_of_another_run_ends_the_miner_with_one_sentence(
    tmp_path: Path, call: Call
) -> None:
    file = tmp_path / "worker.json"
    make_worker(file, OWNER, "ab" * 32, 1)
    async with orchestrator(tmp_path / "journal") as running:
        done = await call(
            "start", "--worker", file, "--orchestrator", running.url, "--data-dir", tmp_path / "data"
        )
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: the worker 5")
    assert f"is of run abababababab, and this is run {running.spec.id[:12]}" in done.err


async def test_a_worker_file_that_a_miner_uses_is_refused_to_a_second_one(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "worker.json"
    make_worker(file, OWNER, "ab" * 32, 1)
    with hold_key_file(file, "it", "another"):
        done = await call("start", "--worker", file, "--data-dir", tmp_path / "data")
    assert done.code == 2
    assert f"the worker file {file} is in use by process {os.getpid()}" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()
