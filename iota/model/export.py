"""Export to `transformers`: weights, configuration, tokenizer and modeling code.

The directory loads with `AutoModelForCausalLM.from_pretrained(OUT, trust_remote_code=True)`, without this
package.
"""

from __future__ import annotations

import inspect
import json
import math
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from iota.codec import open_codec
from iota.codec.boundary_codec import BoundaryCodec, Side
from iota.codec.shapes import Shapes, boundary_width
from iota.files import whole_folder
from iota.model.layout import count, run_shapes
from iota.spec import RunSpec

SHARD_BYTES = 4 << 30
"""Bound of one file of weights, which is also the memory that an export needs beside one stage."""
_TEMPLATE = "modeling_iota.py"
_CODEC_MODULE = "boundary_codec.py"


def export_model(
    spec: RunSpec,
    weights_by_stage: Iterable[Mapping[str, Tensor]],
    tokenizer_writer: Callable[[Path], None],
    out: Path,
    *,
    eos_token: int | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model to the folder `out`, in one step when it is complete.

    Args:
        weights_by_stage: each stage's weights by name, read one stage at a time.
        tokenizer_writer: writes the tokenizer's files to the folder that it is given.
        eos_token: id that ends a generated text.
        shard_bytes: bound of one file of weights.

    Raises:
        ValueError: if `out` has files, or the weights' names or shapes are not the run's.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty: give a new directory")
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out) as work:
        _write_weights(spec, weights_by_stage, work, shard_bytes)
        _write_json(work / "config.json", _config(spec, eos_token))
        _write_json(work / "generation_config.json", _generation(eos_token))
        shutil.copyfile(Path(__file__).with_name(_TEMPLATE), work / _TEMPLATE)
        (work / _CODEC_MODULE).write_text(_codec_module(open_codec(spec.boundary.codec)))
        tokenizer_writer(work)


def exported_name(name: str) -> str:
    """Name of a run's parameter in the exported model."""
    if name == "head.weight":
        return "lm_head.weight"
    if name == "embed.weight":
        return "model.embed_tokens.weight"
    if name.startswith("boundary."):
        return "model.boundaries." + name.removeprefix("boundary.")
    return f"model.{name}"


def _write_weights(
    spec: RunSpec, weights_by_stage: Iterable[Mapping[str, Tensor]], directory: Path, limit: int
) -> None:
    shapes = [run_shapes(spec, stage) for stage in range(spec.layout.stages)]
    files = _assign_files({exported_name(n): s for stage in shapes for n, s in stage.items()}, limit)
    tensors_in = Counter(files.values())
    pending: dict[str, Tensor] = {}
    found = 0
    for stage, weights in enumerate(weights_by_stage):
        found += 1
        expected = shapes[stage] if stage < len(shapes) else {}
        if {name: tuple(w.shape) for name, w in weights.items()} != expected:
            raise ValueError(f"the weights of stage {stage} are not those of this run's stage {stage}")
        for name in expected:
            exported = exported_name(name)
            pending[exported] = weights[name].float().detach().contiguous().cpu()
            file = files[exported]
            if len(pending) == tensors_in[file]:
                safetensors.torch.save_file(pending, directory / file, metadata={"format": "pt"})
                pending = {}
    if found != len(shapes):
        raise ValueError(f"weights of {found} stages given, the run has {len(shapes)}")
    if len(tensors_in) > 1:
        size = 4 * sum(count(stage) for stage in shapes)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
        _write_json(directory / "model.safetensors.index.json", index)


def _assign_files(shapes: Shapes, limit: int) -> dict[str, str]:
    """The file of each tensor. Files take consecutive tensors, up to `limit` bytes or one tensor."""
    numbers: dict[str, int] = {}
    number, filled = 1, 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
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
        f'"""The boundary codec `{codec.name}`."""\n\nfrom __future__ import annotations\n',
        *(function.removeprefix("@staticmethod\n") for function in functions),
    ]
    return "\n\n".join(parts)


def _config(spec: RunSpec, eos_token: int | None) -> dict[str, object]:
    model, boundary, cuts = spec.model, spec.boundary, spec.layout.cuts
    codec = open_codec(boundary.codec)
    sides = {side: codec.parameters(side, model, boundary) for side in Side}
    return {
        "architectures": ["IotaForCausalLM"],
        "model_type": "iota",
        "auto_map": {
            "AutoConfig": "modeling_iota.IotaConfig",
            "AutoModelForCausalLM": "modeling_iota.IotaForCausalLM",
        },
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": spec.data.sequence_length,
        "rms_norm_eps": model.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": model.init_std,
        "bos_token_id": None,
        "eos_token_id": eos_token,
        "dtype": "float32",
        "boundary_layers": [sum(cuts[: i + 1]) for i in range(len(cuts) - 1)],
        "boundary_codec": boundary.codec,
        "boundary_wire": boundary.wire.value,
        "boundary_width": boundary_width(spec),
        "boundary_parameters": {
            side: {name: p.shape for name, p in parameters.items()} for side, parameters in sides.items()
        },
        "iota_run": spec.id,
    }


def _generation(eos_token: int | None) -> dict[str, object]:
    # The vocabulary has no padding token; EOS serves as one.
    tokens = {} if eos_token is None else {"eos_token_id": eos_token, "pad_token_id": eos_token}
    return {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "use_cache": True, **tokens}


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
