"""Existing Llama-shaped weights in a folder of safetensors: the shape, and each tensor's file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from iota.hub import asking, model_folder
from iota.model.export import llama_name
from iota.model.layout import stage_shapes
from iota.model.rope import read_rope
from iota.model.schedules import schedule_for
from iota.settings.sentences import sentence
from iota.spec import ModelSpec
from iota.spec.draft import Draft, fix_model, value_at

Vector = npt.NDArray[np.float32]
_MAX_JSON: Final = 64 << 20
"""Bound of `config.json` and of the index of the weights' files."""
_INDEX: Final = "model.safetensors.index.json"
_PATTERNS: Final = ["config.json", _INDEX, "*.safetensors"]
DTYPES: Final = ("F32", "BF16", "F16")
"""Number formats of weights that are read; each value is exact in fp32."""


@dataclass(frozen=True)
class Pretrained:
    """Weights that a run may start from."""

    folder: Path
    source: str
    """Where they come from, for people: the folder's name, or NAME@COMMIT."""
    model: ModelSpec
    max_positions: int
    """Longest sequence that the model was made for."""
    tied: bool
    """Whether the head is the embedding. In a run it is a matrix of its own, which begins as a copy."""
    files: Mapping[str, str]
    """The file of each tensor, by the tensor's name there."""

    def place(self, name: str) -> tuple[Path, str]:
        """The file and the name there of a run's parameter, such as `layers.0.mlp.up_proj.weight`."""
        there = llama_name("embed.weight" if self.tied and name == "head.weight" else name)
        return self.folder / self.files[there], there

    def pieces(self, name: str) -> Iterator[Vector]:
        """A parameter of a run in fp32, flat, whole. Raises ValueError where it is not finite."""
        path, there = self.place(name)
        with safe_open(path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(there).float()
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{there} in {path} holds NaN or infinity: fetch the weights again")
        yield tensor.reshape(-1).numpy()

    def draft(self, given: Draft) -> Draft:
        """The values that these weights fix or bound. Raises ValueError where `given` has others."""
        fixed = self.model.model_dump()
        fix_model(fixed, given, "the weights of --init fix")
        length = value_at(given, "data.sequence_length")
        if length is None:
            length = min(schedule_for(self.model).sequence_length, self.max_positions)
        elif int(length) > self.max_positions:
            raise ValueError(
                f"data.sequence_length {length} is longer than the weights' max_position_embeddings"
                f" {self.max_positions}: give at most {self.max_positions}"
            )
        return {"model": fixed, "data": {"sequence_length": length}}


def find_pretrained(where: str) -> Pretrained:
    """The weights in the folder `where`, or of the model `NAME[@REVISION]` on the Hugging Face Hub.

    Raises:
        ValueError: they are not there, or not those of a Llama that a run can train.
        HubAway: the Hub cannot answer now.
    """
    folder = Path(where).expanduser()
    if folder.is_dir():
        return _opened(folder, folder.resolve().name)
    name, _, revision = where.partition("@")
    if where.count("/") != 1 or where.startswith(("/", ".", "~")):
        raise ValueError(f"--init {where}: there is no such folder, and it is no NAME[@REVISION] on the Hub")
    with asking(f"--init {where}", "check the name and its revision"):
        got = model_folder(name, revision or None, _PATTERNS)
    return _opened(got, f"{name}@{got.name}")


def _opened(folder: Path, source: str) -> Pretrained:
    config = _json(folder / "config.json")
    model = _shape(config, folder)
    tied = bool(config.get("tie_word_embeddings", False))
    positions = config.get("max_position_embeddings", 0)
    if not isinstance(positions, int):
        raise ValueError(
            f"{folder / 'config.json'} has max_position_embeddings {positions!r}: fetch the weights again"
        )
    found = Pretrained(folder, source[:200], model, positions, tied, _files(folder))
    wanted = stage_shapes(model, (model.layers,), 0)
    for name, shape in wanted.items():
        _check_tensor(found, name, shape)
    known = {found.place(name)[1] for name in wanted} | {"lm_head.weight"}
    # Old exports store the rotary frequencies, which follow from the configuration.
    if other := sorted(n for n in found.files.keys() - known if not n.endswith("rotary_emb.inv_freq")):
        raise ValueError(
            f"{folder} holds {other[0]}, which a plain Llama does not have: choose another model"
        )
    return found


def _shape(config: Mapping[str, Any], folder: Path) -> ModelSpec:
    """The shape in a `config.json`. Raises ValueError for what the stages of a run cannot compute."""
    where = folder / "config.json"
    for unsupported, what in (
        (
            config.get("model_type") != "llama",
            f"model_type {config.get('model_type')!r}, and only llama is read",
        ),
        (config.get("attention_bias"), "attention_bias, which is not supported"),
        (config.get("mlp_bias"), "mlp_bias, which is not supported"),
        (
            config.get("hidden_act", "silu") != "silu",
            f"hidden_act {config.get('hidden_act')!r}, and only silu is read",
        ),
        (config.get("quantization_config"), "quantization_config: give weights that are not quantized"),
    ):
        if unsupported:
            raise ValueError(f"{where} has {what}: choose another model")
    try:
        theta, scaling = read_rope(config)
    except ValueError as error:
        raise ValueError(f"{where} has {error}: choose another model") from None
    try:
        heads = config["num_attention_heads"]
        model = ModelSpec(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            ffn_size=config["intermediate_size"],
            rope_theta=theta,
            norm_eps=config.get("rms_norm_eps", 1e-6),
            init_std=config.get("initializer_range", 0.02),
            rope_scaling=scaling,
        )
    except KeyError as error:
        raise ValueError(f"{where} does not say {error}: it is no Llama's") from None
    except ValidationError as error:
        raise ValueError(f"{where} is no Llama's: {sentence(error)}") from None
    if config.get("head_dim") not in (None, model.head_dim):
        raise ValueError(
            f"{where} has head_dim {config['head_dim']}, which is not hidden_size / num_attention_heads:"
            " choose another model"
        )
    return model


def _files(folder: Path) -> dict[str, str]:
    """The file of each tensor, from the index or from the one file."""
    if (folder / _INDEX).exists():
        index = _json(folder / _INDEX).get("weight_map")
        if not isinstance(index, Mapping):
            raise ValueError(f"{folder / _INDEX} has no weight_map: fetch the weights again")
        files = {str(name): str(file) for name, file in index.items()}
    else:
        with _reading(folder / "model.safetensors") as file:
            files = dict.fromkeys(file.keys(), "model.safetensors")
    if outside := next((file for file in files.values() if Path(file).name != file), None):
        raise ValueError(f"{folder / _INDEX} names {outside!r}, which is no file of that folder")
    return files


def _check_tensor(found: Pretrained, name: str, shape: tuple[int, ...]) -> None:
    try:
        path, there = found.place(name)
    except KeyError as error:
        raise ValueError(f"{found.folder} holds no {error}: fetch the weights again") from None
    with _reading(path) as file:
        if there not in file.keys():  # noqa: SIM118 - no mapping
            raise ValueError(f"{path} holds no {there}: fetch the weights again")
        tensor = file.get_slice(there)
        if tuple(tensor.get_shape()) != shape or tensor.get_dtype() not in DTYPES:
            raise ValueError(
                f"{there} in {path} is {tensor.get_dtype()} {list(tensor.get_shape())}, and config.json needs"
                f" {list(shape)} in {', '.join(DTYPES)}"
            )


def _reading(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch the weights again") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_JSON + 1)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): give a folder with a model's files"
        ) from None
    if len(data) > _MAX_JSON:
        raise ValueError(f"{path} is larger than such a file can be: fetch the weights again")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON: fetch the weights again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no JSON object: fetch the weights again")
    return found
