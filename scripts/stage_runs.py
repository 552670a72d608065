"""One stage on one device, run as a miner runs it: what `bench_stage.py` and `gpu_check.py` measure.

Nothing here needs more than the engine does: no bittensor, no server, no settings.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute import Microbatch
from iota.compute.commitment import commitment
from iota.compute.compiled import is_compiled
from iota.compute.copy_thread import CopyThread
from iota.compute.devices import device_of
from iota.compute.engine import Engine
from iota.compute.host_copy import HostCopy
from iota.compute.optim import InnerOptimizer
from iota.compute.output import DeviceOutput, DeviceStep
from iota.compute.precision import autocast
from iota.compute.state import StageState, save_state
from iota.model.layout import run_shapes, stage_flops
from iota.model.presets import PRESETS
from iota.model.proposal import make_spec
from iota.model.weight_dtype import weight_dtype
from iota.planning.needs import stage_needs
from iota.reference.llama import llama_config
from iota.settings import Activations
from iota.spec import GradientSums, Moments, OptimizerKind, Precision, RunSpec
from miner.core.epoch import MAX_UNRECORDED

PEAKS: Final = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""bf16 dense FLOP/s by a part of the device's name, as the maker states them."""
STAGES: Final = {"first": 0, "middle": 1, "last": 2}
"""Stages of a pipeline of three."""


@dataclass(frozen=True)
class Case:
    """One stage and how it is run."""

    model: str
    stage: str
    layers: int
    tokens: int
    """Of a microbatch, in one sequence."""
    microbatches: int
    """Of a step."""
    optimizer: OptimizerKind
    precision: Precision
    activations: Activations
    in_flight: int = 1
    """Microbatches between their forward and their backward."""
    vocabulary: int | None = None
    """None: the preset's."""
    documents: int = 0
    """Mean tokens of a document, which attention does not leave; 0: documents are not masked."""
    moments: Moments = Moments.FP32
    sums: GradientSums = GradientSums.FP32

    @property
    def number(self) -> int:
        """Of the stage."""
        return STAGES[self.stage]

    def spec(self) -> RunSpec:
        """A run of three stages in `sync`, of which the one in question has the layers."""
        model = PRESETS[self.model]
        cuts = [self.layers if number == self.number else 1 for number in STAGES.values()]
        vocabulary = self.vocabulary or model.vocab_size
        given = {
            "model": {**model.model_dump(), "vocab_size": vocabulary, "layers": sum(cuts)},
            "layout": {"cuts": cuts, "replicas": 1},
            "data": {"sequences": 1, "sequence_length": self.tokens, "mask_documents": self.documents > 0},
            "schedule": {"pipeline": "sync", "microbatches": self.microbatches, "heldout": 0},
            "optimizer": {
                "kind": self.optimizer,
                "moments": self.moments,
                "gradient_sums": self.sums,
            },
            "precision": self.precision,
        }
        return make_spec(given, "0" * 64, vocabulary)

    def planned_bytes(self, device: torch.device) -> int:
        """Memory of a device by the plan, with the graphs that there are at once."""
        needs = stage_needs(self.spec(), self.number, compiled=is_compiled(device))
        kept = needs.kept[self.activations]
        return needs.memory_of(self.activations) + (self.in_flight - needs.graphs) * kept.graph


class StageRun:
    """Steps of one stage. Every microbatch has the same inputs: values do not change how long an op takes."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device, self.spec = case, device, case.spec()
        self.first, self.last = case.number == 0, case.number == self.spec.last_stage
        torch.manual_seed(0)
        self.engine = Engine(self.spec, case.number, device=device, activations=case.activations)
        self.engine.load(StageState(dict(random_weights(self.spec, case.number, device))), version=0)
        values = torch.randn(payload_shape(self.spec), device=device)
        self._payload = encode_wire(values, self.spec.boundary.wire).cpu()
        generator = np.random.default_rng(0)
        shape = (1, case.tokens + 1)
        self._tokens = generator.integers(1, self.spec.model.vocab_size, shape).astype(np.int32)
        if (eos := self.spec.data.eos_id) is not None:
            self._tokens[generator.random(shape) < 1 / case.documents] = eos
        self._step = 0
        self._recorder = ThreadPoolExecutor(1)
        self._unrecorded: deque[Future[object]] = deque()

    @property
    def flops(self) -> int:
        """Of one step: 6N and causal attention; what is recomputed does not count."""
        spec, case = self.spec, self.case
        each = stage_flops(spec.model, spec.layout.cuts, case.number, case.tokens, spec.boundary)
        return each * case.tokens * case.microbatches

    def forward(self, index: int) -> None:
        """FORWARD of a microbatch, at the last stage LOSS."""
        mb, payload = Microbatch(0, self._step, index), None if self.first else self._payload
        op = self.engine.loss if self.last else self.engine.forward
        self._read(op(mb, self._step, payload, self._tokens))

    def backward(self, index: int) -> None:
        """BACKWARD of a microbatch; nothing at the last stage."""
        if not self.last:
            self._read(self.engine.backward(Microbatch(0, self._step, index), self._step, self._payload))

    def update(self) -> None:
        """STEP. It waits for the results of the ops that it counts, as a miner's schedule does."""
        while self._unrecorded:
            self._unrecorded.popleft().result()
        self._read(self.engine.step(self._step, self.case.microbatches, self.spec.optimizer.lr))
        self._step += 1

    def step(self) -> None:
        """All ops of a step, with `in_flight` microbatches between their forward and their backward."""
        flying: deque[int] = deque()
        for index in range(self.case.microbatches):
            self.forward(index)
            flying.append(index)
            if len(flying) == self.case.in_flight:
                self.backward(flying.popleft())
        while flying:
            self.backward(flying.popleft())
        self.update()

    def _read(self, made: DeviceOutput | DeviceStep) -> None:
        """Have a result read and hashed beside the device, which is never without work."""
        if len(self._unrecorded) == MAX_UNRECORDED:
            self._unrecorded.popleft().result()
        self._unrecorded.append(self._recorder.submit(made.read().result))


def random_weights(spec: RunSpec, stage: int, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Weights of the usual size. Those of a start have zeros, and take minutes to make."""
    dtype = weight_dtype(spec)
    for name, shape in run_shapes(spec, stage).items():
        if len(shape) > 1:
            yield name, (torch.randn(shape, device=device) * spec.model.init_std).to(dtype)
        else:
            yield name, torch.ones(shape, device=device, dtype=dtype)


class Plain:
    """The same layers in a plain loop of PyTorch: no codec, no checks, nothing is sent."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device, self.spec = case, device, case.spec()
        config = llama_config(self.spec.model, case.tokens)
        with device:
            self._layers = nn.ModuleList(LlamaDecoderLayer(config, i) for i in range(case.layers))
            rotary = LlamaRotaryEmbedding(config)
            self._positions = rotary(torch.empty(0), torch.arange(case.tokens)[None])
            self._x = torch.randn(1, case.tokens, self.spec.model.hidden_size, requires_grad=True)
            self._gradient = torch.randn_like(self._x)
        weights = {f"layers.{name}": w.data for name, w in self._layers.named_parameters()}
        self._parameters = dict(zip(weights, self._layers.parameters(), strict=True))
        self._optimizer, self._weights = InnerOptimizer(self.spec.optimizer, weights), weights

    def step(self) -> None:
        """Forward and backward of each microbatch, and the optimizer's update."""
        for _ in range(self.case.microbatches):
            x = self._x
            with autocast(self.spec.precision, self.device):
                for layer in self._layers:
                    x = layer(x, attention_mask=None, position_embeddings=self._positions)
            torch.autograd.backward(x, self._gradient)
        sums = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        self._optimizer.update(self._weights, sums, self.spec.optimizer.lr)
        for parameter in self._layers.parameters():
            parameter.grad = None


class Commits:
    """State commitments and snapshots, as a miner's committer makes them."""

    def __init__(self, run: StageRun, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._thread = CopyThread("committer")
        self._last: Future[None] | None = None
        self.hash_s = self.write_s = self.copy_s = self.wait_s = 0.0

    def commit(self) -> None:
        """Start a commitment to the newest state; waits while there are two copies."""
        clock, before = time.perf_counter(), self.copy_s
        self._last = self._thread.give(self._copy, self._make)
        self.wait_s += time.perf_counter() - clock - (self.copy_s - before)

    def wait(self) -> None:
        """Wait for all commitments."""
        if self._last is not None:
            self._last.result()

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    def _copy(self) -> HostCopy:
        clock = time.perf_counter()
        copy = self._run.engine.copy_state()
        self.copy_s += time.perf_counter() - clock
        return copy

    def _make(self, state: StageState) -> None:
        clock = time.perf_counter()
        made = commitment(state, self._run.spec.outer.part_elements)
        self.hash_s += time.perf_counter() - clock
        clock = time.perf_counter()
        save_state(state, self._folder / "snapshot", made)
        self.write_s += time.perf_counter() - clock


def seconds(device: torch.device, work: Callable[[], Any], times: int, warm: int = 1) -> float:
    """Mean seconds of a call, after `warm` calls, with all its work on the device."""
    for _ in range(warm):
        work()
    device_of(device).synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    device_of(device).synchronize()
    return (time.perf_counter() - start) / times


def peak_flops(device: torch.device) -> float | None:
    """bf16 dense FLOP/s of a GPU that `PEAKS` knows."""
    name = device_of(device).name
    return next((peak for part, peak in PEAKS.items() if part in name), None)
