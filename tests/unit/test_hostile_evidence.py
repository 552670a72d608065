"""Receipts and snapshots that strangers made: each ended the validator once, and now is a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from iota.compute.state import StageState, state_bytes
from iota.protocol.messages import Outcome
from iota.protocol.receipts import OpKind, Receipt
from tests.support.audited_runs import World
from tests.support.hostile_evidence import audited, hostile, rewrite, sealed_epoch, trained


def own(world: World, stage: int) -> list[Receipt]:
    return world.of_epoch(0, world.miners[stage])


async def test_honest_work_passes_in_the_harness_of_these_tests() -> None:
    found = await audited(hostile(trained()))
    found.check()
    assert {result.outcome for result in found.verdicts.values()} == {Outcome.PASS}


# ---- receipts of ops that a stage does not have ---------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "of", "kind"),
    [
        (0, OpKind.FORWARD, OpKind.LOSS),
        (1, OpKind.FORWARD, OpKind.LOSS),
        (2, OpKind.LOSS, OpKind.FORWARD),
        (2, OpKind.LOSS, OpKind.BACKWARD),
        (1, OpKind.FORWARD, OpKind.MERGE),
    ],
)
async def test_a_receipt_of_an_op_that_its_stage_does_not_have_is_neither_drawn_nor_paid(
    stage: int, of: OpKind, kind: OpKind
) -> None:
    world = hostile(trained())
    honest = await sealed_epoch(world)
    receipts = own(world, stage)
    extra = [r.model_copy(update={"kind": kind, "loss": None}) for r in receipts if r.kind is of]
    rewrite(world, world.miners[stage], [*receipts, *extra])
    found = await audited(world)
    found.check()
    hotkey = world.miners[stage].hotkey
    paid = (await sealed_epoch(world)).paid(hotkey)
    assert [r.key for r in paid] == [r.key for r in honest.paid(hotkey)]
    assert found.outcomes(world.miners[stage]) == {Outcome.PASS}


# ---- states ------------------------------------------------------------------------------------------


def _header(data: bytes, **changes: Any) -> bytes:
    """A safetensors file with another header: fields of the first tensor, or the whole."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[min(name for name in header if name != "__metadata__")].update(changes)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _with(state: StageState, value: float) -> bytes:
    weights = {name: tensor.clone() for name, tensor in state.weights.items()}
    next(iter(weights.values())).view(-1)[0] = value
    return state_bytes(StageState(weights, state.moments))


SNAPSHOTS: dict[str, Callable[[StageState], bytes]] = {
    "nothing": lambda state: b"",
    "a page": lambda state: b"<html>" * 100,
    "a long header": lambda state: (2**63).to_bytes(8, "little") + b"{}",
    "deep": lambda state: (20_000).to_bytes(8, "little") + b"[" * 20_000,
    "another dtype": lambda state: _header(state_bytes(state), dtype="F8_E4M3"),
    "no elements": lambda state: _header(state_bytes(state), shape=[0], data_offsets=[0, 0]),
    "huge": lambda state: _header(state_bytes(state), shape=[2**62, 2**62]),
    "a negative extent": lambda state: _header(state_bytes(state), data_offsets=[-4, 0]),
    "NaN": lambda state: _with(state, float("nan")),
    "infinity": lambda state: _with(state, float("inf")),
    "another value": lambda state: _with(state, 3e38),
    "no moments": lambda state: state_bytes(StageState(state.weights)),
}


@pytest.mark.parametrize("kind", SNAPSHOTS)
async def test_a_snapshot_that_is_no_state_fails_its_miner_and_ends_nothing(kind: str) -> None:
    world = hostile(trained())
    miner = world.miners[1]
    for version in (1, 2):
        miner.snapshots[version] = SNAPSHOTS[kind](miner.snapshots[version])  # type: ignore[assignment]
    found = await audited(world)
    found.check()
    assert Outcome.FAIL in found.outcomes(miner)
    assert found.outcomes(world.miners[0]) == found.outcomes(world.miners[2]) == {Outcome.PASS}
