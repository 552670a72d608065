"""An error that nobody foresaw ends one audit: it is filed, counted and logged, and the validator goes on."""

from __future__ import annotations

import asyncio
import errno
import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp.test_utils import TestServer

from iota.chain import Chain, open_chain
from iota.client.orchestrator import OrchestratorUnreachable
from iota.compute.state import StageState
from iota.console.conditions import Condition
from iota.data import Manifest
from iota.data.manifest import DataError
from iota.protocol.events import AuditsClosed
from iota.protocol.messages import AuditsDone, Outcome
from iota.protocol.problems import Problem, ProblemType
from iota.spec import AuditSpec
from iota.store import StoreUnavailable
from tests.support.data_sets import prepare_made_up
from tests.support.validator_shells import Shell, drawn, of_draw, opened, run, work
from tests.support.validator_stages import KEY, Stage, set_up, small_ledger
from validator.audits.job_runner import is_condition
from validator.audits.replay import Replay
from validator.bundles.keeper import BundleKeeper
from validator.core import jobs
from validator.core.results import EvidenceMissing
from validator.database import Database


class Unforeseen(Exception):
    """No part of the validator knows this one."""


OF_AUDITS = (jobs.FetchTokens, jobs.FetchFrame, jobs.LoadBase, jobs.LoadSnapshot, jobs.ReplayOp,
             jobs.ReplayStep, jobs.HashDelta)  # fmt: skip


@pytest.mark.parametrize("kind", OF_AUDITS, ids=lambda kind: kind.__name__)
def test_an_unforeseen_error_of_a_job_ends_its_audit_and_no_other(kind: type[jobs.Job]) -> None:
    shell, failed = opened(), 0

    def fails_once(job: jobs.Job) -> object:
        nonlocal failed
        if isinstance(job, kind) and not failed:
            failed += 1
            return Unforeseen("what is this")
        return shell.good(job)

    work(shell, fails_once)
    reasons = [filed.result.reason for filed in shell.kept.values() if filed.result.reason]
    assert reasons == ["internal error: Unforeseen: what is this"]
    assert {f.result.outcome for f in shell.kept.values()} == {Outcome.PASS, Outcome.INCONCLUSIVE}
    assert of_draw(shell.kept) == drawn(0)
    assert len(shell.internal) == 1
    assert shell.done == [0]


def test_an_audit_that_an_error_ended_is_not_begun_again_after_a_restart() -> None:
    shell = opened()

    def fails(job: jobs.Job) -> object:
        return Unforeseen() if isinstance(job, jobs.ReplayOp) else shell.good(job)

    work(shell, fails, until=lambda: bool(shell.internal))
    (name,) = [name for name, filed in shell.kept.items() if filed.result.reason]
    shell.restart()
    work(shell)
    assert shell.kept[name].result.outcome is Outcome.INCONCLUSIVE
    assert shell.said[name] == 1, "the verdict is said again, and not made again"
    assert shell.done == [0]


def test_an_answer_that_makes_the_scripts_fail_ends_one_audit_too() -> None:
    """The pure part reads what strangers signed as well."""
    shell = opened()

    def nonsense(job: jobs.Job) -> object:
        return None if isinstance(job, jobs.LoadBase) else shell.good(job)

    work(shell, nonsense)
    assert of_draw(shell.kept) == drawn(0)
    assert any("AssertionError" in filed.result.reason for filed in shell.kept.values())
    assert shell.done == [0]


def test_checks_without_a_verdict_are_left_out_and_counted() -> None:
    shell = opened()
    work(shell, lambda job: Unforeseen() if isinstance(job, jobs.FindFlags) else shell.good(job))
    assert {filed.result.outcome for filed in shell.kept.values()} == {Outcome.PASS}
    assert shell.internal
    assert shell.done == [0]


def test_an_epoch_whose_record_cannot_be_worked_on_is_given_up_and_the_next_one_is_audited() -> None:
    shell = opened()
    shell.on_event(run()[0].seal_of(1))

    def fails_at_first(job: jobs.Job) -> object:
        return Unforeseen() if isinstance(job, jobs.FetchRecord) and job.epoch == 0 else shell.good(job)

    work(shell, fails_at_first)
    assert shell.done == [1]
    assert shell.internal == {(0, "its audits")}


def test_an_error_in_fetching_the_verdicts_of_others_leaves_them_out_and_they_are_asked_for_again() -> None:
    shell = opened()

    def fails(job: jobs.Job) -> object:
        return Unforeseen() if isinstance(job, jobs.FetchVerdicts) else shell.good(job)

    work(shell)
    shell.on_event(AuditsClosed(epoch=0))
    work(shell, fails)
    assert (shell.asked, shell.pooled, shell.internal) == ({0}, set(), {(0, "others' verdicts")})
    shell.on_event(run()[0].seal_of(1))
    work(shell)
    shell.on_event(AuditsClosed(epoch=1))
    work(shell)
    assert shell.pooled == {0, 1}


def test_an_error_in_fetching_an_epoch_of_the_past_leaves_its_work_out() -> None:
    shell = opened(1)
    work(shell)
    shell.on_event(AuditsClosed(epoch=1))
    work(shell, lambda job: Unforeseen() if isinstance(job, jobs.FetchPast) else shell.good(job))
    assert (shell.worked, shell.pooled, shell.internal) == ({1}, {0, 1}, {(0, "its record")})


def test_an_epoch_that_the_run_does_not_have_is_ignored() -> None:
    shell = Shell()
    seal = run()[0].seal_of(0)
    shell.on_event(seal.model_copy(update={"epoch": 2**31 - 1}))
    shell.on_event(AuditsClosed(epoch=2**31 - 1))
    assert shell.job is None
    shell.on_event(seal)
    work(shell)
    assert shell.done == [0]


def test_memory_that_is_short_is_no_result() -> None:
    shell = opened()
    with pytest.raises(MemoryError):
        work(shell, lambda job: MemoryError() if isinstance(job, jobs.ReplayOp) else shell.good(job))


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EMFILE, "too many files"), True),
        (MemoryError(), True),
        (torch.OutOfMemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (StoreUnavailable("away"), True),
        (OrchestratorUnreachable("away"), True),
        (DataError("damaged"), True),
        (Problem(ProblemType.RUN_ENDED, "over"), True),
        (EvidenceMissing("lost"), False),
        (OSError(errno.EACCES, "not yours"), False),
        (TimeoutError(), False),
        (RuntimeError("shapes do not fit"), False),
        (RecursionError(), False),
        (sqlite3.DataError(), False),
        (KeyError("x"), False),
    ],
    ids=repr,
)
def test_conditions_of_the_machine_and_of_servers_are_outlasted_and_no_results(
    error: Exception, waits: bool
) -> None:
    assert is_condition(error) is waits


# ---- a whole validator -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("data")
    return out, prepare_made_up(out, count=200, shard_tokens=8_000, heldout_tokens=2_000)


@pytest.fixture
async def stage(tmp_path: Path, data: tuple[Path, Manifest]) -> AsyncIterator[Stage]:
    async with TestServer(small_ledger(tmp_path)) as server:
        url = str(server.make_url("/"))
        async with open_chain(url, KEY) as chain:
            yield await _one_epoch(tmp_path, url, chain, data)


async def _one_epoch(folder: Path, url: str, chain: Chain, data: tuple[Path, Manifest]) -> Stage:
    stage = await set_up(folder, url, chain, data, AuditSpec(ops=2, commit_every=3, window_steps=3))
    stage.orchestrator.epochs = 1
    return stage


async def test_a_validator_goes_on_after_an_error_says_so_and_counts_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    world, said = stage.orchestrator.world, set[str]()
    get, exchange = world.get, stage.orchestrator.exchange

    async def broken(url: str, *how: Any, **more: Any) -> bytes:
        if "/frames/" in url:
            raise Unforeseen("a bug")
        return await get(url, *how)

    async def heard(request: Any, **how: Any) -> Any:
        if request.status is not None:
            said.add(request.status.state)
        return await exchange(request, **how)

    world.get, stage.orchestrator.exchange = broken, heard  # type: ignore[method-assign]
    await stage.validate()
    verdicts = stage.orchestrator.verdicts_said()
    ended = [v for v in verdicts if v.reason == "internal error: Unforeseen: a bug"]
    assert {v.outcome for v in ended} == {Outcome.INCONCLUSIVE}
    assert {v.outcome for v in verdicts if v not in ended} <= {Outcome.PASS, Outcome.FAIL}
    assert any(isinstance(report, AuditsDone) for report in stage.orchestrator.said)
    with Database(stage.folder / "validator" / stage.spec.id[:16], stage.spec.id, KEY.ss58) as database:
        assert database.internal_errors() == len(ended)
    traced = [record for record in caplog.records if record.exc_info and "an error of this" in record.message]
    assert len(traced) == len(ended)
    assert {record.levelno for record in traced} == {logging.ERROR}
    await stage.validate()  # its next process still says so
    assert any(state.startswith(f"{len(ended)} audits ended by an internal error; ") for state in said)
    assert len(stage.orchestrator.verdicts_said()) == 2 * len(verdicts), "said again, and none audited again"


async def test_an_error_in_writing_a_bundle_costs_that_bundle_and_is_counted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise Unforeseen("a bug")

    monkeypatch.setattr(BundleKeeper, "_write", broken)
    await stage.validate()
    fails = [v for v in stage.orchestrator.verdicts_said() if v.outcome is Outcome.FAIL]
    assert any(isinstance(report, AuditsDone) for report in stage.orchestrator.said)
    with Database(stage.folder / "validator" / stage.spec.id[:16], stage.spec.id, KEY.ss58) as database:
        assert database.internal_errors() == len(fails) > 0
    assert f"the file of {fails[0].audit}:" in caplog.text


async def test_a_full_disk_in_an_audit_is_waited_for_and_its_audits_are_done_then(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    world, full = stage.orchestrator.world, asyncio.Event()
    get = world.get

    async def no_room(url: str, *how: Any, **more: Any) -> bytes:
        if "/frames/" in url and not full.is_set():
            full.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        return await get(url, *how)

    world.get = no_room  # type: ignore[method-assign]
    await stage.validate()
    assert Condition.DISK_FULL.text in caplog.text
    assert {v.outcome for v in stage.orchestrator.verdicts_said()} == {Outcome.PASS, Outcome.FAIL}


async def test_an_accelerator_without_memory_just_then_is_waited_for_and_costs_nobody(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load, failures = Replay.load, iter([torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])

    def short(replay: Replay, state: StageState, version: int) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        load(replay, state, version)

    monkeypatch.setattr(Replay, "load", short)
    await stage.validate()
    assert Condition.MEMORY.text in caplog.text
    assert {v.outcome for v in stage.orchestrator.verdicts_said()} == {Outcome.PASS, Outcome.FAIL}


async def test_a_broken_accelerator_costs_one_audit_and_a_new_process_does_the_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, failures = Replay.load, iter([torch.AcceleratorError("CUDA error: an illegal memory access")])

    def broken(replay: Replay, state: StageState, version: int) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        load(replay, state, version)

    monkeypatch.setattr(Replay, "load", broken)
    with pytest.raises(ExceptionGroup) as ended:
        await stage.validate()
    assert ended.value.subgroup(torch.AcceleratorError) is not None
    await stage.validate()
    found = {(v.miner, v.seq, v.audit): v for v in stage.orchestrator.verdicts_said()}.values()
    undecided = [v.reason for v in found if v.outcome is Outcome.INCONCLUSIVE]
    assert undecided == ["internal error: AcceleratorError: CUDA error: an illegal memory access"]
    assert {v.outcome for v in found} == {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE}
