"""One stage's ops and STEP on one device: seconds, shares, model-FLOP utilization, memory.

The stage is one of a pipeline of three, run by the engine as a miner runs it, all its microbatches with the
same inputs. How to read the JSON, a row a case:

    forward_s, backward_s, update_s   one op by itself, with all its work on the device
    step_s       a whole step: its microbatches one after another, and STEP
    mfu          model FLOPs of the step (6N and causal attention; what is recomputed does not count) over the
                 bf16 dense peak that the maker states
    plain        a plain PyTorch loop of the same layers with the same optimizer, over the engine's step; the
                 stage's codec, embedding and head are the engine's alone
    parts        shares of an op's and of STEP's own time by kind of kernel
    peak_gb, planned_gb   most memory of the device, and what `iota plan` says of it
    commits      the same steps with a state commitment and a synced snapshot every so many

With --ablate a row is a measure for speed (`stage_ablation.py`), without which `off_s` is a step's time.

    python scripts/bench_stage.py                               # `small` on the CPU, all three stages
    python scripts/bench_stage.py --ablate
    python scripts/bench_stage.py --stage middle --tokens 8192 --documents 1024
    python scripts/bench_stage.py --smoke
    python scripts/bench_stage.py --device cuda --model orion-100b --layers 3 --tokens 8192
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from stage_ablation import ablations
from stage_runs import STAGES, Case, Commits, Plain, StageRun, peak_flops, seconds
from torch.profiler import ProfilerActivity, profile

from iota.compute.determinism import device_class
from iota.compute.devices import device_of
from iota.model.presets import PRESETS
from iota.planning.needs import stage_needs
from iota.settings import Activations
from iota.spec import GradientSums, Moments, OptimizerKind, Precision

_KINDS: Final = (
    ("attention", ("attention", "flash", "fmha")),
    (
        "matrix products",
        ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "gemm", "nvjet", "cutlass"),
    ),
    ("fused by the compiler", ("triton",)),
    ("copies and casts", ("copy_", "memcpy", "memset", "fill_", "zero_")),
    ("optimizer", ("adam", "foreach", "lerp")),
    ("reductions", ("sum", "norm", "mean", "max", "reduce")),
)
"""Kinds of kernels by parts of their names, the first that fits; the rest are elementwise."""
ELEMENTWISE: Final = "elementwise"


def shares(work: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Shares of the device's own time by kind of kernel, for a call that was made before."""
    kinds = ProfilerActivity.__members__
    activity = kinds.get(device.type.upper(), ProfilerActivity.CPU)
    on_host = activity is ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        work()
        device_of(device).synchronize()
    spent: dict[str, float] = {}
    for event in found.key_averages():
        own = event.self_cpu_time_total if on_host else event.self_device_time_total
        kind = next((k for k, parts in _KINDS if any(p in event.key.lower() for p in parts)), ELEMENTWISE)
        spent[kind] = spent.get(kind, 0.0) + own
    total = sum(spent.values())
    return {kind: round(own / total, 3) for kind, own in sorted(spent.items()) if own} if total else {}


def measure(
    case: Case, device: torch.device, times: int, commit_every: int | None, *, plain: bool = True
) -> dict[str, Any]:
    """The figures of one case."""
    device_of(device).begin_peak()
    run, peak = StageRun(case, device), peak_flops(device)
    step_s = seconds(device, run.step, times)
    row: dict[str, Any] = {
        **{name: str(value) for name, value in vars(case).items()},
        "parameters": stage_needs(run.spec, case.number).parameters,
        "step_s": round(step_s, 4),
        "tokens_a_second": round(case.tokens * case.microbatches / step_s),
        **ops(run, device, times),
    }
    if peak is not None:
        row["mfu"] = round(run.flops / step_s / peak, 4)
    if (most := device_of(device).peak_bytes()) is not None:
        row["peak_gb"] = round(most / 1e9, 2)
        row["planned_gb"] = round(case.planned_bytes(device) / 1e9, 2)
    if commit_every is not None:
        row["commits"] = committed(run, device, commit_every, step_s)
    del run
    gc.collect()
    if plain:
        row["plain"] = round(seconds(device, Plain(case, device).step, times) / step_s, 3)
    return row


def ops(run: StageRun, device: torch.device, times: int) -> dict[str, Any]:
    """Seconds and shares of single ops."""
    found: dict[str, Any] = {}
    totals = {"forward": 0.0, "backward": 0.0, "update": 0.0}
    for _ in range(times):
        for index in range(run.case.microbatches):
            totals["forward"] += seconds(device, partial(run.forward, index), 1, 0) / run.case.microbatches
            totals["backward"] += seconds(device, partial(run.backward, index), 1, 0) / run.case.microbatches
        totals["update"] += seconds(device, run.update, 1, 0)
    found |= {f"{name}_s": round(total / times, 5) for name, total in totals.items() if total}
    parts = {
        "forward": shares(lambda: run.forward(0), device),
        "backward": shares(lambda: run.backward(0), device),
    }
    for index in range(1, run.case.microbatches):
        run.forward(index)
        run.backward(index)
    parts["update"] = shares(run.update, device)
    return {**found, "parts": {name: each for name, each in parts.items() if each}}


def committed(run: StageRun, device: torch.device, every: int, alone_s: float) -> dict[str, Any]:
    """What commitments cost: seconds a step with one at every so many steps, twice in a row."""
    with tempfile.TemporaryDirectory() as folder:
        commits = Commits(run, Path(folder))
        commits.commit()
        commits.wait()

        def steps() -> None:
            for _ in range(every):
                run.step()
            commits.commit()

        step_s = seconds(device, steps, 2, 0) / every
        commits.wait()
        commits.close()
        size = (Path(folder) / "snapshot").stat().st_size
    return {
        "every": every,
        "step_s": round(step_s, 4),
        "cost": round(step_s / alone_s - 1, 4),
        "state_gb": round(size / 1e9, 3),
        "seconds": {
            name: round(getattr(commits, f"{name}_s") / 3, 3) for name in ("copy", "wait", "hash", "write")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="`tiny`, once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--model", choices=PRESETS, default="small")
    parser.add_argument("--stage", choices=STAGES, action="append", help="may be given again; all")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024, help="of a microbatch, in one sequence")
    parser.add_argument("--microbatches", type=int, default=4, help="of a step")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--optimizer", choices=list(OptimizerKind), default=OptimizerKind.MUON)
    parser.add_argument("--precision", choices=list(Precision), default=Precision.FP32)
    parser.add_argument("--moments", choices=list(Moments), default=Moments.FP32)
    parser.add_argument("--sums", choices=list(GradientSums), default=GradientSums.FP32, help="of gradients")
    parser.add_argument(
        "--activations", choices=list(Activations), action="append", help="may be given again"
    )
    parser.add_argument(
        "--documents", type=int, default=0, help="mean tokens of a document, to which attention is masked"
    )
    parser.add_argument("--ablate", action="store_true", help="switch each measure off, one at a time")
    parser.add_argument("--commit-every", type=int, help="measure commitments too")
    parser.add_argument("--times", type=int, default=3, help="steps that are timed")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    if given.smoke:
        given.model, given.tokens, given.times, given.microbatches, given.commit_every = "tiny", 64, 1, 2, 1
        given.documents = 16
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    rows = []
    for stage in given.stage or STAGES:
        for activations in given.activations or [Activations.KEEP]:
            case = Case(
                given.model, stage, given.layers, given.tokens, given.microbatches,
                OptimizerKind(given.optimizer), Precision(given.precision), Activations(activations),
                given.in_flight, None, given.documents, Moments(given.moments), GradientSums(given.sums),
            )  # fmt: skip
            if not given.ablate or given.smoke:
                rows.append(measure(case, device, given.times, given.commit_every))
                print(json.dumps(rows[-1], indent=2), flush=True)
            if given.ablate or given.smoke:
                for each in (case, replace(case, documents=0)) if given.smoke else (case,):
                    for row in ablations(each, device, given.times):
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    if given.json:
        made = {"device": device_class(device, given.threads), "rows": rows}
        given.json.write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
