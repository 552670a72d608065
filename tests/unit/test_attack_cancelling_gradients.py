"""A gradient that cancels in the sum over tokens: one matrix then has an honest device's roundings alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iota.compute.state import StageState
from tests.support.small_runs import small_run
from validator.audits.tolerance import compare_state, profile_for

TOKENS, INNER, HIDDEN = 1024, 128, 64


def sent(known_TF: Tensor, *, cancels: bool) -> Tensor:
    """What a neighbour sends, bf16: noise, or its part that sums to zero with the inputs of a matrix."""
    noise_TD = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1)).double()
    if cancels:
        basis_TF, _ = torch.linalg.qr(known_TF.double())
        noise_TD -= basis_TF @ (basis_TF.T @ noise_TD)
    return noise_TD.bfloat16().float()


def moments(device: int, *, cancels: bool) -> dict[str, Tensor]:
    """First moments after a step, of the matrix and of another that has the usual gradient."""
    input_TF = torch.randn(TOKENS, INNER, generator=torch.Generator().manual_seed(0))
    rounding = 1.5e-3 * torch.randn(TOKENS, INNER, generator=torch.Generator().manual_seed(2 + device))
    own_TF = (input_TF * (1 + rounding)).bfloat16().float()
    gradients = {
        "down": sent(input_TF.bfloat16(), cancels=cancels).T @ own_TF,
        "other": sent(input_TF.bfloat16(), cancels=False).T @ own_TF,
    }
    return {f"exp_avg.{name}": 0.1 * gradient for name, gradient in gradients.items()}


@pytest.mark.parametrize(
    "cancels",
    [
        False,
        pytest.param(True, marks=pytest.mark.xfail(strict=True, reason="floors are below bf16's roundings")),
    ],
)
def test_a_gradient_that_cancels_in_one_matrix_fails_no_honest_miner_in_bf16(cancels: bool) -> None:
    profile = profile_for(small_run(precision="bf16-master"), "cuda/a", "cpu/b", ())
    weights = {name: torch.zeros(HIDDEN, INNER) for name in ("down", "other")}
    mine, theirs = (StageState(weights, moments(device, cancels=cancels)) for device in (0, 1))
    assert compare_state(profile, 1, StageState(weights), theirs, mine, 1) is None
