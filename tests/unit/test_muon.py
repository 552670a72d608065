"""The optimizer Muon: its rule is torch's, its orthogonalisation its own."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from iota.compute import muon as module
from iota.compute.device import Cpu, Device
from iota.compute.devices import KINDS
from iota.compute.muon import Muon
from iota.compute.optim import InnerOptimizer
from iota.compute.polar import polar
from iota.compute.state import StageState
from iota.model.updates import moment_shapes, muon_scale
from iota.spec import OptimizerSpec
from tests.support.older_cpus import AVX2
from validator.audits.state_distances import state_distances
from validator.core.results import Quantity

SHAPES = {"layers.0.a": (64, 64), "layers.0.b": (64, 176), "layers.1.a": (64, 64), "layers.1.c": (176, 64)}
RATE, DECAY, MOMENTUM = 0.02, 0.1, 0.9
SPEC = OptimizerSpec(kind="muon", lr=RATE, weight_decay=DECAY, muon_momentum=MOMENTUM)


def tensors(seed: int, noise: float = 0.0) -> dict[str, Tensor]:
    """Matrices whose singular values fall as 1/i, by name; `noise` is relative."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, (rows, columns) in SHAPES.items():
        left, right = (
            torch.randn(rows, 64, generator=generator),
            torch.randn(64, columns, generator=generator),
        )
        made = left / torch.arange(1, 65) @ right
        found[name] = made + noise * made.square().mean().sqrt() * torch.randn(
            made.shape, generator=generator
        )
    return found


class Torchs:
    """Updates of torch.optim.Muon with the same settings."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = {name: torch.nn.Parameter(w.clone()) for name, w in weights.items()}
        self.muon = torch.optim.Muon(
            self.weights.values(),
            lr=RATE,
            weight_decay=DECAY,
            momentum=MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        )

    def update(self, gradients: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.grad = gradients[name].clone()
        self.muon.step()

    def state(self) -> StageState:
        moments = {
            f"momentum_buffer.{n}": self.muon.state[w]["momentum_buffer"] for n, w in self.weights.items()
        }
        return StageState({n: w.detach() for n, w in self.weights.items()}, moments)


def trained(seeds: range, noise: float = 0.0) -> tuple[StageState, StageState, StageState]:
    """The start, and the states after updates by gradients of these seeds: ours, and torch's."""
    start = tensors(99)
    weights = {name: w.clone() for name, w in start.items()}
    mine, theirs = InnerOptimizer(SPEC, weights), Torchs(start)
    for seed in seeds:
        gradients = tensors(seed, noise)
        mine.update(weights, gradients, RATE)
        theirs.update(gradients)
    return StageState(start), StageState(weights, mine.moments()), theirs.state()


# ---- the rule -------------------------------------------------------------------------------------


def test_momenta_are_torchs_to_the_bit() -> None:
    _, mine, theirs = trained(range(3))
    assert mine.moments.keys() == moment_shapes(SPEC, SHAPES).keys()
    assert all(torch.equal(moment, theirs.moments[name]) for name, moment in mine.moments.items())


def test_an_update_is_decay_and_the_orthogonalised_nesterov_momentum() -> None:
    weights, gradients = tensors(0), tensors(1)
    before = {name: w.clone() for name, w in weights.items()}
    InnerOptimizer(SPEC, weights).update(weights, gradients, RATE)
    for name, gradient in gradients.items():
        ahead = gradient * (1 - MOMENTUM) * MOMENTUM + gradient * (1 - MOMENTUM)
        scale = RATE * 0.2 * math.sqrt(max(gradient.shape))
        expected = (1 - RATE * DECAY) * before[name] - scale * polar(ahead[None])[0]
        assert torch.allclose(weights[name], expected, atol=2e-2 * scale)
    assert muon_scale(64, 176) == 0.2 * math.sqrt(176)


def test_gradients_stay_as_they_are() -> None:
    weights, gradients = tensors(0), tensors(1)
    InnerOptimizer(SPEC, weights).update(weights, gradients, RATE)
    assert all(torch.equal(gradient, tensors(1)[name]) for name, gradient in gradients.items())


def test_bits_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    _, together, _ = trained(range(2))
    monkeypatch.setattr(Cpu, "cached_bytes", 1)
    assert [len(b) for b in Muon(0.9, tensors(0))._batches] == [1, 1, 1, 1]
    _, alone, _ = trained(range(2))
    assert all(torch.equal(w, alone.weights[name]) for name, w in together.weights.items())


def test_batches_are_of_one_shape_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "meta", Device)
    device = torch.device("meta")
    large = {f"m{i}": torch.empty(1024, 9216, device=device) for i in range(12)}
    large |= {f"w{i}": torch.empty(9216, 32256, device=device) for i in range(2)}
    batches = module._batches(large)
    assert [len(batch) for batch in batches] == [12, 1, 1]
    assert [name for batch in batches for name in batch] == list(large)


def test_a_nan_in_a_gradient_reaches_its_weight() -> None:
    weights, gradients = tensors(0), tensors(1)
    gradients["layers.0.a"][3, 4] = float("nan")
    InnerOptimizer(SPEC, weights).update(weights, gradients, RATE)
    assert weights["layers.0.a"].isnan().all()
    assert all(w.isfinite().all() for name, w in weights.items() if name != "layers.0.a")


# ---- replays --------------------------------------------------------------------------------------


def distances(start: StageState, a: StageState, b: StageState) -> tuple[float, float]:
    """(along, change) of an audit."""
    found = state_distances(start, a, b)
    return found[Quantity.ALONG].distance, found[Quantity.CHANGE].distance


def test_small_differences_of_gradients_grow_no_more_than_with_torchs() -> None:
    start, mine, theirs = trained(range(5))
    _, my_other, their_other = trained(range(5), noise=1e-6)
    along, change = distances(start, mine, my_other)
    their_along, their_change = distances(start, theirs, their_other)
    assert change < 1.2 * their_change
    assert along < 1.2 * their_along + 1e-4


def test_another_cpus_kernels_are_no_farther_than_with_torchs(tmp_path: Path) -> None:
    files = {"here": {}, "older": AVX2}
    for name, limits in files.items():
        command = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / name)]
        subprocess.run(command, env=os.environ | limits, check=True)
    found = {name: safetensors.torch.load_file(tmp_path / name) for name in files}

    def state(name: str, whose: str) -> StageState:
        kinds = {
            kind: {n.partition("/")[2]: t for n, t in found[name].items() if n.startswith(f"{whose}.{kind}/")}
            for kind in ("weights", "moments")
        }
        return StageState(kinds["weights"], kinds["moments"])

    start = StageState(tensors(99))
    mine, theirs = (distances(start, *(state(name, whose) for name in files)) for whose in ("mine", "torchs"))
    assert mine[1] < 1.2 * theirs[1] + 1e-6
    assert mine[0] < 1.2 * theirs[0] + 1e-4


CHILD = """
import sys
import safetensors.torch
from tests.unit.test_muon import trained
import torch
torch.set_num_threads(1)
_, mine, theirs = trained(range(5))
safetensors.torch.save_file({
    f"{whose}.{kind}/{name}": tensor.contiguous()
    for whose, state in (("mine", mine), ("torchs", theirs))
    for kind, tensors in (("weights", state.weights), ("moments", state.moments))
    for name, tensor in tensors.items()
}, sys.argv[1])
"""
