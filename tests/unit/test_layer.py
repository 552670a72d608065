"""A layer of ours gives the bits of that of `transformers`, forward and backward; on a GPU the values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from iota.compute.precision import autocast
from iota.model.layer import KeepAll, Tables, run_layer
from iota.model.rotary import rotary_tables
from iota.reference.llama import llama_config
from iota.spec import ModelSpec, Precision, RopeScaling
from tests.support.devices import DEVICES

LENGTH = 12


@pytest.mark.parametrize("scaling", [None, RopeScaling(original_positions=64), RopeScaling(factor=8.0)])
def test_tables_are_those_of_transformers(scaling: RopeScaling | None) -> None:
    for heads, theta in ((1, 500_000.0), (4, 10_000.0)):
        model = ModelSpec(
            vocab_size=61, hidden_size=256, layers=1, heads=heads, kv_heads=1, ffn_size=48,
            rope_theta=theta, rope_scaling=scaling,
        )  # fmt: skip
        theirs = LlamaRotaryEmbedding(llama_config(model, 300))(torch.empty(0), torch.arange(300)[None])
        for ours, their in zip(rotary_tables(model, 300), theirs, strict=True):
            assert torch.equal(ours, their)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("precision", list(Precision))
def test_a_layer_is_that_of_transformers(precision: Precision, kv_heads: int, device: str) -> None:
    model = ModelSpec(vocab_size=61, hidden_size=32, layers=1, heads=4, kv_heads=kv_heads, ffn_size=48)
    config = llama_config(model, LENGTH)
    theirs = LlamaDecoderLayer(config, 0).to(device)
    tables = LlamaRotaryEmbedding(config)(torch.empty(0), torch.arange(LENGTH)[None])
    tables = Tables(*(table.to(device) for table in tables))
    generator = torch.Generator().manual_seed(5)
    weights = {n: torch.randn(p.shape, generator=generator) / 4 for n, p in theirs.named_parameters()}
    x_BTD = torch.randn(2, LENGTH, 32, generator=generator).to(device)
    given = torch.randn(2, LENGTH, 32, generator=generator).to(device)
    found = []
    for ours in (False, True):
        own = {
            n: (w.bfloat16() if precision.computes_bf16 and "norm" not in n else w.clone()).to(device)
            for n, w in weights.items()
        }
        run = (
            partial(run_layer, own, model, tables, KeepAll())
            if ours
            else partial(functional_call, theirs, own, kwargs={"position_embeddings": tables})
        )
        found.append(_results(run, own, x_BTD, given, precision))
    for name, theirs_made in found[0].items():
        if device == "cpu":
            assert torch.equal(theirs_made, found[1][name]), name
        else:  # one kernel for the norm, where theirs has five
            error = (theirs_made.float() - found[1][name].float()).norm() / theirs_made.float().norm()
            assert error < (1e-2 if precision.computes_bf16 else 1e-5), name


def _results(
    run: Callable[[Tensor], Tensor],
    own: dict[str, Tensor],
    x_BTD: Tensor,
    given: Tensor,
    precision: Precision,
) -> dict[str, Tensor]:
    """The output, and the gradients of the input and of each weight."""
    leaves = {**own, "x": x_BTD.clone()}
    for leaf in leaves.values():
        leaf.requires_grad_()
    with autocast(precision, x_BTD.device):
        out = run(leaves["x"])
    gradients = torch.autograd.grad(out, list(leaves.values()), given)
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}
