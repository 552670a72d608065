"""State of a stage (weights and moments): its digests, and its file, which may be untrusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from blake3 import blake3
from safetensors import SafetensorError
from torch import Tensor

from iota.codec.shapes import Shapes
from iota.compute.commitment import commitment, leaves, moments_part_bytes, tensor_bytes
from iota.compute.errors import StateError
from iota.compute.moment_codes import largest
from iota.compute.moments import TORCH_DTYPES, is_scale, make_moments
from iota.files import TensorFile, TensorFileError, check_tensors, whole_file, write_tensors
from iota.model.initial import initial_weights
from iota.model.layout import run_shapes
from iota.model.moment_layout import moment_forms
from iota.model.tensor_dtype import TensorDtype
from iota.model.weight_dtype import as_weights
from iota.protocol.merkle import merkle_root
from iota.protocol.receipts import Commitment
from iota.spec import RunSpec

_GROUPS = ("weights", "moments", "before")
"""Groups of a state's tensors. The metadata of a file on disk has the Merkle root of each, by which its owner
notices damage."""
_NEVER_NEGATIVE = ("moments.exp_avg_sq.", "moments.step.")
_HEADER_DTYPES = {torch_dtype: dtype for dtype, torch_dtype in TORCH_DTYPES.items()}
_OTHER_ROOTS = "the state's tensors do not have the roots that were written with them"


@dataclass(frozen=True)
class StageState:
    """Tensors by name: weights in the run's weight dtype (`iota.model.weight_dtype`), moments in those of
    `iota.model.moment_layout`.

    Empty moments mean moments and step counts of zero.
    """

    weights: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)
    before: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the version before, where the next STEP's gradient is taken; empty in the pipeline `sync`,
    and at a base."""

    @classmethod
    def initial(cls, spec: RunSpec, stage: int) -> StageState:
        """The state at a run's start: initial weights, no moments."""
        return cls(as_weights(spec, initial_weights(spec, stage)))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE3 (hex) of names, shapes and raw little-endian bytes, sorted by name."""
    hasher = blake3()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        hasher.update(f"{name}\n{','.join(map(str, tensor.shape))}\n".encode())
        hasher.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def state_bytes(state: StageState) -> bytes:
    """The state as one safetensors file."""
    return safetensors.torch.save({n: t.detach().contiguous().cpu() for n, t in _named(state).items()})


def zero_moments(spec: RunSpec, stage: int) -> dict[str, Tensor]:
    """The moments and step counts of a stage before its first step, sorted by name."""
    return make_moments(moment_forms(spec.optimizer, run_shapes(spec, stage)), torch.device("cpu"))


def save_state(state: StageState, path: Path, roots: Commitment) -> None:
    """Write the state, on the CPU, with the commitment to it. A crash leaves the old file or the new one.

    Raises OSError; the old file, if there is one, then stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = dict(sorted(_named(state).items(), key=_place))
    layout = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    dtypes = {name: _HEADER_DTYPES[tensor.dtype] for name, tensor in tensors.items()}
    with whole_file(path, durable=True) as part, part.open("wb") as file:
        write_tensors(file, layout, _metadata(roots), map(tensor_bytes, tensors.values()), dtypes)


def load_state(source: bytes | Path, spec: RunSpec, stage: int) -> StageState:
    """Read a state of `stage`, and check it against the spec.

    Names, shapes, dtypes and extents are checked in the header, before any tensor is made. Every value must
    be finite, and second moments, scales and step counts not negative. The tensors of a file on disk must
    have the roots that `save_state` wrote; of bytes a receipt says what they must be. Raises StateError.
    """
    try:
        file = _checked_header(source, spec, stage)
        if isinstance(source, Path):
            tensors = safetensors.torch.load_file(source)
        else:
            tensors = safetensors.torch.load(source)
    except (TensorFileError, SafetensorError, OSError) as error:
        raise StateError(f"the state is no file of this stage: {error}") from error
    for name in sorted(tensors):
        _check_values(name, tensors[name])
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    for name in file.layout:
        group, _, parameter = name.partition(".")
        groups[group][parameter] = tensors[name]
    state = StageState(**groups)
    if isinstance(source, Path) and file.metadata != _metadata(commitment(state, spec.outer.part_elements)):
        raise StateError(_OTHER_ROOTS)
    return state


def check_intact(data: bytes, spec: RunSpec, stage: int) -> None:
    """Check that bytes that `save_state` wrote still are a state of `stage` with the roots that it wrote.

    No tensor is made and no value is looked at. Raises StateError.
    """
    try:
        file = _checked_header(data, spec, stage)
    except TensorFileError as error:
        raise StateError(f"the state is no file of this stage: {error}") from error
    weights = spec.precision.weight_bytes * spec.outer.part_elements
    parts = {"moments": moments_part_bytes(spec.outer.part_elements)}
    found = {group: leaves(_extents(data, file, group), parts.get(group, weights)) for group in _GROUPS}
    roots = {group: merkle_root(digests) for group, digests in found.items()}
    if file.metadata != roots:
        raise StateError(_OTHER_ROOTS)


def _place(named: tuple[str, Tensor]) -> tuple[int, str]:
    """Where a tensor stands in a file: wide elements first, so that each is aligned."""
    name, tensor = named
    return -tensor.element_size(), name


def _metadata(roots: Commitment) -> dict[str, str]:
    return {"weights": roots.weights, "moments": roots.moments, "before": roots.before}


def _extents(data: bytes, file: TensorFile, group: str) -> Iterator[memoryview]:
    """The bytes of a group's tensors, in the order of their names."""
    for name in sorted(name for name in file.layout if name.startswith(f"{group}.")):
        start, stop = file.extents[name]
        yield memoryview(data)[start:stop]


def _checked_header(source: bytes | Path, spec: RunSpec, stage: int) -> TensorFile:
    """Raises TensorFileError unless the header is that of a state of `stage`."""
    weights = run_shapes(spec, stage)
    moments = moment_forms(spec.optimizer, weights)
    layouts = _layouts(weights, {name: form.shape for name, form in moments.items()})
    dtypes = {f"moments.{name}": form.dtype for name, form in moments.items()}
    if spec.precision.holds_bf16:
        dtypes |= {f"{group}.{name}": TensorDtype.BF16 for group in ("weights", "before") for name in weights}
    return check_tensors(source, *layouts, dtypes=dtypes)


def _layouts(shapes: Shapes, moments: Shapes) -> tuple[Shapes, ...]:
    """Shapes of a state's tensors by name: weights, with moments, with the weights of the version before."""
    weights = {f"weights.{name}": shape for name, shape in shapes.items()}
    whole = weights | {f"moments.{name}": shape for name, shape in moments.items()}
    return weights, whole, whole | {f"before.{name}": shape for name, shape in shapes.items()}


def _named(state: StageState) -> dict[str, Tensor]:
    """All tensors of a state under the names that they have in a file, sorted."""
    named = {f"weights.{name}": tensor for name, tensor in state.weights.items()}
    named |= {f"moments.{name}": tensor for name, tensor in state.moments.items()}
    named |= {f"before.{name}": tensor for name, tensor in state.before.items()}
    return dict(sorted(named.items()))


def _check_values(name: str, tensor: Tensor) -> None:
    """Codes of moments may be any: with scales that are in order they are finite, and none is negative."""
    moment = name.removeprefix("moments.")
    scale = moment != name and is_scale(moment)
    values = largest(tensor) if scale else tensor
    if not bool(values.isfinite().all()):
        raise StateError(f"tensor {name!r} holds NaN or Inf{', or scales for such' if scale else ''}")
    if (scale or name.startswith(_NEVER_NEGATIVE)) and bool((tensor < 0).any()):
        raise StateError(f"tensor {name!r} holds negative values")
