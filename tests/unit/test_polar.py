"""Muon's orthogonalisation against a singular value decomposition in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iota.compute import polar as module
from iota.compute.polar import EPSILON, QUINTICS, polar, polar_bytes, polar_dtype

SHAPES = [(24, 24), (16, 60), (60, 16), (1, 40), (40, 1), (1, 1)]
KINDS = ["gauss", "steep", "rank 3", "one direction", "outlier"]


def polynomial(x: Tensor) -> Tensor:
    """f of the module's description."""
    for a, b, c in QUINTICS:
        x = x * (a + b * x**2 + c * x**4)
    return x


def matrix(kind: str, rows: int, columns: int) -> Tensor:
    """[1, rows, columns], float64."""
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    made = torch.randn(1, rows, columns, generator=generator, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(made, full_matrices=False)
    rank = torch.arange(s.shape[-1], dtype=torch.float64)
    match kind:
        case "gauss":
            return made
        case "steep":
            return u * 10 ** (-rank / 8) @ vh
        case "rank 3":
            return u * (rank < 3) @ vh
        case "one direction":
            return u * torch.where(rank < 1, 1.0, 0.01) @ vh
        case _:
            made[0, 0, 0] = 1000.0
            return made


def expected(m: Tensor) -> Tensor:
    """U f(S / s) V^T in float64."""
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    size = s.pow(8).sum(-1, keepdim=True).pow(1 / 8)
    return u * polynomial(s / size).unsqueeze(-2) @ vh


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


def test_the_polynomial_is_near_one_and_steep_at_zero() -> None:
    values = polynomial(torch.linspace(0.008, 1.0, 100_001, dtype=torch.float64))
    assert 0.959 < values.min() and values.max() < 1.041
    assert polynomial(torch.tensor(1e-9, dtype=torch.float64)) > 161e-9
    assert polynomial(torch.linspace(0.0, 1.03, 100_001, dtype=torch.float64)).max() < 1.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_singular_values_are_those_of_the_polynomial(kind: str, shape: tuple[int, int]) -> None:
    m = matrix(kind, *shape)
    assert error(polar(m.float()), expected(m)) < 1e-4


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e6, 1e15])
def test_the_scale_of_a_matrix_does_not_matter(scale: float) -> None:
    m = matrix("gauss", 16, 60)
    assert error(polar((scale * m).float()), expected(m)) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e30])
def test_what_is_noise_or_overflows_changes_nothing(
    scale: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "polar_dtype", lambda device: dtype)
    found = polar((scale * matrix("gauss", 16, 60)).float())
    assert found.isfinite().all() and found.float().abs().max() < 1e-9


def test_a_matrix_below_epsilon_fades_out() -> None:
    m = matrix("gauss", 16, 60)
    unit = m / m.norm()
    sizes = [float(polar((unit * EPSILON * share).float()).norm()) for share in (10.0, 0.1, 0.01, 0.001)]
    assert sizes[0] > 3.9 and sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_spreads_over_its_own_matrix_alone(bad: float) -> None:
    m = torch.cat([matrix("gauss", 16, 60), matrix("steep", 16, 60)]).float()
    m[0, 3, 5] = bad
    found = polar(m)
    assert found[0].isnan().all() and found[1].isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_gives_the_bits_of_each_matrix_alone(shape: tuple[int, int]) -> None:
    m = torch.cat([matrix(kind, *shape) for kind in KINDS]).float()
    alone = torch.cat([polar(one.clone()[None]) for one in m])
    assert torch.equal(polar(m), alone)


@pytest.mark.parametrize("shape", [(24, 24), (23, 60), (60, 13)])
def test_split_products_are_those_of_whole_matrices(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    m = torch.cat([matrix(kind, *shape) for kind in KINDS])
    monkeypatch.setattr(module, "_SPLIT_FROM", 8)
    found = polar(m.float())
    for one, wanted in zip(found, expected(m), strict=True):
        assert error(one, wanted) < 1e-4
    x = torch.randn(2, 19, 30)
    product = module._symmetric(x, x.mT)
    assert torch.equal(product, product.mT)


@pytest.mark.parametrize("split", [8, 2048])
@pytest.mark.parametrize("shape", [(64, 64), (48, 200), (200, 48)])
@pytest.mark.parametrize("kind", KINDS)
def test_fp16_as_on_a_gpu_is_near(
    kind: str, shape: tuple[int, int], split: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "polar_dtype", lambda device: torch.float16)
    monkeypatch.setattr(module, "_SPLIT_FROM", split)
    m = matrix(kind, *shape)
    found, wanted = polar(m.float()), expected(m)
    assert error(found, wanted) < 0.02
    assert torch.linalg.svdvals(found.double()).max() < 1.1
    assert abs(float((found * m).sum() / (wanted * m).sum()) - 1) < 4e-3


def test_memory_is_bounded_by_the_shape() -> None:
    assert polar_dtype(torch.device("cpu")) is torch.float32
    assert polar_dtype(torch.device("cuda")) is torch.float16
    assert polar_bytes(9216, 32256, torch.device("cuda")) < 3.5e9
