"""Balanced cuts: how many layers each stage gets. No torch."""

from __future__ import annotations

from iota.console.counts import counted
from iota.model.layout import stage_flops
from iota.spec import ModelSpec


def balanced_cuts(model: ModelSpec, stages: int, sequence_length: int) -> tuple[int, ...]:
    """Layers of each stage that minimize the cost of the most expensive stage.

    Costs are forward FLOPs per token: 2N + 2·s·d for a layer, 2·V·d for the head, none for the embedding.
    Layers cost the same, so that adding each layer to the cheapest stage is optimal. Raises ValueError for
    less than one stage, or more stages than layers.
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
    cuts = [1] * stages
    cost = [layer] * stages
    cost[-1] += 2.0 * model.vocab_size * model.hidden_size
    for _ in range(model.layers - stages):
        cheapest = min(range(stages), key=lambda stage: (cost[stage], stage))
        cuts[cheapest] += 1
        cost[cheapest] += layer
    return tuple(cuts)
