"""Export to `transformers`: weights, configuration and modeling code.

The directory loads with `AutoModelForCausalLM.from_pretrained(OUT, trust_remote_code=True)`, without this
package. Where the boundaries compress nothing, it is a plain `LlamaForCausalLM`.
"""

from __future__ import annotations

import inspect
import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from iota.codec import open_codec
from iota.codec.boundary_codec import BoundaryCodec
from iota.codec.shapes import Shapes
from iota.console.counts import counted
from iota.files import whole_folder
from iota.model.exported_config import (
    TRANSFORMERS,
    boundary_layers,
    generation_config,
    is_plain_llama,
    model_config,
    weight_bytes,
)
from iota.model.layout import run_shapes
from iota.spec import RunSpec

SHARD_BYTES = 4 << 30
"""Bound of one file of weights, which is also the memory that an export needs beside one stage."""
_TEMPLATE = "modeling_iota.py"
_CODEC_MODULE = "boundary_codec.py"


def check_target(out: Path) -> None:
    """Raises ValueError if `out` exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty: give a new directory")


def export_model(
    spec: RunSpec,
    weights_by_stage: Iterable[Mapping[str, Tensor]],
    write_rest: Callable[[Path], None],
    out: Path,
    *,
    eos_token: int,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model to the folder `out`, in one step when it is complete.

    Args:
        weights_by_stage: each stage's weights by name, read one stage at a time.
        write_rest: writes further files (tokenizer, model card) to the folder that it is given, at the end.
        eos_token: id between documents, which begins and ends a generated text.
        shard_bytes: bound of one file of weights.

    Raises:
        ValueError: if `out` has files, or the weights' names or shapes are not the run's.
    """
    check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out) as work:
        _write_weights(spec, weights_by_stage, work, shard_bytes)
        _write_json(work / "config.json", model_config(spec, eos_token))
        _write_json(work / "generation_config.json", generation_config(eos_token))
        if not is_plain_llama(spec):
            shutil.copyfile(Path(__file__).with_name(_TEMPLATE), work / _TEMPLATE)
            (work / _CODEC_MODULE).write_text(_codec_module(open_codec(spec.boundary.codec)))
        write_rest(work)


def exported_name(spec: RunSpec, name: str) -> str:
    """Name of a run's parameter in the exported model."""
    if name.startswith("boundary."):
        _, boundary, rest = name.split(".", 2)
        return f"model.layers.{boundary_layers(spec)[int(boundary)]}.boundary.{rest}"
    return llama_name(name)


def llama_name(name: str) -> str:
    """Name of a parameter of the model, and not of a codec, in a Llama of `transformers`."""
    if name == "head.weight":
        return "lm_head.weight"
    return "model.embed_tokens.weight" if name == "embed.weight" else f"model.{name}"


def _write_weights(
    spec: RunSpec, weights_by_stage: Iterable[Mapping[str, Tensor]], directory: Path, limit: int
) -> None:
    shapes = [run_shapes(spec, stage) for stage in range(spec.layout.stages)]
    exported = {exported_name(spec, n): s for stage in shapes for n, s in stage.items()}
    files = _assign_files(exported, limit)
    tensors_in = Counter(files.values())
    pending: dict[str, Tensor] = {}
    found = 0
    for stage, weights in enumerate(weights_by_stage):
        found += 1
        expected = shapes[stage] if stage < len(shapes) else {}
        if {name: tuple(w.shape) for name, w in weights.items()} != expected:
            raise ValueError(f"the weights of stage {stage} are not those of this run's stage {stage}")
        for name in expected:
            key = exported_name(spec, name)
            pending[key] = weights[name].float().detach().contiguous().cpu()
            if len(pending) == tensors_in[files[key]]:
                _save(pending, directory / files[key])
                pending = {}
        # Copies, since views would keep the whole stage in memory beside the next one.
        pending = {name: tensor.clone() for name, tensor in pending.items()}
    if found != len(shapes):
        raise ValueError(f"weights of {counted(found, 'stage')} given, the run has {len(shapes)}")
    if len(tensors_in) > 1:
        size = sum(map(weight_bytes, exported.values()))
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
        _write_json(directory / "model.safetensors.index.json", index)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file with the permissions of any other new file; the library's own are 600."""
    path.touch()
    mode = path.stat().st_mode
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


def _assign_files(shapes: Shapes, limit: int) -> dict[str, str]:
    """The file of each tensor. Files take consecutive tensors, up to `limit` bytes or one tensor."""
    numbers: dict[str, int] = {}
    number, filled = 1, 0
    for name, shape in shapes.items():
        size = weight_bytes(shape)
        if filled and filled + size > limit:
            number, filled = number + 1, 0
        filled += size
        numbers[name] = number
    if number == 1:
        return dict.fromkeys(numbers, "model.safetensors")
    return {name: f"model-{n:05d}-of-{number:05d}.safetensors" for name, n in numbers.items()}


def _codec_module(codec: BoundaryCodec) -> str:
    """Source of a module with the codec's encode and decode: an export runs the code that trained it."""
    functions = [textwrap.dedent(inspect.getsource(f)) for f in (codec.encode, codec.decode)]
    parts = [
        f'"""The boundary codec `{codec.name}`, and the versions of transformers for this model."""\n\n'
        "from __future__ import annotations\n\n"
        f"TRANSFORMERS = {TRANSFORMERS!r}\n",
        *(function.removeprefix("@staticmethod\n") for function in functions),
    ]
    return "\n\n".join(parts)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
