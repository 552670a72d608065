"""A run narrowed to a bounded cost, for the suite of `iota.compute.fingerprint`. No torch."""

from __future__ import annotations

from typing import Final

from iota.spec import DataSpec, ModelSpec, RunSpec

MAX_WIDTH: Final = 1024
"""Width of the residual stream, where heads and codec permit it. A power of two, as kernels like them."""
MAX_FFN: Final = 2048
MAX_VOCABULARY: Final = 4096
MAX_TOKENS: Final = 256


def narrowed(spec: RunSpec) -> RunSpec:
    """The run with one layer a stage, and with bounded widths and tokens; all else as it is.

    The size of a head and the codec's ratio stay; so do the queries for each key, unless those of one key are
    too wide already. What is within the bounds stays too, so that small models are only made shorter.
    """
    values = spec.model_dump()
    stages = spec.layout.stages
    values["model"] |= _widths(spec.model, spec.boundary.ratio) | {"layers": stages}
    values["layout"] |= {"cuts": (1,) * stages}
    values["data"] |= _tokens(spec.data)
    if spec.data.eos_id is not None:
        values["data"]["eos_id"] = min(spec.data.eos_id, values["model"]["vocab_size"] - 1)
    return RunSpec.model_validate(values)


def _widths(model: ModelSpec, ratio: int) -> dict[str, int]:
    heads, kv_heads = _heads(model, ratio)
    return {
        "hidden_size": heads * model.head_dim,
        "heads": heads,
        "kv_heads": kv_heads,
        "ffn_size": min(model.ffn_size, MAX_FFN),
        "vocab_size": min(model.vocab_size, MAX_VOCABULARY),
    }


def _heads(model: ModelSpec, ratio: int) -> tuple[int, int]:
    """Heads, and those of keys: as many as `MAX_WIDTH` permits, of a width that the codec's ratio divides."""
    divisor = ratio if model.hidden_size % ratio == 0 else 1  # a codec that sends all channels has any ratio
    group = model.heads // model.kv_heads
    one_key = [(heads, 1) for heads in range(1, group)]
    same_group = [(keys * group, keys) for keys in range(1, model.kv_heads + 1)]
    possible = [found for found in one_key + same_group if found[0] * model.head_dim % divisor == 0]
    narrow = [found for found in possible if found[0] * model.head_dim <= MAX_WIDTH]
    return narrow[-1] if narrow else possible[0]


def _tokens(data: DataSpec) -> dict[str, int]:
    length = min(data.sequence_length, MAX_TOKENS)
    return {"sequence_length": length, "sequences": min(data.sequences, MAX_TOKENS // length)}
