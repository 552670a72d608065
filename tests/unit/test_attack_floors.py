"""What a hostile neighbour sends does not make the rounding of an honest miner a fault."""

from __future__ import annotations

import pytest
import torch

from validator.audits.distances import sums, worst_error, worst_token

DENORMAL = 1e-40


@pytest.mark.parametrize("flushed", ["theirs", "mine"])
def test_values_that_one_device_flushes_to_zero_are_equal(flushed: str) -> None:
    """A gradient of denormal values is finite, and some kernels give zeros for it."""
    kept_BTK, zeros_BTK = torch.full((2, 4, 8), DENORMAL), torch.zeros(2, 4, 8)
    pair = (zeros_BTK, kept_BTK) if flushed == "theirs" else (kept_BTK, zeros_BTK)
    whole = sums(*pair)
    assert (whole.error, whole.cosine) == (0.0, 0.0)
    assert worst_token(*pair).distance == 0.0
    assert worst_error({"w": whole}).distance == 0.0
    opposite = sums(-kept_BTK, kept_BTK)
    assert (opposite.error, opposite.cosine) == (0.0, 0.0)


def test_a_token_next_to_nothing_is_no_fault_where_most_tokens_are_zero() -> None:
    """Else who sends a gradient for one token alone takes away the floor of all."""
    mine_BTK = torch.zeros(1, 64, 8)
    mine_BTK[0, 0], mine_BTK[0, 1] = 1.0, 1e-6
    theirs_BTK = mine_BTK.clone()
    theirs_BTK[0, 1] *= 2.0
    assert worst_token(theirs_BTK, mine_BTK).distance < 0.01
    theirs_BTK[0, 1] = 1.0
    assert worst_token(theirs_BTK, mine_BTK).distance > 1.0
