"""Words on NaN in real epochs: a false one fails in the replay, a true one passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from torch import Tensor

from iota.compute.accumulate import OpenStep
from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.output import MAX_CHECK
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from tests.support import audit_benches as benches
from tests.support.audit_benches import Open
from tests.support.audited_runs import DEVICE
from tests.support.spoken_words import said
from tests.unit.test_replay import OTHER, honest
from validator.core.segments import Draws
from validator.core.tasks import drawn_tasks


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("step", [0, 1, 2])
async def test_a_false_cry_of_nan_fails_in_the_replay(stage: int, step: int, open_bench: Open) -> None:
    bench = await open_bench(said(honest("sync"), stage, step))
    result = await bench.audit(stage, AuditKind.WORD, step=step, seq=1)
    assert (result.outcome, result.expected) == (Outcome.FAIL, "finite values")
    assert "replay is finite" in result.reason


async def test_a_true_cry_of_nan_passes(open_bench: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await open_bench(said(honest("sync"), 1, 0))

    def broken(*_: object) -> None:
        raise BadValueError("NaN, made for this test")

    monkeypatch.setattr(Engine, "forward", broken)
    assert (await bench.audit(1, AuditKind.WORD, step=0, seq=1)).outcome is Outcome.PASS


async def test_every_word_is_repeated_without_a_draw_and_one_that_nobody_signed_is_none(
    open_bench: Open,
) -> None:
    bench = await open_bench(said(honest("sync"), 1, 0))
    miner, draws = bench.world.miners[1].hotkey, Draws("ab" * 32, "cd" * 32, "nobody")
    tasks = [t for t in drawn_tasks(bench.sealed, draws, miner) if t.kind is AuditKind.WORD]
    assert [(task.name, task.seq, task.step) for task in tasks] == [("word:1", 1, 0)]
    made_up = await open_bench(said(honest("sync"), 1, 0, by=2))
    assert made_up.sealed.words(miner) == ()


async def test_a_word_whose_frames_the_store_lost_is_repeated_from_what_its_miner_has_kept(
    open_bench: Open,
) -> None:
    world = said(honest("sync"), 1, 0)
    world.store = {key: data for key, data in world.store.items() if "/frames/" not in key}
    kept: dict[str, Any]
    for kept, outcome in (
        ({}, Outcome.FAIL),
        ({"frames": lambda miner, step: None}, Outcome.UNDELIVERED),
        ({"frames": lambda miner, step: benches.kept_frames(world, miner, 1)}, Outcome.UNDELIVERED),
    ):
        bench = await open_bench(world, **kept)
        result = await bench.audit(1, AuditKind.WORD, step=0, seq=1)
        assert result.outcome is outcome, result


@pytest.mark.parametrize(("device", "held"), [(DEVICE, True), (OTHER, False)])
async def test_values_near_the_bound_of_bad_ones_are_held_against_nobody_on_another_class(
    device: str, held: bool, open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its device found just on one side of the bound, the validator's finds just on the other."""
    world, found = honest("sync", device=device), [1.1 * MAX_CHECK]
    backward = OpenStep.backward

    def near(step: OpenStep, *given: Any) -> tuple[Tensor, Tensor]:
        return backward(step, *given)[0], torch.tensor(found[0])

    monkeypatch.setattr(OpenStep, "backward", near)
    bench = await open_bench(world)
    receipt = bench.op(1, OpKind.BACKWARD, step=0)
    result = await bench.audit(1, AuditKind.OP, step=0, seq=receipt.seq)
    assert result.outcome is (Outcome.FAIL if held else Outcome.PASS), result
    found[0] = 0.9 * MAX_CHECK
    bench = await open_bench(said(world, 1, 0))
    result = await bench.audit(1, AuditKind.WORD, step=0, seq=1)
    assert result.outcome is (Outcome.FAIL if held else Outcome.PASS), result
    found[0] = 0.4 * MAX_CHECK
    assert (await bench.audit(1, AuditKind.WORD, step=0, seq=1)).outcome is Outcome.FAIL
