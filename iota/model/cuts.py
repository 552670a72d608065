"""Balanced cuts: how many layers each stage gets. No torch."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from iota.console.counts import counted
from iota.model.layout import stage_flops
from iota.spec import ModelSpec


def balanced_cuts(model: ModelSpec, stages: int, sequence_length: int) -> tuple[int, ...]:
    """Layers of each stage that minimize the cost of the most expensive stage.

    Costs are forward FLOPs per token: 2N + 2·s·d for a layer, 2·V·d for the head, none for the embedding.
    Raises ValueError for less than one stage, or more stages than layers.
    """
    if stages < 1:
        raise ValueError(f"{stages} stages cannot hold a model: give at least 1")
    if stages > model.layers:
        raise ValueError(
            f"{stages} stages need {stages} layers and the model has {model.layers}:"
            f" give at most {counted(model.layers, 'stage')}"
        )
    # The first of two stages has one layer and the embedding, which costs nothing.
    layer = stage_flops(model, (1, 1), 0, sequence_length) / 3
    head = 2.0 * model.vocab_size * model.hidden_size
    cuts = cheapest_cuts(model.layers, stages, lambda s, layers: layers * layer + head * (s == stages - 1))
    assert cuts is not None, "every cost is finite"
    return cuts


def cheapest_cuts(layers: int, stages: int, cost: Callable[[int, int], float]) -> tuple[int, ...] | None:
    """Layers of each stage that minimize the cost of the most expensive stage; None where that is infinite.

    `cost(stage, layers)` does not fall with more layers, so that adding each layer where it leaves the
    cheapest stage is optimal.
    """
    cuts = [1] * stages
    larger = [(cost(stage, 2), stage) for stage in range(stages)]
    heapq.heapify(larger)
    for _ in range(layers - stages):
        _, stage = larger[0]
        cuts[stage] += 1
        heapq.heapreplace(larger, (cost(stage, cuts[stage] + 1), stage))
    dearest = max(cost(stage, cut) for stage, cut in enumerate(cuts))
    return tuple(cuts) if math.isfinite(dearest) else None
