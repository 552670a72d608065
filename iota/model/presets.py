"""Named model shapes, from one that trains in a second to Orion-100B."""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import ValidationError

from iota.settings.sentences import sentence
from iota.spec import ModelSpec

BYTE_VOCABULARY = 257
"""256 byte values and one end-of-document token."""
_LLAMA_VOCABULARY = 128_256


def _shape(d: int, layers: int, heads: int, kv_heads: int, ffn: int, vocabulary: int) -> ModelSpec:
    return ModelSpec(
        vocab_size=vocabulary, hidden_size=d, layers=layers, heads=heads, kv_heads=kv_heads, ffn_size=ffn
    )


PRESETS: dict[str, ModelSpec] = {
    "tiny": _shape(128, 4, 4, 2, 352, BYTE_VOCABULARY),
    "small": _shape(256, 6, 8, 4, 704, BYTE_VOCABULARY),
    "nano-20m": _shape(384, 10, 6, 2, 1024, 8_192),
    "nano-100m": _shape(768, 12, 12, 4, 2048, 32_768),
    "llama-1b": _shape(2048, 16, 32, 8, 8192, _LLAMA_VOCABULARY),
    "llama-8b": _shape(4096, 32, 32, 8, 14_336, _LLAMA_VOCABULARY),
    "orion-100b": _shape(9216, 90, 72, 8, 32_256, _LLAMA_VOCABULARY),
}


def load_model(name: str | Path, vocab_size: int | None = None) -> ModelSpec:
    """The preset `name`, or the ModelSpec in the JSON file of that path.

    `vocab_size` replaces the shape's own; it must be at least the tokenizer's. Raises ValueError for an
    unknown preset, naming similar ones, and for a file that is not a valid shape.
    """
    text = str(name)
    if text in PRESETS:
        model = PRESETS[text]
    elif text.endswith(".json"):
        model = _read(Path(text))
    else:
        near = difflib.get_close_matches(text, PRESETS, n=3, cutoff=0.4) or list(PRESETS)
        raise ValueError(f"no model is called {text!r}: did you mean {', '.join(near)}, or a .json file?")
    if vocab_size is None:
        return model
    return ModelSpec.model_validate({**model.model_dump(), "vocab_size": vocab_size})


def _read(path: Path) -> ModelSpec:
    try:
        return ModelSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"the model file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ValueError(f"the model file {path} is not a model shape: {sentence(error)}") from error
