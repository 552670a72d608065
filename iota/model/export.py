"""Export to transformers: weights, configuration, tokenizer and the code to run them.

The directory loads with `AutoModelForCausalLM.from_pretrained(OUT, trust_remote_code=True)` on a
machine that has never heard of this package.
"""

from __future__ import annotations

import inspect
import json
import math
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
from torch import Tensor

from iota.codec import open_codec
from iota.codec.boundary_codec import BoundaryCodec, Side
from iota.codec.shapes import boundary_width
from iota.files import whole_folder
from iota.model.layout import count, run_shapes
from iota.spec import RunSpec

SHARD_BYTES = 4 << 30
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
    """Write the model to `out`, which appears complete or not at all.

    Stages are read one after the other, and at most one shard is held beside them. `tokenizer_writer`
    puts its files into the directory it is given. Raises ValueError for an `out` that holds files, or
    for weights that are not this run's.
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
    """The name of a parameter in the exported model."""
    if name == "head.weight":
        return "lm_head.weight"
    if name == "embed.weight":
        return "model.embed_tokens.weight"
    if name.startswith("boundary."):
        return "model.boundaries." + name.removeprefix("boundary.")
    return f"model.{name}"


@dataclass
class _Shards:
    """Tensors in files of bounded size; how many there are is known before the first is written."""

    directory: Path
    files: list[str]
    limit: int
    pending: dict[str, Tensor] = field(default_factory=dict)
    size: int = 0
    index: dict[str, str] = field(default_factory=dict)
    written: int = 0

    def add(self, name: str, tensor: Tensor) -> None:
        weight = 4 * tensor.numel()
        if self.pending and self.size + weight > self.limit:
            self.flush()
        self.pending[name] = tensor.detach().contiguous().cpu()
        self.size += weight

    def flush(self) -> None:
        file = self.files[self.written]
        safetensors.torch.save_file(self.pending, self.directory / file, metadata={"format": "pt"})
        self.index |= dict.fromkeys(self.pending, file)
        self.pending, self.size = {}, 0
        self.written += 1


def _write_weights(
    spec: RunSpec, weights_by_stage: Iterable[Mapping[str, Tensor]], directory: Path, limit: int
) -> None:
    stages = range(spec.layout.stages)
    shapes = [run_shapes(spec, stage) for stage in stages]
    sizes = [4 * math.prod(shape) for stage in shapes for shape in stage.values()]
    total = len(list(_bins(sizes, limit)))
    names = [f"model-{i + 1:05d}-of-{total:05d}.safetensors" for i in range(total)]
    shards = _Shards(directory, names if total > 1 else ["model.safetensors"], limit)
    found = 0
    for stage, weights in enumerate(weights_by_stage):
        found += 1
        expected = shapes[stage] if stage < len(shapes) else {}
        if {name: tuple(w.shape) for name, w in weights.items()} != expected:
            raise ValueError(f"the weights of stage {stage} are not those of this run's stage {stage}")
        for name in expected:
            shards.add(exported_name(name), weights[name].float())
    if found != len(shapes):
        raise ValueError(f"weights of {found} stages given, the run has {len(shapes)}")
    shards.flush()
    if total > 1:
        size = 4 * sum(count(stage) for stage in shapes)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(shards.index.items()))}
        _write_json(directory / "model.safetensors.index.json", index)


def _bins(sizes: list[int], limit: int) -> Iterator[int]:
    """Sizes of the files that `_Shards` will write."""
    filled = 0
    for size in sizes:
        if filled and filled + size > limit:
            yield filled
            filled = 0
        filled += size
    yield filled


def _codec_module(codec: BoundaryCodec) -> str:
    """The codec's own two functions as a module: an export runs the code that it was trained with."""
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
    # a document ends where padding may begin: the same token serves for both
    tokens = {} if eos_token is None else {"eos_token_id": eos_token, "pad_token_id": eos_token}
    return {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "use_cache": True, **tokens}


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
