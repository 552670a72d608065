"""A validator's replays on an accelerator, by one that is made up on the CPU."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from iota.compute.cuda_device import Cuda
from iota.compute.devices import KINDS, device_of
from iota.compute.fingerprint import fingerprint
from iota.model.presets import PRESETS
from iota.model.proposal import make_spec
from iota.objects import snapshot_bytes
from iota.planning import Machine, stage_needs
from iota.planning.replays import replay_needs, unreplayable
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.settings import Activations
from iota.spec import AuditSpec, Moments
from tests.support import audit_benches as benches
from tests.support.audit_benches import Open
from tests.support.audited_runs import World
from tests.support.fake_device import FakeDevice
from tests.support.small_runs import small_run
from validator.audits.budget import Budget
from validator.audits.replay import OwnFingerprint, Replay, ReplayOptions
from validator.cli import main
from validator.core.jobs import Shown

SPEC = small_run(schedule={"pipeline": "delayed"}, audit=AuditSpec(commit_every=2))
ORION = make_spec({"model": PRESETS["orion-100b"].model_dump()}, "0" * 64, 128_256)


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


async def test_honest_work_passes_to_the_bit_and_the_memory_is_given_back(open_bench: Open) -> None:
    world = World(SPEC)
    world.train(0)
    device_of.cache_clear()
    with patch.dict(KINDS, cpu=FakeDevice):
        bench = await open_bench(world)
        device = device_of(torch.device("cpu"))
        assert isinstance(device, FakeDevice)
        for stage in range(3):
            before = device.released
            result = await bench.audit(stage, AuditKind.SEGMENT, step=0)
            assert (result.outcome, result.profile) == (Outcome.PASS, "exact"), result
            assert device.released > before, "before its state is loaded"
        bench.auditor.unload()
        assert bench.auditor._replay is None
        assert device.copies > 0
    device_of.cache_clear()


async def test_a_forward_that_is_replayed_alone_leaves_no_graph(open_bench: Open) -> None:
    world = World(SPEC)
    world.train(0)
    bench = await open_bench(world)
    receipt = bench.op(0, OpKind.FORWARD, step=0)
    result = await bench.audit(0, AuditKind.OP, step=0, seq=receipt.seq)
    assert result.outcome is Outcome.PASS
    assert bench.auditor._replay is not None
    assert bench.auditor._replay._engine._in_flight == {}


@pytest.mark.parametrize("repeats", [True, False])
def test_a_device_that_may_not_repeat_its_bits_compares_none(repeats: bool) -> None:
    class Other(FakeDevice):
        pass

    Other.repeats = repeats
    options = ReplayOptions()
    shown = Shown("cpu/any", fingerprint(SPEC, 0, "cpu", "ab" * 32), "ab" * 32)
    device_of.cache_clear()
    with patch.dict(KINDS, cpu=Other):
        replay = Replay(SPEC, 0, shown, options, OwnFingerprint())
    device_of.cache_clear()
    assert replay.profile.exact is repeats


def test_a_machine_that_can_never_replay_a_stage_is_told_what_would() -> None:
    memory, place = 2 * 10**12, Path("/")
    most = max((replay_needs(ORION, stage) for stage in range(ORION.layout.stages)), key=lambda n: n.device)
    fits = Machine(memory, 0, place, card=most.device)
    assert unreplayable(ORION, fits) == []
    [short] = unreplayable(ORION, replace(fits, card=80 * 10**9))
    assert f"a replay of stage {most.stage} needs" in short
    assert "of the accelerator's memory, and it has 80.00 GB" in short
    assert "--device cpu" in short
    on_cpu = max(replay_needs(ORION, n).on_cpu for n in range(ORION.layout.stages))
    assert f"with {on_cpu / 1e9:,.2f} GB of memory" in short
    assert unreplayable(ORION, replace(fits, card=None, memory=on_cpu)) == []
    assert len(unreplayable(ORION, replace(fits, card=None, memory=on_cpu - 1))) == 1
    [short] = unreplayable(ORION, replace(fits, card=None, memory=64 * 10**9))
    assert "of memory, and there are 64.00 GB: take a machine with more" in short


def test_a_replay_needs_one_graph_where_a_miner_keeps_several() -> None:
    needs = stage_needs(SPEC, 0)
    least = min(needs.memory_of(policy) for policy in (Activations.RECOMPUTE, Activations.OFFLOAD))
    assert replay_needs(SPEC, 0).device < least


def test_a_replay_has_main_memory_for_the_values_of_moments_that_are_kept_in_few_bits() -> None:
    few = ORION.optimizer.model_copy(update={"moments": Moments.INT8})
    small = ORION.model_copy(update={"optimizer": few})
    largest = ORION.model.vocab_size * ORION.model.hidden_size
    needed = 2 * snapshot_bytes(small, 0) + ORION.precision.weight_bytes * stage_needs(ORION, 0).parameters
    assert replay_needs(small, 0).host == needed + 2 * 4 * largest


def test_the_share_of_an_accelerator_is_the_time_in_which_units_run() -> None:
    wall = [0.0]
    budget = Budget(0.1, cores=8, accelerator=True, wall=lambda: wall[0], cpu=lambda: 1.0)
    budget.ran(6.0)
    wall[0] = 30.0
    assert budget.share == pytest.approx(0.2)
    assert budget.owed_s == pytest.approx(30.0)
    without = Budget(0.1, cores=8, wall=lambda: wall[0], cpu=lambda: 1.0)
    without.ran(6.0)
    assert without.owed_s == pytest.approx(1.25)


def test_a_device_that_is_not_there_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Cuda, "count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["iota-validator", "start", "--device", "cuda"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "this machine has no cuda device" in capsys.readouterr().err
