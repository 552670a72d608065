"""What a cut model weighs: parameter shapes and counts, FLOPs, memory. No torch.

`stage_shapes` is the one list of a stage's parameters; modules, files from strangers and the
planner's counts are all held against it. Names do not depend on the cut, except that boundary b
is the one between stages b and b+1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from iota.codec.shapes import Shapes, boundary_parameters
from iota.spec import BoundarySpec, ModelSpec, OptimizerKind, Pipeline, RunSpec


def layer_shapes(model: ModelSpec, layer: int) -> Shapes:
    d, d_kv, ffn = model.hidden_size, model.kv_heads * model.head_dim, model.ffn_size
    at = f"layers.{layer}"
    return {
        f"{at}.self_attn.q_proj.weight": (d, d),
        f"{at}.self_attn.k_proj.weight": (d_kv, d),
        f"{at}.self_attn.v_proj.weight": (d_kv, d),
        f"{at}.self_attn.o_proj.weight": (d, d),
        f"{at}.mlp.gate_proj.weight": (ffn, d),
        f"{at}.mlp.up_proj.weight": (ffn, d),
        f"{at}.mlp.down_proj.weight": (d, ffn),
        f"{at}.input_layernorm.weight": (d,),
        f"{at}.post_attention_layernorm.weight": (d,),
    }


def stage_layers(cuts: tuple[int, ...], stage: int) -> range:
    """Global indices of the layers of `stage`."""
    first = sum(cuts[:stage])
    return range(first, first + cuts[stage])


def stage_shapes(
    model: ModelSpec, cuts: tuple[int, ...], stage: int, boundary: BoundarySpec | None = None
) -> Shapes:
    """Every parameter of `stage` by its global name; without codecs where `boundary` is None."""
    last = len(cuts) - 1
    shapes: Shapes = {}
    if stage == 0:
        shapes["embed.weight"] = (model.vocab_size, model.hidden_size)
    for layer in stage_layers(cuts, stage):
        shapes |= layer_shapes(model, layer)
    if stage == last:
        shapes["norm.weight"] = (model.hidden_size,)
        shapes["head.weight"] = (model.vocab_size, model.hidden_size)
    if boundary is not None:
        codec = boundary_parameters(model, boundary, stage, len(cuts))
        shapes |= {name: parameter.shape for name, parameter in codec.items()}
    return dict(sorted(shapes.items()))


def run_shapes(spec: RunSpec, stage: int) -> Shapes:
    """`stage_shapes` of a run: with its cut and its codecs."""
    return stage_shapes(spec.model, spec.layout.cuts, stage, spec.boundary)


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def stage_parameters(
    model: ModelSpec, cuts: tuple[int, ...], boundary: BoundarySpec | None = None
) -> list[int]:
    """Parameters of each stage."""
    return [count(stage_shapes(model, cuts, stage, boundary)) for stage in range(len(cuts))]


def model_parameters(model: ModelSpec) -> int:
    """Parameters of the model without codecs."""
    return count(stage_shapes(model, (model.layers,), 0))


def stage_flops(
    model: ModelSpec,
    cuts: tuple[int, ...],
    stage: int,
    sequence_length: int,
    boundary: BoundarySpec | None = None,
) -> int:
    """FLOPs per token, forward and backward: 6N plus causal attention 6·L·s·d (training.md).

    N leaves out what is only looked up: the embedding, and what a codec says of its own tables. The
    share of forward is one third.
    """
    codec = {} if boundary is None else boundary_parameters(model, boundary, stage, len(cuts))
    looked_up = {"embed.weight", *(name for name, parameter in codec.items() if not parameter.multiplied)}
    shapes = stage_shapes(model, cuts, stage, boundary)
    computed = sum(math.prod(shape) for name, shape in shapes.items() if name not in looked_up)
    return 6 * computed + 6 * cuts[stage] * sequence_length * model.hidden_size


@dataclass(frozen=True)
class StageMemory:
    """Bytes that a stage needs while it trains."""

    weights: int
    """fp32 weights; two versions in the `delayed` pipeline."""
    gradients: int
    """The step's fp32 sum and one microbatch's own gradient (checked before it is added)."""
    moments: int
    activations: int
    """Kept graphs of `credit` microbatches; an estimate, exact only to some tens of per cent."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations


def stage_memory(
    model: ModelSpec,
    cuts: tuple[int, ...],
    stage: int,
    *,
    microbatch_tokens: int,
    in_flight: int,
    boundary: BoundarySpec | None = None,
    optimizer: OptimizerKind = OptimizerKind.ADAMW,
    pipeline: Pipeline = Pipeline.DELAYED,
    value_bytes: int = 4,
) -> StageMemory:
    """What `stage` holds; `value_bytes` is the width of a computed value (2 under bf16).

    A `delayed` pipeline keeps accumulators of two steps. Muon holds one moment for the hidden
    matrices, counted as one moment for all.
    """
    parameters = count(stage_shapes(model, cuts, stage, boundary))
    versions = 2 if pipeline is Pipeline.DELAYED else 1
    moments = {OptimizerKind.ADAMW: 2, OptimizerKind.MUON: 1, OptimizerKind.SGD: 0}[optimizer]
    kept = graph_bytes(model, cuts, stage, microbatch_tokens, value_bytes)
    graphs = 1 if stage == len(cuts) - 1 else in_flight
    return StageMemory(
        weights=4 * parameters * versions,
        gradients=4 * parameters * (versions + 1),
        moments=4 * parameters * moments,
        activations=graphs * kept,
    )


def graph_bytes(
    model: ModelSpec, cuts: tuple[int, ...], stage: int, tokens: int, value_bytes: int = 4
) -> int:
    """Estimate of what autograd saves for one microbatch of `tokens` tokens."""
    d, d_kv, ffn = model.hidden_size, model.kv_heads * model.head_dim, model.ffn_size
    # two norms keep three residual-wide fp32 values each; projections keep inputs, q, k, v and output;
    # SwiGLU keeps gate, silu(gate), up and their product
    layer = 4 * 6 * d + value_bytes * (5 * d + 3 * d_kv + 4 * ffn)
    head = (2 * 4 * model.vocab_size) if stage == len(cuts) - 1 else 0
    return tokens * (cuts[stage] * layer + head)
