"""What the precision of a run costs in quality: held-out loss by precision, all else equal.

Every row is one training run in this process, as in `bench_boundary`: the same model, data order, number of
tokens, learning rates and seed; only the precision differs. The last row of an optimizer is no precision of a
run: bf16 weights that each step rounds to the nearest, which shows why `bf16-sr` rounds stochastically.
**of fp32** is held-out loss over that of the fp32 row of the same optimizer, rate and seed, the mean over
seeds.

    python scripts/bench_precision.py --threads 1            # preset `tiny`, 240 steps
    python scripts/bench_precision.py --smoke                # does it run at all; seconds
    python scripts/bench_precision.py --steps 1000 --seeds 3 --json out.json
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from bench_boundary import DENSE, SIZES, Size, heldout_tokens, spec_of, train
from torch import Tensor

from iota.data import DirectoryReader
from iota.spec import OptimizerKind, Pipeline, Precision
from iota.swarm.preparation import prepare_data
from iota.swarm.run_dir import write_json

NEAREST = "bf16, to the nearest"
"""What the row is called that no run has."""
PRECISIONS = {**{each.value: each for each in Precision}, NEAREST: Precision.BF16_SR}
RATES = {OptimizerKind.ADAMW: (3e-3, 3e-4), OptimizerKind.MUON: (2e-2, 2e-3)}
"""Of each optimizer the rate of `bench_boundary`, and a tenth, at which updates are small beside weights."""


@dataclass(frozen=True)
class Row:
    """One run."""

    optimizer: str
    learning_rate: float
    precision: str
    seed: int
    train_loss: float
    heldout_loss: float
    seconds: float


@contextmanager
def rounding_to_the_nearest() -> Iterator[None]:
    """bf16 weights are rounded without chance."""

    def nearest(values_N: Tensor, bits_N: Tensor) -> Tensor:
        return values_N.bfloat16()

    with mock.patch("iota.compute.rounding.rounded", nearest):
        yield


def bench(size: Size, seeds: int, folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Every optimizer, rate and precision for every seed."""
    manifest = prepare_data("stdlib", "bytes", folder, say)
    reader = DirectoryReader(folder, manifest.content_digest())
    heldout = heldout_tokens(size, reader)
    rows = []
    settings = [
        (seed, kind, rate, name)
        for seed in range(seeds)
        for kind, rates in RATES.items()
        for rate in rates
        for name in PRECISIONS
    ]
    for seed, kind, rate, name in settings:
        own = replace(size, precision=PRECISIONS[name], learning_rates={kind: rate})
        spec = spec_of(
            own, kind, DENSE, 1, seed, Pipeline.SYNC, manifest.content_digest(), manifest.tokenizer.vocab_size
        )
        with rounding_to_the_nearest() if name == NEAREST else nullcontext():
            found = train(spec, reader, heldout, "cpu")
        row = Row(kind.value, rate, name, seed, found.train_loss, found.heldout_loss, found.seconds)
        rows.append(row)
        say(f"{kind} {rate:g} {name} seed {seed}: held-out {row.heldout_loss:.4f}, {row.seconds:.0f} s")
    return rows


def table(rows: list[Row]) -> str:
    """Markdown."""
    by_setting: dict[tuple[str, float, str], list[Row]] = {}
    for row in rows:
        by_setting.setdefault((row.optimizer, row.learning_rate, row.precision), []).append(row)
    text = ["| optimizer | rate | precision | held-out loss | of fp32 |", "|---|---|---|---|---|"]
    for (optimizer, rate, precision), group in by_setting.items():
        plain = {row.seed: row.heldout_loss for row in by_setting[optimizer, rate, Precision.FP32.value]}
        ratio = statistics.fmean(row.heldout_loss / plain[row.seed] for row in group)
        loss = statistics.fmean(row.heldout_loss for row in group)
        text.append(f"| {optimizer} | {rate:g} | {precision} | {loss:.4f} | {100 * (ratio - 1):+.2f} % |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_const", const="smoke", dest="size", default="small")
    parser.add_argument("--steps", type=int, help="steps of each row, in place of the size's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=Path("runs/bench-data"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write every row to this file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size: Size = replace(SIZES[given.size], steps=given.steps or SIZES[given.size].steps)
    rows = bench(size, given.seeds, given.data_dir, lambda text: print(text, flush=True))
    print("\n" + table(rows))
    if given.json is not None:
        found = {"size": asdict(size), "threads": given.threads, "torch": torch.__version__}
        write_json(given.json, {**found, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
