"""The loss in chunks is the loss of the whole logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iota.compute.precision import autocast
from iota.model.loss import token_loss, token_losses
from iota.spec import Precision
from tests.support.devices import DEVICES

TOKENS, WIDTH, VOCABULARY = (2, 50), 32, 301


def drawn(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """What the head multiplies, the head, and labels."""
    generator = torch.Generator().manual_seed(3)
    normed = torch.randn(*TOKENS, WIDTH, generator=generator)
    head = torch.randn(VOCABULARY, WIDTH, generator=generator)
    labels = torch.randint(0, VOCABULARY, TOKENS, generator=generator)
    return normed.to(device).requires_grad_(), head.to(device).requires_grad_(), labels.to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunk", [1, 7, 50, 99, 100, 1024])
def test_loss_and_gradients_are_those_of_whole_logits(chunk: int, device: str) -> None:
    normed, head, labels = drawn(device)
    whole = F.cross_entropy(F.linear(normed, head).flatten(0, 1), labels.flatten())
    expected = torch.autograd.grad(whole, (normed, head))
    loss = token_loss(normed, head, labels, chunk)
    found = torch.autograd.grad(loss, (normed, head))
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        assert float((mine - theirs).norm()) <= 1e-6 * float(theirs.norm())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", list(Precision))
def test_loss_and_gradients_repeat_their_bits_whatever_the_dtype_of_the_head(
    precision: Precision, device: str
) -> None:
    """The engine holds a bf16 copy of the head, the reference converts it in each pass."""
    normed, head, labels = drawn(device)
    copy = (head.detach().bfloat16() if precision.computes_bf16 else head.detach()).requires_grad_()
    results = []
    for own in (head, copy, copy):
        with autocast(precision, normed.device):
            loss = token_loss(normed, own, labels, chunk=7)
        results.append((loss.detach(), *(g.float() for g in torch.autograd.grad(loss, (normed, own)))))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


def test_a_bf16_gradient_of_the_head_is_rounded_once_and_not_by_chunks() -> None:
    normed, head, labels = drawn("cpu")
    exact = torch.autograd.grad(token_loss(normed, head, labels), head)[0]

    def error(chunk: int) -> float:
        with autocast(Precision.BF16_MASTER, normed.device):
            found = torch.autograd.grad(token_loss(normed, head, labels, chunk), head)[0]
        return float((found - exact).norm() / exact.norm())

    assert error(1) < 1.1 * error(100)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("chunk", [7, 100])
def test_losses_of_tokens_are_those_of_whole_logits(chunk: int, precision: Precision, device: str) -> None:
    normed, head, labels = drawn(device)
    with autocast(precision, normed.device), torch.no_grad():
        logits = F.linear(normed, head).float().flatten(0, 1)
        whole = F.cross_entropy(logits, labels.flatten(), reduction="none").view(TOKENS)
        found = token_losses(normed, head, labels, chunk)
        mean = token_loss(normed, head, labels, chunk)
    assert not found.requires_grad
    assert torch.allclose(found, whole, rtol=1e-6, atol=1e-6)
    assert float(mean) == pytest.approx(float(found.mean()), rel=1e-6)


def test_logits_never_exist_whole() -> None:
    normed, head, labels = drawn("cpu")
    largest = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_loss(normed, head, labels, chunk=10)
    assert largest == max(10 * VOCABULARY, VOCABULARY * WIDTH)
