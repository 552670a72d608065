"""Layers compiled by torch: here on the CPU, where nodes do not use them, and on CUDA where there is one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import create_block_mask

from iota.compute.activations import open_saving
from iota.compute.compiled import (
    _compiled_layer,
    _flex_attention,
    document_layer,
    document_mask,
    is_compiled,
    open_attention,
    open_layer,
)
from iota.compute.offload import Offload
from iota.model.documents import attention_within, document_numbers, plain_layer
from iota.model.layer import Tables, run_layer, sdpa
from iota.model.layout import layer_shapes
from iota.model.presets import PRESETS
from iota.settings import Activations
from tests.support.devices import DEVICES

TOKENS = 48
MODEL = PRESETS["tiny"]
POLICIES = [policy for policy in Activations if policy is not Activations.AUTO]


def run(layer: object, policy: Activations, device: str, *, backward: bool = True) -> list[Tensor]:
    """A layer's output, and with `backward` the gradients of its input and weights."""
    torch.manual_seed(1)
    weights = {
        name.removeprefix("layers.0."): (torch.randn(shape) * shape[-1] ** -0.5).to(device).requires_grad_()
        for name, shape in layer_shapes(MODEL, 0).items()
    }
    angles = torch.randn(1, TOKENS, MODEL.head_dim, device=device)
    tables, x = Tables(angles.cos(), angles.sin()), torch.randn(1, TOKENS, MODEL.hidden_size, device=device)
    saving = open_saving(policy, Offload(torch.device(device)), [*weights.values(), *tables])
    x.requires_grad_()
    with torch.set_grad_enabled(backward), torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
        out = saving.layer(lambda x_BTD: layer(weights, MODEL, tables, saving, x_BTD), x * 1)  # type: ignore[operator]
    if not backward:
        return [out]
    out.backward(torch.ones_like(out))
    assert x.grad is not None
    return [out.detach(), x.grad, *(w.grad for w in weights.values() if w.grad is not None)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_layer_computes_what_the_layer_does(device: str) -> None:
    compiled = _compiled_layer(MODEL, TOKENS, torch.device(device))
    one, other = (run(layer, Activations.KEEP, device) for layer in (compiled, run_layer))
    for made, expected in zip(one, other, strict=True):
        assert float((made - expected).norm() / expected.norm()) < 2e-2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_compiled_layer_has_the_same_bits_under_every_policy(policy: Activations, device: str) -> None:
    layer = _compiled_layer(MODEL, TOKENS, torch.device(device))
    kept, found = run(layer, Activations.KEEP, device), run(layer, policy, device)
    assert all(map(torch.equal, kept, found))


def numbers(seed: int) -> Tensor:
    """Of the documents of two sequences."""
    ids = torch.randint(12, (2, TOKENS), generator=torch.Generator().manual_seed(seed))
    return document_numbers(ids, 3)


def heads(count: int) -> Tensor:
    return torch.randn(2, count, TOKENS, 16)


def test_flex_attention_with_the_mask_of_documents_is_attention_of_each_by_itself() -> None:
    q, k, v = heads(4), heads(2), heads(2)
    for seed in range(3):
        documents = numbers(seed)
        found = _flex_attention(document_mask(documents, create_block_mask))(q, k, v)
        torch.testing.assert_close(found, attention_within(documents)(q, k, v))


def test_documents_are_an_input_of_compiled_code() -> None:
    """Of the layer, and of what makes its mask: other documents compile nothing."""
    layers, masks = CompileCounter(), CompileCounter()
    q, k, v = heads(4), heads(2), heads(2)
    make = torch.compile(create_block_mask, dynamic=False, backend=masks)
    run = torch.compile(
        lambda mask: _flex_attention(mask)(q, k, v), dynamic=False, fullgraph=True, backend=layers
    )
    found = [run(document_mask(numbers(seed), make)) for seed in range(4)]
    assert (layers.frame_count, masks.frame_count) == (1, 1)
    for seed, mixed in enumerate(found):
        torch.testing.assert_close(mixed, attention_within(numbers(seed))(q, k, v))


@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_layer_with_documents_computes_what_the_layer_does(device: str) -> None:
    """On CPUs forward alone: there torch's FlexAttention has no backward."""
    documents = numbers(5)[:1].to(device)
    one, other = (
        run(layer, Activations.KEEP, device, backward=device != "cpu")
        for layer in (document_layer(MODEL, documents), plain_layer(documents))
    )
    for made, expected in zip(one, other, strict=True):
        assert float((made - expected).norm() / expected.norm()) < 2e-2


def test_the_cpu_compiles_nothing() -> None:
    cpu = torch.device("cpu")
    assert not is_compiled(cpu)
    assert open_layer(MODEL, TOKENS, cpu) is plain_layer
    assert plain_layer(None) is run_layer
    assert open_attention(MODEL.head_dim, TOKENS, cpu) is sdpa
