"""What each measure for speed is worth: a stage's step with the measure switched off, over one with all on.

A measure is switched off by a patch in this process; the engine has no switches for them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import torch
import torch.nn.functional as F
from stage_runs import Case, StageRun, seconds
from torch import Tensor
from torch.func import functional_call
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from iota.compute import accumulate, compiled, engine, muon, polar, stage_pass
from iota.compute.compiled import is_compiled
from iota.compute.cuda_device import Cuda
from iota.compute.output import DeviceOutput
from iota.model.documents import plain_layer
from iota.model.layer import Layer, OpenLayer, Saving, Tables, operand, sdpa
from iota.model.loss import cross_entropy
from iota.reference.llama import llama_config
from iota.spec import ModelSpec, OptimizerKind, Precision

Without = Callable[[], AbstractContextManager[object]]
_NEVER: Final = 1 << 62


@dataclass(frozen=True)
class Measure:
    """One measure: how it is switched off, and the cases in which it does anything."""

    without: Without
    applies: Callable[[Case, torch.device], bool] = lambda case, device: True


def ablations(case: Case, device: torch.device, times: int) -> Iterator[dict[str, Any]]:
    """A row a measure: the least seconds of a step with all on, just before, and with this one off."""
    for name, measure in MEASURES.items():
        if not measure.applies(case, device):
            continue
        on_s = _step_s(case, device, times)
        with measure.without():
            off_s = _step_s(case, device, times)
        yield {
            "stage": case.stage,
            "without": name,
            "on_s": round(on_s, 4),
            "off_s": round(off_s, 4),
            "ratio": round(off_s / on_s, 3),
        }


def _step_s(case: Case, device: torch.device, times: int) -> float:
    run = StageRun(case, device)
    run.step()
    found = min(seconds(device, run.step, 1, warm=0) for _ in range(times))
    del run
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _patched(*places: tuple[object, str], by: object) -> Without:
    """Other values for module attributes."""

    @contextmanager
    def patched() -> Iterator[None]:
        with ExitStack() as stack:
            for module, name in places:
                stack.enter_context(patch.object(module, name, by))
            yield

    return patched


@contextmanager
def _torchs_attention() -> Iterator[None]:
    """Compiled layers with torch's own attention; code that was compiled with the other is set aside."""
    compiled._compiled_layer.cache_clear()
    with patch.object(compiled, "_attention", lambda head_dim, tokens, device: sdpa):
        yield
    compiled._compiled_layer.cache_clear()


@contextmanager
def _filled_memory() -> Iterator[None]:
    """Torch fills every new tensor with NaN, as its deterministic mode does by default."""

    with_nothing_filled = Cuda.make_deterministic

    def filled(device: Cuda) -> None:
        with_nothing_filled(device)
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]

    with patch.object(Cuda, "make_deterministic", filled):
        yield
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _their_layer(model: ModelSpec, length: int, device: torch.device) -> OpenLayer:
    """The layer of `transformers`, not compiled."""
    with torch.device("meta"):
        module = LlamaDecoderLayer(llama_config(model, length), 0)

    def layer(
        weights: Mapping[str, Tensor], model: ModelSpec, tables: Tables, saving: Saving, x_BTD: Tensor
    ) -> Tensor:
        given = {"attention_mask": None, "position_embeddings": tuple(tables)}
        made: Tensor = functional_call(module, dict(weights), (x_BTD,), given)
        return made

    def opened(documents_BT: Tensor | None) -> Layer:
        return layer

    return opened


def _whole_loss(normed_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> Tensor:
    logits_NV = F.linear(operand(normed_BTD).flatten(0, 1), operand(head_VD))
    return cross_entropy(logits_NV, labels_BT.flatten()).mean()


def _each_finite(tensor: Tensor) -> Tensor:
    finite = tensor.detach().isfinite().all()
    return torch.where(finite, 0.0, torch.nan)


def _read_at_once(run: StageRun, made: DeviceOutput) -> None:
    made.read().result()


@contextmanager
def _pageable() -> Iterator[None]:
    with (
        patch.object(Cuda, "to_host", lambda device, tensor, copy=True: tensor.detach().cpu()),
        patch.object(Cuda, "to_device", lambda device, tensor: tensor.to(device.torch)),
    ):
        yield


def _on_cuda(case: Case, device: torch.device) -> bool:
    return device.type == "cuda"


def _compiles(case: Case, device: torch.device) -> bool:
    return is_compiled(device)


def _has_muon(case: Case, device: torch.device) -> bool:
    return case.optimizer is OptimizerKind.MUON


def _whole_sequences(case: Case, device: torch.device) -> bool:
    return not case.documents


MEASURES: Final = {
    "compiled layers": Measure(
        _patched((stage_pass, "open_layer"), by=lambda model, length, device: plain_layer), _compiles
    ),
    "FlexAttention": Measure(
        _torchs_attention, lambda case, device: is_compiled(device) and _whole_sequences(case, device)
    ),
    "our layer, but that of transformers, not compiled": Measure(
        _patched((stage_pass, "open_layer"), by=_their_layer), _whole_sequences
    ),
    "loss in chunks": Measure(
        _patched((stage_pass, "token_loss"), by=_whole_loss), lambda case, device: case.stage == "last"
    ),
    "weights converted once a version": Measure(
        _patched((engine, "operand_dtypes"), by=lambda spec, stage: {}),
        lambda case, device: case.precision is Precision.BF16_MASTER,
    ),
    "Muon in batches": Measure(_patched((muon, "polar_bytes"), by=lambda *size: _NEVER), _has_muon),
    "half of symmetric products": Measure(_patched((polar, "_SPLIT_FROM"), by=_NEVER), _has_muon),
    "finite checks by sums": Measure(
        _patched(*((module, "checksum") for module in (accumulate, engine, stage_pass)), by=_each_finite)
    ),
    "sums of stage 0's gradient, not all of it, hashed": Measure(
        _patched((engine, "_sums"), by=lambda x_BTD: x_BTD), lambda case, device: case.stage == "first"
    ),
    "results read while the next op runs": Measure(_patched((StageRun, "_read"), by=_read_at_once), _on_cuda),
    "copies through pinned memory": Measure(_pageable, _on_cuda),
    "new tensors not filled": Measure(_filled_memory, _on_cuda),
}
"""By the name of what is missing from the step."""
