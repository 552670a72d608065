"""What a compressed boundary costs in quality: held-out loss, dense against compressed, all else equal.

Every row of a table is one training run in this process: the same model, data order, number of tokens,
learning-rate schedule and seed; only codec and ratio differ. Each stage is the engine that a miner runs,
and what crosses a boundary is rounded to the wire dtype as in a swarm, so a row is what a pipeline with
one replica a stage would give. Dense is `identity`: the residual stream as it is, in the same wire dtype.

How to read it: **vs dense** is held-out loss over that of the dense row *of the same optimizer* (the mean
over seeds of the ratio within a seed); a compressed Muon run must never be held against a dense AdamW
run, which is how a mixed comparison looks lossless. With several seeds the last column is the spread.
Small sizes, short runs: a hint where to look, not a law.

    python scripts/bench_boundary.py                       # the small table, minutes on two cores
    python scripts/bench_boundary.py --smoke               # does it run at all; under a minute
    python scripts/bench_boundary.py --size gpu --device cuda --seeds 3 --json out.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iota.codec.shapes import boundary_width
from iota.compute import Microbatch
from iota.compute.engine import Engine
from iota.compute.evaluate import evaluate_model
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.data import DirectoryReader, sequence_indices
from iota.model.layout import stage_parameters
from iota.spec import OptimizerKind, Pipeline, Precision, RunSpec
from iota.swarm.options import SwarmOptions
from iota.swarm.preparation import prepare_data
from iota.swarm.run_dir import write_json
from iota.swarm.summary import boundary_bytes_per_token

DENSE = "identity"
"""The codec that all others are held against."""


@dataclass(frozen=True)
class Size:
    """One table: the model and how long each of its rows trains."""

    model: str
    stages: int
    steps: int
    microbatches: int
    sequences: int
    sequence_length: int
    ratios: tuple[int, ...]
    heldout: int
    """Held-out microbatches; the same for every row."""
    learning_rates: dict[OptimizerKind, float]
    """Of each optimizer that is compared; the same for dense and compressed."""
    precision: Precision = Precision.FP32


TINY_RATES = {OptimizerKind.ADAMW: 3e-3, OptimizerKind.MUON: 2e-2}
LARGE_RATES = {OptimizerKind.ADAMW: 1e-3, OptimizerKind.MUON: 5e-3}
SIZES = {
    "smoke": Size("tiny", 4, 4, 1, 2, 64, ratios=(16,), heldout=2, learning_rates=TINY_RATES),
    "small": Size("tiny", 4, 240, 1, 8, 128, ratios=(8, 32), heldout=24, learning_rates=TINY_RATES),
    "gpu": Size(
        "nano-100m", 4, 4000, 2, 32, 1024, ratios=(4, 16, 64), heldout=8,
        learning_rates=LARGE_RATES, precision=Precision.BF16_MASTER,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One run."""

    optimizer: str
    codec: str
    ratio: int
    seed: int
    learning_rate: float
    bytes_per_token: float
    """Over one boundary, one way."""
    parameters: int
    """With codecs."""
    tokens: int
    train_loss: float
    """Mean of the last tenth of the steps."""
    heldout_loss: float
    seconds: float


@dataclass(frozen=True)
class Line:
    """The rows of one setting over all seeds."""

    optimizer: str
    codec: str
    ratio: int
    bytes_per_token: float
    heldout_loss: float
    vs_dense: float
    spread: float
    """Largest minus smallest `vs_dense` over the seeds."""


def spec_of(
    size: Size,
    optimizer: OptimizerKind,
    codec: str,
    ratio: int,
    seed: int,
    pipeline: Pipeline,
    manifest: str,
    vocabulary: int,
) -> RunSpec:
    """One epoch of `size`, with the cut, warm-up and decay that `iota up` would choose."""
    spec = SwarmOptions.of(
        stages=size.stages,
        epochs=1,
        steps_per_epoch=size.steps,
        microbatches=size.microbatches,
        model=size.model,
        boundary=codec,
        ratio=ratio,
        pipeline=pipeline,
        optimizer=optimizer,
        lr=size.learning_rates[optimizer],
        sequence_length=size.sequence_length,
        sequences=size.sequences,
        seed=seed,
    ).spec(manifest, vocabulary)
    return RunSpec.model_validate({**spec.model_dump(), "precision": size.precision})


def settings(size: Size) -> list[tuple[OptimizerKind, str, int]]:
    """Dense first for each optimizer, then each codec from the widest boundary to the narrowest."""
    found = []
    for optimizer in size.learning_rates:
        found.append((optimizer, DENSE, 1))
        found += [(optimizer, codec, r) for codec in ("resbm", "resbm-anchor") for r in size.ratios]
    return found


def train(spec: RunSpec, reader: DirectoryReader, heldout: list[Tokens], device: str) -> Row:
    """All steps of the run, stage after stage in this process; then the loss on `heldout`."""
    engines = [Engine(spec, stage, device=device) for stage in range(spec.layout.stages)]
    for stage, engine in enumerate(engines):
        engine.load(StageState.initial(spec, stage), version=0)
    began = time.perf_counter()
    losses = []
    for step in range(spec.schedule.steps):
        names = [Microbatch(0, step, index) for index in range(spec.schedule.microbatches)]
        losses.append(statistics.fmean(microbatch_loss(spec, engines, mb, reader) for mb in names))
        for engine in engines:
            engine.step(step, len(names), spec.learning_rate(0, step))
    seconds = time.perf_counter() - began
    return Row(
        optimizer=spec.optimizer.kind.value,
        codec=spec.boundary.codec,
        ratio=spec.model.hidden_size // boundary_width(spec),
        seed=spec.seed,
        learning_rate=spec.optimizer.lr,
        bytes_per_token=boundary_bytes_per_token(spec),
        parameters=sum(stage_parameters(spec.model, spec.layout.cuts, spec.boundary)),
        tokens=spec.data.tokens * spec.schedule.microbatches * spec.schedule.steps,
        train_loss=statistics.fmean(losses[-max(1, len(losses) // 10) :]),
        heldout_loss=evaluate_model(spec, (engine.state() for engine in engines), heldout),
        seconds=seconds,
    )


def microbatch_loss(spec: RunSpec, engines: list[Engine], mb: Microbatch, reader: DirectoryReader) -> float:
    """Forward and backward of one microbatch through the engines of all stages; its loss."""
    version = spec.weight_version(mb.step)
    tokens = _tokens(spec, mb, reader)
    payload: Tensor | None = None
    for engine in engines[:-1]:
        payload = engine.forward(mb, version, payload, tokens).payload
    last = engines[-1].loss(mb, version, payload, tokens)
    gradient = last.payload
    for engine in reversed(engines[:-1]):
        assert gradient is not None
        gradient = engine.backward(mb, version, gradient).payload
    assert last.loss is not None
    return float(last.loss)


def _tokens(spec: RunSpec, mb: Microbatch, reader: DirectoryReader) -> Tokens:
    length = spec.data.sequence_length
    indices = sequence_indices(
        spec.seed,
        mb.epoch,
        mb.step,
        mb.index,
        steps=spec.schedule.steps,
        microbatches=spec.schedule.microbatches,
        sequences=spec.data.sequences,
        count=reader.sequence_count(length),
        first=spec.data.first_sequence,
    )
    return np.stack([reader.tokens(index, length) for index in indices])


def heldout_tokens(size: Size, reader: DirectoryReader) -> list[Tokens]:
    """Microbatches spread evenly over the held-out shard. Raises ValueError if it is too small."""
    wanted = size.heldout * size.sequences
    count = reader.heldout_count(size.sequence_length)
    if count < wanted:
        raise ValueError(f"the data holds out {count} sequences, {wanted} are needed: give more --data")
    rows = [
        reader.heldout_tokens(int(i), size.sequence_length)
        for i in np.linspace(0, count - 1, wanted).astype(int)
    ]
    return [np.stack(rows[i : i + size.sequences]) for i in range(0, wanted, size.sequences)]


def lines(rows: list[Row]) -> list[Line]:
    """One line a setting, in the order of the rows."""
    by_setting: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        by_setting.setdefault((row.optimizer, row.codec, row.ratio), []).append(row)
    dense = {(r.optimizer, r.seed): r.heldout_loss for r in rows if r.codec == DENSE}
    found = []
    for (optimizer, codec, ratio), group in by_setting.items():
        against = [row.heldout_loss / dense[optimizer, row.seed] for row in group]
        found.append(
            Line(
                optimizer=optimizer,
                codec=codec,
                ratio=ratio,
                bytes_per_token=group[0].bytes_per_token,
                heldout_loss=statistics.fmean(row.heldout_loss for row in group),
                vs_dense=statistics.fmean(against),
                spread=max(against) - min(against),
            )
        )
    return found


def table(found: list[Line], seeds: int) -> str:
    """Markdown."""
    text = ["| optimizer | boundary | ratio | bytes a token | held-out loss | vs dense |"]
    text += ["|---|---|---|---|---|---|"]
    for line in found:
        dense = line.codec == DENSE
        spread = f" (spread {100 * line.spread:.1f})" if seeds > 1 else ""
        text.append(
            f"| {line.optimizer} | {'dense' if dense else f'`{line.codec}`'} | {line.ratio}x"
            f" | {line.bytes_per_token:g} | {line.heldout_loss:.3f}"
            f" | {'' if dense else f'{100 * (line.vs_dense - 1):+.1f} %{spread}'} |"
        )
    return "\n".join(text)


def bench(
    size: Size,
    seeds: int,
    pipeline: Pipeline,
    data: str,
    folder: Path,
    device: str,
    say: Callable[[str], None],
) -> list[Row]:
    """Every setting of `size` for every seed; the dense rows come before what is held against them."""
    manifest = prepare_data(data, "bytes", folder, say)
    reader = DirectoryReader(folder, manifest.content_digest())
    heldout = heldout_tokens(size, reader)
    rows = []
    for seed in range(seeds):
        for optimizer, codec, ratio in settings(size):
            spec = spec_of(
                size, optimizer, codec, ratio, seed, pipeline,
                manifest.content_digest(), manifest.tokenizer.vocab_size,
            )  # fmt: skip
            rows.append(row := train(spec, reader, heldout, device))
            say(
                f"{row.optimizer} {row.codec} {row.ratio}x seed {seed}: held-out {row.heldout_loss:.4f},"
                f" {row.seconds:.0f} s, {row.tokens / row.seconds:,.0f} tokens/s"
            )
    return rows


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """What benchmarks of training runs have in common on their command lines."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--smoke", action="store_const", const="smoke", dest="size", help="as --size smoke")
    parser.add_argument("--steps", type=int, help="steps of each row, in place of the size's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=Path("runs/bench-data"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write every row to this file")
    return parser


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--pipeline", type=Pipeline, choices=list(Pipeline), default=Pipeline.SYNC)
    parser.add_argument("--data", default="stdlib", help="as for iota up")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size: Size = SIZES[given.size]
    if given.steps is not None:
        size = replace(size, steps=given.steps)
    rows = bench(
        size, given.seeds, given.pipeline, given.data, given.data_dir, given.device,
        lambda text: print(text, flush=True),
    )  # fmt: skip
    found = lines(rows)
    print("\n" + table(found, given.seeds))
    if given.json is not None:
        write_json(
            given.json,
            {
                "size": {"name": given.size, **asdict(size)},
                "pipeline": given.pipeline,
                "device": given.device,
                "threads": given.threads,
                "torch": torch.__version__,
                "lines": [asdict(line) for line in found],
                "rows": [asdict(row) for row in rows],
            },
        )


if __name__ == "__main__":
    main()
