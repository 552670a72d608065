"""Parameter shapes of a run's codec, and sizes of its payloads. No torch."""

from __future__ import annotations

from iota.codec.boundary_codec import CodecParameter, Side
from iota.codec.registry import open_codec
from iota.codec.wire_dtype import wire_size
from iota.spec import BoundarySpec, ModelSpec, RunSpec

Shapes = dict[str, tuple[int, ...]]
"""Shape of each parameter, by name."""


def boundary_parameters(
    model: ModelSpec, boundary: BoundarySpec, stage: int, stages: int
) -> dict[str, CodecParameter]:
    """Codec parameters of `stage` by global name: of the decoder before it and the encoder after it.

    Boundary b is between stages b and b+1.
    """
    codec = open_codec(boundary.codec)
    sides = {Side.DECODE: stage - 1, Side.ENCODE: stage}
    return {
        f"boundary.{index}.{side}.{name}": parameter
        for side, index in sides.items()
        if 0 <= index < stages - 1
        for name, parameter in codec.parameters(side, model, boundary).items()
    }


def boundary_width(spec: RunSpec) -> int:
    """k, the channels that cross a boundary. Raises ValueError if the codec does not fit the model."""
    return open_codec(spec.boundary.codec).width(spec.model, spec.boundary)


def payload_shape(spec: RunSpec) -> tuple[int, int, int]:
    """Shape (sequences, sequence_length, k) of the run's boundary tensors."""
    return (spec.data.sequences, spec.data.sequence_length, boundary_width(spec))


def payload_size(spec: RunSpec) -> int:
    """Bytes of the run's boundary tensors on the wire, without a frame's header."""
    return wire_size(payload_shape(spec), spec.boundary.wire)
