"""The checks of `gpu_check.py`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from bench_stage import measure
from stage_runs import STAGES, Case, StageRun, random_weights
from torch import Tensor

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire, encode_wire
from iota.compute import Microbatch
from iota.compute.devices import device_of
from iota.compute.engine import Engine
from iota.compute.fingerprint import fingerprint
from iota.compute.output import DeviceOutput
from iota.compute.state import StageState, tensors_digest
from iota.model.graph_sizes import POLICIES
from iota.settings import Activations
from iota.spec import GradientSums, Moments, OptimizerKind, Precision

Check = Callable[[], tuple[bool, dict[str, Any]]]
NONCE: Final = "5e" * 32
ALLOWED: Final = {Precision.FP32: 5e-4, Precision.BF16_MASTER: 3e-2, Precision.BF16_SR: 3e-2}
"""Largest relative error of an op's output on another device, with equal weights. fp32: what audits allow."""
WITHIN: Final = 0.05
"""Of the planned memory."""
_SMALL = Case(
    "small", "middle", 2, 512, 2, OptimizerKind.MUON, Precision.FP32, Activations.KEEP, vocabulary=257
)
_ORION = Case("orion-100b", "middle", 3, 8192, 4, OptimizerKind.MUON, Precision.BF16_MASTER, Activations.KEEP)


def all_checks(device: torch.device, *, smoke: bool) -> dict[str, Check]:
    """The checks by name, in order."""
    found: dict[str, Check] = {}
    for precision in Precision:
        for stage in STAGES:
            case = replace(_SMALL, precision=precision, stage=stage)
            found[f"numerics: {precision} {stage}"] = partial(numerics, case, device)
        case = replace(_SMALL, precision=precision, documents=100)
        found[f"numerics: {precision} documents"] = partial(numerics, case, device)
        found[f"numerics: {precision} small state"] = partial(numerics, in_few_bits(case), device)
    for optimizer in OptimizerKind:
        case = replace(_SMALL, optimizer=optimizer)
        found[f"numerics: fingerprint {optimizer}"] = partial(repeated_fingerprint, case, device)
    orion = replace(_SMALL, model="tiny", tokens=64) if smoke else _ORION
    for policy in POLICIES:
        case = replace(orion, activations=policy, in_flight=2)
        if device_of(device).own_bytes() is not None:
            found[f"memory: {policy}"] = partial(memory, case, device)
        found[f"speed: middle {policy}"] = partial(speed, case, device)
    for stage in ("first", "last"):
        case = replace(orion, stage=stage, layers=1)
        found[f"speed: {stage}"] = partial(speed, case, device)
    case = replace(orion, layers=1)
    found["speed: documents"] = partial(speed, replace(case, documents=orion.tokens // 8), device)
    found["speed: commits"] = partial(speed, case, device, commit_every=5)
    whole = replace(orion, precision=Precision.BF16_SR, layers=2 if smoke else 6)
    whole = in_few_bits(replace(whole, microbatches=2 if smoke else 16, activations=Activations.OFFLOAD))
    # A plain loop of as many layers does not fit, and commitments would take 40 GB of host memory.
    found["speed: whole stage"] = partial(speed, whole, device, 1, plain=False)
    return found


def in_few_bits(case: Case) -> Case:
    """The case with moments in 8 bits and sums of gradients in bf16."""
    return replace(case, documents=0, moments=Moments.INT8, sums=GradientSums.BF16)


def numerics(case: Case, device: torch.device) -> tuple[bool, dict[str, Any]]:
    """Two steps on the device, twice, by each way of keeping activations, and on one CPU thread."""
    kept = list(outputs(case, device))
    again = list(outputs(case, device))
    others = {way: list(outputs(replace(case, activations=way), device)) for way in POLICIES[1:]}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reference = list(outputs(case, torch.device("cpu")))
    finally:
        torch.set_num_threads(before)
    # Those of the first step: later ones have other weights.
    first = range(2 * case.microbatches - case.microbatches * (case.stage == "last"))
    error = max(float((kept[i] - reference[i]).norm() / reference[i].norm()) for i in first)
    same = {f"same as {way}": equal(kept, found) for way, found in others.items()}
    figures = {"repeats": equal(kept, again), **same, "error": error, "allowed": ALLOWED[case.precision]}
    return figures["repeats"] is True and all(same.values()) and error <= ALLOWED[case.precision], figures


def outputs(case: Case, device: torch.device) -> Iterator[Tensor]:
    """On the CPU: what each op of two steps sends, and at the end all weights."""
    spec, stage = case.spec(), case.number
    torch.manual_seed(0)
    weights = dict(random_weights(spec, stage, torch.device("cpu")))
    engine = Engine(spec, stage, device=device, activations=case.activations)
    engine.load(StageState(weights), version=0)
    ids = torch.randint(spec.model.vocab_size, (1, case.tokens + 1))
    if spec.data.eos_id is not None:
        ids[:, :: case.documents] = spec.data.eos_id
    tokens = ids.numpy()
    payload = encode_wire(torch.randn(payload_shape(spec)), spec.boundary.wire)
    first, last = stage == 0, stage == spec.last_stage

    def sent(made: DeviceOutput) -> Tensor:
        if made.payload is None:
            return made.hashed_N.cpu().view(torch.float32)
        return decode_wire(made.payload.cpu(), payload_shape(spec), spec.boundary.wire)

    for step in range(2):
        for index in range(case.microbatches):
            mb = Microbatch(0, step, index)
            op = engine.loss if last else engine.forward
            yield sent(op(mb, step, None if first else payload, tokens))
            if not last:
                yield sent(engine.backward(mb, step, payload))
        engine.step(step, case.microbatches, spec.optimizer.lr)
    for _, weight in sorted(engine.state().weights.items()):
        yield weight


def equal(*runs: list[Tensor]) -> bool:
    """Whether the bits of all runs are equal."""
    return len({tensors_digest({str(n): tensor for n, tensor in enumerate(run)}) for run in runs}) == 1


def repeated_fingerprint(case: Case, device: torch.device) -> tuple[bool, dict[str, Any]]:
    """The fingerprint of each stage, twice."""
    found = [[fingerprint(case.spec(), stage, device, NONCE) for stage in range(3)] for _ in range(2)]
    return found[0] == found[1], {"equal": found[0] == found[1]}


def memory(case: Case, device: torch.device) -> tuple[bool, dict[str, Any]]:
    """The most memory of two steps against the plan's."""
    clean(device)
    run = StageRun(case, device)
    on = device_of(device)
    on.begin_peak()
    run.step()
    run.step()
    peak = on.peak_bytes()
    if peak is None:
        return True, {"peak_gb": "not measured on this kind of device"}
    planned = case.planned_bytes(device)
    figures = {"peak_gb": round(peak / 1e9, 2), "planned_gb": round(planned / 1e9, 2)}
    return abs(peak / planned - 1) <= WITHIN, figures


def speed(
    case: Case, device: torch.device, times: int = 2, commit_every: int | None = None, *, plain: bool = True
) -> tuple[bool, dict[str, Any]]:
    """The figures of `bench_stage.py`; they hold whatever they are."""
    clean(device)
    return True, measure(case, device, times, commit_every, plain=plain)


def clean(device: torch.device) -> None:
    """Give back the memory of the check before."""
    gc.collect()
    device_of(device).release()
