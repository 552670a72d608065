"""State of a stage (weights and moments): its digests, and its file, which may be untrusted."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from blake3 import blake3
from safetensors import SafetensorError
from torch import Tensor

from iota.codec.shapes import Shapes
from iota.compute.errors import StateError
from iota.compute.optim import moment_shapes
from iota.files import whole_file
from iota.model.initial import initial_weights
from iota.model.layout import run_shapes
from iota.spec import RunSpec

_LENGTH = struct.Struct("<Q")
_HEADER_LIMIT = 64 << 20
"""Bound of the untrusted JSON that is parsed. A header has less than a kilobyte for each parameter."""


@dataclass(frozen=True)
class StageState:
    """fp32 tensors by name. Empty moments mean moments and step counts of zero."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def initial(cls, spec: RunSpec, stage: int) -> StageState:
        """The state at a run's start: initial weights, no moments."""
        return cls(initial_weights(spec, stage))

    @property
    def weights_digest(self) -> str:
        """`tensors_digest` of the weights, as in the receipt of a STEP."""
        return tensors_digest(self.weights)

    @property
    def moments_digest(self) -> str:
        """`tensors_digest` of the moments, as in the receipt of a STEP."""
        return tensors_digest(self.moments)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE3 (hex) of names, shapes and raw little-endian bytes, sorted by name."""
    hasher = blake3(max_threads=max(1, torch.get_num_threads()))
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        hasher.update(f"{name}\n{','.join(map(str, tensor.shape))}\n".encode())
        hasher.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def state_bytes(state: StageState) -> bytes:
    """The state as one safetensors file."""
    return safetensors.torch.save(_flat(state))


def save_state(state: StageState, path: Path) -> None:
    """Write the state to `path`. A crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, durable=True) as part:
        safetensors.torch.save_file(_flat(state), part)


def load_state(source: bytes | Path, spec: RunSpec, stage: int) -> StageState:
    """Read a state of `stage`, and check it against the spec.

    Names, shapes and dtypes are checked in the header, before any tensor is made. Then every value must be
    finite, and second moments and step counts not negative. Raises StateError.
    """
    weights = run_shapes(spec, stage)
    moments = moment_shapes(spec.optimizer, weights)
    expected = {f"weights.{name}": shape for name, shape in weights.items()}
    with_moments = expected | {f"moments.{name}": shape for name, shape in moments.items()}
    found, size = _header(source)
    allowed = expected if found.keys() == expected.keys() else with_moments
    _check_header(found, allowed, size)
    try:
        if isinstance(source, Path):
            tensors = safetensors.torch.load_file(source)
        else:
            tensors = safetensors.torch.load(source)
    except SafetensorError as error:
        raise StateError(f"not a safetensors file: {error}") from error
    for name in sorted(tensors):
        _check_values(name, tensors[name])
    return StageState(
        weights={name: tensors[f"weights.{name}"] for name in weights},
        moments={name: tensors[f"moments.{name}"] for name in moments} if allowed is with_moments else {},
    )


def _flat(state: StageState) -> dict[str, Tensor]:
    flat = {f"weights.{name}": tensor for name, tensor in state.weights.items()}
    flat |= {f"moments.{name}": tensor for name, tensor in state.moments.items()}
    return {name: tensor.detach().contiguous().cpu() for name, tensor in sorted(flat.items())}


def _header(source: bytes | Path) -> tuple[dict[str, object], int]:
    """Entries of the safetensors header, and bytes of data after it."""
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            length = _header_length(file.read(_LENGTH.size), size)
            text = file.read(length)
    except OSError as error:
        raise StateError(f"the state file cannot be read: {error.strerror}") from error
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateError("the state's header is not JSON") from error
    if not isinstance(entries, dict):
        raise StateError("the state's header is not an object")
    entries.pop("__metadata__", None)
    return entries, size - _LENGTH.size - length


def _header_length(start: bytes, size: int) -> int:
    if len(start) < _LENGTH.size:
        raise StateError("the state is shorter than a header")
    length = int(_LENGTH.unpack(start)[0])
    if length > min(_HEADER_LIMIT, size - _LENGTH.size):
        raise StateError(f"the state's header claims {length} bytes of a file of {size}")
    return length


def _check_header(found: Mapping[str, object], expected: Shapes, size: int) -> None:
    wrong = sorted(found.keys() ^ expected.keys())
    if wrong:
        raise StateError(f"the state has other tensors than this stage: {', '.join(map(repr, wrong[:5]))}")
    for name, shape in expected.items():
        entry = found[name]
        if not isinstance(entry, dict) or entry.get("dtype") != "F32" or entry.get("shape") != list(shape):
            raise StateError(f"tensor {name!r} is not fp32 of shape {list(shape)}")
    total = 4 * sum(math.prod(shape) for shape in expected.values())
    if size != total:
        raise StateError(f"the state holds {size} bytes of data where this stage has {total}")


def _check_values(name: str, tensor: Tensor) -> None:
    if not bool(tensor.isfinite().all()):
        raise StateError(f"tensor {name!r} holds NaN or Inf")
    if name.startswith(("moments.exp_avg_sq.", "moments.step.")) and bool((tensor < 0).any()):
        raise StateError(f"tensor {name!r} holds negative values")
