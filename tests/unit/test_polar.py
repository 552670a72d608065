"""Muon's orthogonalisation against a singular value decomposition in float64, and against torch's Muon."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from iota.compute import polar as module
from iota.compute.polar import EPSILON, QUINTICS, polar, polar_bytes

SHAPES = [(24, 24), (16, 60), (60, 16), (1, 40), (40, 1), (1, 1)]
KINDS = ["gauss", "steep", "rank 3", "one direction", "outlier"]
GPU = torch.device("cuda")
TORCHS = [(3.4445, -4.7750, 2.0315)] * 5
"""The polynomial of torch.optim.Muon, on matrices of Frobenius norm 1."""


@pytest.fixture
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "polar_dtype", lambda device: torch.float32)


@pytest.fixture(params=["cpu", "gpu", "gpu, split"])
def dtypes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dtypes of this CPU, or those of a GPU: products of fp16 matrices with sums in fp32."""
    if request.param != "cpu":
        monkeypatch.setattr(module, "polar_dtype", lambda device: torch.float16)
        monkeypatch.setattr(module, "_product", fp32_sums)
    if request.param == "gpu, split":
        monkeypatch.setattr(module, "_SPLIT_FROM", 8)


def fp32_sums(
    a: Tensor,
    b: Tensor,
    plus: Tensor | None = None,
    beta: float = 0.0,
    alpha: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """A GPU's product of 16-bit matrices."""
    made = alpha * (a.float() @ b.float()) + (0.0 if plus is None else beta * plus.float())
    return made.to(a.dtype) if out is None else out.copy_(made)


def composed(x: Tensor, quintics: list[tuple[float, float, float]]) -> Tensor:
    for a, b, c in quintics:
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


def exact(m: Tensor) -> Tensor:
    """U f(S / s) V^T in float64, as the module describes it."""
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    size = s.pow(8).sum(-1, keepdim=True).pow(1 / 8)
    return u * composed(s / size, list(QUINTICS)).unsqueeze(-2) @ vh


def torchs(m: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's orthogonalisation, by a step at rate 1 without momentum, and the same in float64."""
    weight = torch.nn.Parameter(torch.zeros_like(m[0], dtype=torch.float32))
    weight.grad = m[0].float()
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, momentum=0.0, adjust_lr_fn="original").step()
    rows, columns = m.shape[-2:]
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    wanted = u * composed(s / s.norm(), TORCHS).unsqueeze(-2) @ vh
    return -weight.detach()[None] / max(1.0, rows / columns) ** 0.5, wanted


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


def along(found: Tensor, m: Tensor) -> float:
    """The part along m, in units of what is possible with singular values up to 1."""
    return float((found * m).sum() / torch.linalg.svdvals(m).sum())


# ---- the polynomial -------------------------------------------------------------------------------


def test_the_polynomial_is_near_one_and_steep_at_zero() -> None:
    def f(first: float, last: float) -> Tensor:
        return composed(torch.linspace(first, last, 100_001, dtype=torch.float64), list(QUINTICS))

    assert f(0.01, 1.0).min() > 0.98
    assert f(0.01, 1.0).max() < 1.02
    assert f(0.0, 1e-9)[-1] > 144e-9
    assert f(0.0, 1.03).max() < 1.05


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_singular_values_are_those_of_the_polynomial(kind: str, shape: tuple[int, int], fp32: None) -> None:
    m = matrix(kind, *shape)
    assert error(polar(m.float()), exact(m)) < 1e-4


@pytest.mark.parametrize("split", [8, 1000])
@pytest.mark.parametrize("shape", [(24, 24), (23, 60), (60, 13)])
def test_both_forms_are_one_function(
    shape: tuple[int, int], split: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SPLIT_FROM", split)
    m = torch.cat([matrix(kind, *shape) for kind in KINDS])
    for form in (module._gram_form, module._plain_form):
        found = form(m.float())
        assert all(error(one, wanted) < 3e-4 for one, wanted in zip(found, exact(m), strict=True))


def test_a_split_product_is_that_of_whole_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPLIT_FROM", 8)
    x, plus = torch.randn(2, 19, 30), torch.randn(2, 19, 19)
    plus = plus + plus.mT
    found = module._symmetric(x, x.mT, plus, beta=0.5, alpha=2.0)
    assert torch.equal(found[:, 16:, :16], found[:, :16, 16:].mT)
    assert torch.allclose(found, 2 * x @ x.mT + 0.5 * plus, atol=1e-4)


# ---- scale, zero, NaN -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e6, 1e15])
def test_the_scale_of_a_matrix_does_not_matter(scale: float, dtypes: None) -> None:
    m = matrix("gauss", 16, 60)
    assert error(polar((scale * m).float()), exact(m)) < 0.02


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e30])
def test_what_is_noise_or_overflows_changes_nothing(scale: float, dtypes: None) -> None:
    found = polar((scale * matrix("gauss", 16, 60)).float())
    assert found.isfinite().all()
    assert found.float().abs().max() < 1e-9


def test_a_matrix_below_epsilon_fades_out(dtypes: None) -> None:
    m = matrix("gauss", 16, 60)
    unit = m / m.norm()
    sizes = [float(polar((unit * EPSILON * share).float()).float().norm()) for share in (10, 0.1, 0.01, 1e-3)]
    assert sizes[0] > 3.9
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.4


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("kind", ["gauss", "steep", "one direction"])
def test_a_matrix_that_fades_out_is_the_same_on_a_cpu_and_on_a_gpu(
    kind: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour that sends next to no gradient would else have an honest miner fail on another device."""
    m = matrix(kind, 16, 60)
    m = (m / m.norm() * EPSILON * share).float()
    on_cpu = polar(m)
    monkeypatch.setattr(module, "polar_dtype", lambda device: torch.float16)
    monkeypatch.setattr(module, "_product", fp32_sums)
    on_gpu = polar(m)
    assert error(on_cpu, share * exact(m.double())) < 0.1
    assert error(on_gpu, share * exact(m.double())) < 0.1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_spreads_over_its_own_matrix_alone(bad: float, dtypes: None) -> None:
    m = torch.cat([matrix("gauss", 16, 60), matrix("steep", 16, 60)]).float()
    m[0, 3, 5] = bad
    found = polar(m)
    assert found[0].isnan().all()
    assert found[1].isfinite().all()


# ---- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, (128, 256), (352, 128)])
def test_a_batch_gives_the_bits_of_each_matrix_alone_on_a_cpu(shape: tuple[int, int]) -> None:
    m = torch.cat([matrix(kind, *shape) for kind in KINDS]).float()
    alone = torch.cat([polar(one[None]) for one in m])
    assert torch.equal(polar(m), alone)


def test_the_largest_matrix_takes_less_than_three_gigabytes() -> None:
    assert polar_bytes(9216, 32256, GPU) < 3e9


def test_the_input_is_let_go_of_early(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = []
    inputs: list[weakref.ref[Tensor]] = []

    def form(x: Tensor) -> Tensor:
        alive.append(inputs[0]() is not None)
        return x

    def made() -> Tensor:
        m = torch.randn(1, 3, 4)
        inputs.append(weakref.ref(m))
        return m

    monkeypatch.setattr(module, "_plain_form", form)
    polar(made())
    assert alive == [False]


# ---- no worse than torch's ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64), (48, 200), (200, 48)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_at_least_as_far_along_the_momentum_as_torchs(
    kind: str, shape: tuple[int, int], dtypes: None
) -> None:
    m = matrix(kind, *shape)
    found, (theirs, _) = polar(m.float()), torchs(m)
    assert along(found, m) > along(theirs, m)
    assert torch.linalg.svdvals(found.double()).max() < 1.1


@pytest.mark.parametrize("shape", [(64, 64), (48, 200), (200, 48)])
@pytest.mark.parametrize("kind", KINDS)
def test_its_arithmetic_is_as_near_to_the_exact_one_as_torchs(
    kind: str, shape: tuple[int, int], dtypes: None
) -> None:
    m = matrix(kind, *shape)
    wanted, (theirs, their_wanted) = exact(m), torchs(m)
    found = polar(m.float())
    assert error(found, wanted) < error(theirs, their_wanted) + 0.01
    assert abs(along(found, m) / along(wanted, m) - 1) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_difference_of_the_momentum_grows_no_more_than_with_torchs(kind: str, dtypes: None) -> None:
    m = matrix(kind, 48, 200)
    other = m + 1e-6 * m.square().mean().sqrt() * matrix("gauss", 48, 201)[..., :200]
    mine, theirs = (
        (polar(x.float()).double() for x in (m, other)),
        (torchs(x)[0].double() for x in (m, other)),
    )
    (a, b), (c, d) = mine, theirs
    assert error(a, b) < 1.5 * error(c, d) + 1e-3
    assert abs(along(a, m) / along(b, m) - 1) < 2e-3
