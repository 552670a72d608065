"""Audits of epochs whose moments and sums of gradients are kept in few bits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import torch
from torch import Tensor

from iota.compute.rounding import random_bits
from iota.protocol.fingerprints import Fingerprint
from iota.protocol.messages import AuditKind, Outcome
from tests.support import audit_benches as benches
from tests.support.audit_benches import Open
from tests.support.audited_miners import Honest, Miner
from tests.support.audited_runs import DEVICE, World
from tests.support.small_runs import small_run
from tests.unit.test_replay import OFTEN, OTHER


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


@pytest.mark.parametrize("device", [DEVICE, OTHER])
@pytest.mark.parametrize("moments", ["bf16", "int8"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
async def test_small_moments_and_sums_are_replayed_with_their_roundings(
    optimizer: str, moments: str, device: str, open_bench: Open
) -> None:
    """To the bit, or within the bounds, also with moments that were carried over."""
    spec = small_run(
        precision="bf16-sr",
        schedule={"pipeline": "delayed"},
        optimizer={"kind": optimizer, "state": "carry", "moments": moments, "gradient_sums": "bf16"},
        audit=OFTEN,
    )
    world = World(spec, device=device)
    for epoch in range(2):
        world.train(epoch)
    bench = await open_bench(world, 1)
    for miner in bench.world.miners:
        assert await bench.check(miner.stage) is None
        for step in (0, 2):
            result = await bench.audit(miner.stage, AuditKind.SEGMENT, step=step)
            assert result.outcome is Outcome.PASS, result
            declared = f"declared/0.01/bf16-sr/{optimizer}/{moments}-moments/bf16-sums"
            assert result.profile == ("exact" if device == DEVICE else declared)


def half(index_N: Tensor, a: int | Tensor, b: int | Tensor) -> Tensor:
    """Bits with which everything is rounded to the nearest."""
    return torch.full_like(index_N, 1 << 15)


@pytest.mark.parametrize(
    ("form", "outcome"), [({"moments": "int8"}, Outcome.FAIL), ({"gradient_sums": "bf16"}, Outcome.PASS)]
)
async def test_who_rounds_to_the_nearest_shows_no_device_and_moments_fail_its_segment(
    form: dict[str, str], outcome: Outcome, open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its fingerprint is another one. Sums to the nearest are within the bounds then, and save nothing."""
    with monkeypatch.context() as patched:
        patched.setattr("iota.compute.rounding.random_bits", half)
        world = World(small_run(optimizer=form, audit=OFTEN), {1: Honest()})
        world.train()
    bench = await open_bench(world)
    result = await bench.audit(1, AuditKind.SEGMENT, step=0)
    assert result.outcome is outcome
    assert result.profile.startswith("class not shown/declared/")


@pytest.mark.parametrize("form", [{"moments": "int8"}, {"gradient_sums": "bf16"}])
async def test_who_rounds_moments_or_sums_to_the_nearest_fails_its_segment(
    form: dict[str, str], open_bench: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ToNearest(Honest):
        """Shows the class of a device that rounds as it should."""

        def fingerprint(self, miner: Miner, nonce: str) -> Fingerprint:
            with monkeypatch.context() as patched:
                patched.setattr("iota.compute.rounding.random_bits", random_bits)
                return super().fingerprint(miner, nonce)

    with monkeypatch.context() as patched:
        patched.setattr("iota.compute.rounding.random_bits", half)
        world = World(small_run(optimizer=form, audit=OFTEN), {1: ToNearest()})
        world.train()
    bench = await open_bench(world)
    result = await bench.audit(1, AuditKind.SEGMENT, step=0)
    assert (result.outcome, result.profile) == (Outcome.FAIL, "exact")
