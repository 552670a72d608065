"""Shapes of a codec's parameters, and sizes of what crosses a boundary. No torch."""

from __future__ import annotations

from iota.spec import BoundarySpec, Codec, ModelSpec, RunSpec, WireDtype

Shapes = dict[str, tuple[int, ...]]
"""Shape of each parameter, by name."""

WIRE_BYTES = {WireDtype.FP32: 4, WireDtype.BF16: 2, WireDtype.INT8: 1}
"""Bytes of one value."""
_MIN_CODEC_HIDDEN = 32


def codec_hidden(model: ModelSpec, boundary: BoundarySpec) -> int:
    """Hidden width of a codec's two-layer maps."""
    k = model.hidden_size // boundary.ratio
    return max(_MIN_CODEC_HIDDEN, round(boundary.hidden_ratio * k))


def codec_shapes(model: ModelSpec, boundary: BoundarySpec, index: int, side: str) -> Shapes:
    """Parameters of one side (`encode` or `decode`) of boundary `index`."""
    if boundary.codec is Codec.IDENTITY:
        return {}
    d, k, hidden = model.hidden_size, model.hidden_size // boundary.ratio, codec_hidden(model, boundary)
    wide, narrow = (d, k) if side == "encode" else (k, d)
    at = f"boundary.{index}.{side}"
    shapes: Shapes = {
        f"{at}.inner.weight": (hidden, wide),
        f"{at}.inner.bias": (hidden,),
        f"{at}.outer.weight": (narrow, hidden),
        f"{at}.outer.bias": (narrow,),
    }
    if boundary.codec is Codec.RESBM_ANCHOR:
        shapes[f"{at}.anchor.tokens"] = (model.vocab_size, boundary.anchor_rank)
        shapes[f"{at}.anchor.basis"] = (boundary.anchor_rank, d)
    return shapes


def payload_shape(spec: RunSpec) -> tuple[int, int, int]:
    """(sequences, sequence_length, k) of every boundary tensor of the run."""
    return (spec.data.sequences, spec.data.sequence_length, spec.boundary_width)


def payload_size(spec: RunSpec) -> int:
    """Payload bytes of every boundary tensor of the run."""
    return wire_size(payload_shape(spec), spec.boundary.wire)


def wire_size(shape: tuple[int, int, int], dtype: WireDtype) -> int:
    """Bytes of a (sequences, sequence_length, k) tensor; INT8 has an fp32 scale for each token."""
    b, t, k = shape
    return b * t * (k * WIRE_BYTES[dtype] + (4 if dtype is WireDtype.INT8 else 0))
