"""Parameter shapes, counts and FLOPs of each stage. No torch.

`stage_shapes` defines a stage's parameters; modules, received files and the planner are checked against
it. Names do not depend on the cut, except that boundary b is between stages b and b+1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from iota.codec.boundary_codec import CodecParameter
from iota.codec.shapes import Shapes, boundary_parameters
from iota.spec import BoundarySpec, ModelSpec, RunSpec

_TABLE: Final = "embed.weight"


def layer_shapes(model: ModelSpec, layer: int) -> Shapes:
    """Parameters of one Llama layer, named by its index in the whole model."""
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
    """All parameters of `stage`, sorted by global name. Without those of codecs if `boundary` is None."""
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
    """`stage_shapes` with the cut and the codecs of a run."""
    return stage_shapes(spec.model, spec.layout.cuts, stage, spec.boundary)


def count(shapes: Shapes) -> int:
    """Number of parameters (elements)."""
    return sum(math.prod(shape) for shape in shapes.values())


def stage_parameters(
    model: ModelSpec, cuts: tuple[int, ...], boundary: BoundarySpec | None = None
) -> list[int]:
    """Number of parameters of each stage."""
    return [count(stage_shapes(model, cuts, stage, boundary)) for stage in range(len(cuts))]


def stage_flops(
    model: ModelSpec,
    cuts: tuple[int, ...],
    stage: int,
    sequence_length: int,
    boundary: BoundarySpec | None = None,
) -> int:
    """FLOPs per token, forward and backward: 6N, and 6·L·s·d for causal attention (docs/training.md).

    N excludes tables that are only looked up: the embedding, and token tables of a codec. One third of the
    FLOPs is forward.
    """
    looked_up = _looked_up({} if boundary is None else boundary_parameters(model, boundary, stage, len(cuts)))
    shapes = stage_shapes(model, cuts, stage, boundary)
    computed = sum(math.prod(shape) for name, shape in shapes.items() if name not in looked_up)
    return 6 * computed + 6 * cuts[stage] * sequence_length * model.hidden_size


def multiplied_names(spec: RunSpec, stage: int) -> frozenset[str]:
    """Parameters of `stage` that are operands of matrix products, or added to one: no norms, no tables."""
    looked_up = _looked_up(boundary_parameters(spec.model, spec.boundary, stage, spec.layout.stages))
    return frozenset(
        name for name in run_shapes(spec, stage) if name not in looked_up and not name.endswith("norm.weight")
    )


def converted_names(spec: RunSpec, stage: int) -> frozenset[str]:
    """Parameters of `stage` that ops use in another dtype than the weights have.

    With fp32 weights and bf16 compute those of matrix products, in bf16. With bf16 weights the few others,
    gains of norms and tables of codecs, in fp32; but not the embedding, whose rows are looked up in its own
    dtype since a copy would be gigabytes (`iota.model.lookup`).
    """
    if not spec.precision.computes_bf16:
        return frozenset()
    multiplied = multiplied_names(spec, stage)
    if not spec.precision.holds_bf16:
        return multiplied
    return frozenset(run_shapes(spec, stage)) - multiplied - {_TABLE}


def _looked_up(codec: Mapping[str, CodecParameter]) -> set[str]:
    """Tables of which ops read single rows: the embedding, and those of a codec with these parameters."""
    return {_TABLE, *(name for name, parameter in codec.items() if not parameter.multiplied)}
