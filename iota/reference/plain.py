"""The speed reference: plain PyTorch training of the whole model in one process."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from iota.compute.clip import largest_of, mean_and_clip
from iota.compute.optim import InnerOptimizer
from iota.compute.precision import autocast
from iota.compute.rounding import rounding_of
from iota.compute.state import StageState
from iota.compute.tokens import Tokens, token_tensors
from iota.model.loss import token_loss
from iota.model.stage import Stage, run_stage
from iota.model.updates import clip_threshold
from iota.spec import RunSpec


def train_plain(spec: RunSpec, batches: Sequence[Tokens], threads: int) -> float:
    """Tokens per second over `batches`, after a warm-up step on the first batch.

    Modules, codecs, clipping, optimizer and microbatches per step are those of the run. The rest of a
    pipeline is left out: wire, rounding, checks and digests. Gradients accumulate in `.grad`.
    Raises ValueError without batches.
    """
    if not batches:
        raise ValueError("there is nothing to train on: give at least one batch")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _train(spec, batches)
    finally:
        torch.set_num_threads(before)


def _train(spec: RunSpec, batches: Sequence[Tokens]) -> float:
    device = torch.device("cpu")
    stages = range(spec.layout.stages)
    modules = [Stage(spec, stage) for stage in stages]
    starts = [StageState.initial(spec, stage) for stage in stages]
    weights = [{n: w.requires_grad_() for n, w in state.weights.items()} for state in starts]
    optimizers = [InnerOptimizer(spec.optimizer, {n: w.detach() for n, w in own.items()}) for own in weights]
    thresholds = [clip_threshold(spec, stage) for stage in stages]

    def one(tokens: Tokens) -> None:
        ids, labels = token_tensors(spec, tokens, device)
        with autocast(spec.precision, device):
            out: Tensor | None = None
            for module, own in zip(modules, weights, strict=True):
                out = run_stage(module, own, out, ids).out
            assert out is not None
            loss = token_loss(out, weights[-1]["head.weight"], labels)
        torch.autograd.backward(loss)

    def update(count: int, rate: float) -> None:
        for own, optimizer, threshold in zip(weights, optimizers, thresholds, strict=True):
            sums = {name: w.grad.float() for name, w in own.items() if w.grad is not None}
            mean_and_clip(sums, count, threshold, largest_of(sums.values()))
            rounding = rounding_of(spec, epoch=0, step=0)
            optimizer.update({n: w.detach() for n, w in own.items()}, sums, rate, rounding)
            for w in own.values():
                w.grad = None

    one(batches[0])
    update(1, spec.learning_rate(0, 0))
    size = spec.schedule.microbatches
    started = time.perf_counter()
    for first in range(0, len(batches), size):
        group = batches[first : first + size]
        for tokens in group:
            one(tokens)
        update(len(group), spec.learning_rate(0, 0))
    return spec.data.tokens * len(batches) / (time.perf_counter() - started)
