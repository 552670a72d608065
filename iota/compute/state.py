"""State of a stage (weights and moments): its digests, and its file, which may be untrusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from iota.files import TensorFileError, check_tensors, whole_file
from iota.model.initial import initial_weights
from iota.model.layout import run_shapes
from iota.spec import RunSpec

_DIGEST = "blake3"
"""Metadata of a state on disk: the digest of its tensors, by which the owner notices a damaged file."""

_OTHER_DIGEST = "the state's tensors do not have the digest that was written with them"


@dataclass(frozen=True)
class StageState:
    """fp32 tensors by name. Empty moments mean moments and step counts of zero."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)
    before: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the version before, where the next STEP's gradient is taken; empty in the pipeline `sync`,
    and at a base."""

    @classmethod
    def initial(cls, spec: RunSpec, stage: int) -> StageState:
        """The state at a run's start: initial weights, no moments."""
        return cls(initial_weights(spec, stage))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE3 (hex) of names, shapes and raw little-endian bytes, sorted by name."""
    hasher = _hasher()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        hasher.update(_digest_head(name, tensor.shape))
        hasher.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def state_bytes(state: StageState) -> bytes:
    """The state as one safetensors file."""
    return safetensors.torch.save(_flat(state))


def save_state(state: StageState, path: Path) -> None:
    """Write the state with its digest to `path`. A crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = _flat(state)
    with whole_file(path, durable=True) as part:
        safetensors.torch.save_file(flat, part, metadata={_DIGEST: tensors_digest(flat)})


def load_state(source: bytes | Path, spec: RunSpec, stage: int) -> StageState:
    """Read a state of `stage`, and check it against the spec.

    Names, shapes, dtypes and extents are checked in the header, before any tensor is made. Then the tensors
    must have the digest that `save_state` wrote, if there is one; every value must be finite, and second
    moments and step counts not negative. Raises StateError.
    """
    try:
        file = check_tensors(source, *_layouts(spec, stage))
        if isinstance(source, Path):
            tensors = safetensors.torch.load_file(source)
        else:
            tensors = safetensors.torch.load(source)
    except (TensorFileError, SafetensorError, OSError) as error:
        raise StateError(f"the state is no file of this stage: {error}") from error
    if _DIGEST in file.metadata and file.metadata[_DIGEST] != tensors_digest(tensors):
        raise StateError(_OTHER_DIGEST)
    for name in sorted(tensors):
        _check_values(name, tensors[name])
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "moments": {}, "before": {}}
    for name in file.layout:
        group, _, parameter = name.partition(".")
        groups[group][parameter] = tensors[name]
    return StageState(**groups)


def check_intact(data: bytes, spec: RunSpec, stage: int) -> None:
    """Check that bytes that `save_state` wrote still are a state of `stage` with the digest that it wrote.

    No tensor is made and no value is looked at. Raises StateError.
    """
    try:
        file = check_tensors(data, *_layouts(spec, stage))
    except TensorFileError as error:
        raise StateError(f"the state is no file of this stage: {error}") from error
    hasher, view = _hasher(), memoryview(data)
    for name in sorted(file.extents):
        start, stop = file.extents[name]
        hasher.update(_digest_head(name, file.layout[name]))
        hasher.update(view[start:stop])
    if file.metadata.get(_DIGEST) != hasher.hexdigest():
        raise StateError(_OTHER_DIGEST)


def _layouts(spec: RunSpec, stage: int) -> tuple[Shapes, ...]:
    """Shapes of a state's tensors by name: weights, with moments, with the weights of the version before."""
    shapes = run_shapes(spec, stage)
    weights = {f"weights.{name}": shape for name, shape in shapes.items()}
    moments = moment_shapes(spec.optimizer, shapes).items()
    whole = weights | {f"moments.{name}": shape for name, shape in moments}
    return weights, whole, whole | {f"before.{name}": shape for name, shape in shapes.items()}


def _hasher() -> blake3:
    return blake3(max_threads=max(1, torch.get_num_threads()))


def _digest_head(name: str, shape: Sequence[int]) -> bytes:
    return f"{name}\n{','.join(map(str, shape))}\n".encode()


def _flat(state: StageState) -> dict[str, Tensor]:
    flat = {f"weights.{name}": tensor for name, tensor in state.weights.items()}
    flat |= {f"moments.{name}": tensor for name, tensor in state.moments.items()}
    flat |= {f"before.{name}": tensor for name, tensor in state.before.items()}
    return {name: tensor.detach().contiguous().cpu() for name, tensor in sorted(flat.items())}


def _check_values(name: str, tensor: Tensor) -> None:
    if not bool(tensor.isfinite().all()):
        raise StateError(f"tensor {name!r} holds NaN or Inf")
    if name.startswith(("moments.exp_avg_sq.", "moments.step.")) and bool((tensor < 0).any()):
        raise StateError(f"tensor {name!r} holds negative values")
