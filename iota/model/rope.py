"""Rotary parameters in the words of a `config.json`, to and from the RunSpec's. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from iota.settings.sentences import sentence
from iota.spec import ModelSpec, RopeScaling

_NAMES: Final = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_positions": "original_max_position_embeddings",
}
"""Each field of a `RopeScaling`, and its name there."""


def rope_parameters(model: ModelSpec) -> dict[str, Any]:
    """`rope_parameters` of a configuration of `transformers`."""
    scaling = model.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": model.rope_theta}
    values = {there: getattr(scaling, ours) for ours, there in _NAMES.items()}
    return {"rope_type": "llama3", "rope_theta": model.rope_theta, **values}


def read_rope(config: Mapping[str, Any]) -> tuple[Any, RopeScaling | None]:
    """Base and scaling of the rotary frequencies in a `config.json`; the base as it stands there.

    Raises:
        ValueError: scaling of another kind than `llama3`, or with other values than it can have.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"rope scaling ({rope}), which is not supported")
    theta = rope.get("rope_theta") or config.get("rope_theta", 10_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(f"rope scaling ({kind}), which is not supported")
    if (rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1) != 1:
        raise ValueError("partial_rotary_factor, which is not supported")
    values = {ours: rope[there] for ours, there in _NAMES.items() if there in rope}
    if missing := [_NAMES[ours] for ours in _NAMES.keys() - values.keys()]:
        raise ValueError(f"rope scaling (llama3) without {min(missing)}")
    try:
        return theta, RopeScaling.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"rope scaling (llama3) that cannot be: {sentence(error)}") from None
