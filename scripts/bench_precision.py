"""What a run's number formats cost in quality: held-out loss by format, all else equal.

Every row is one training run in this process, as in `bench_boundary`: the same model, data order, number of
tokens, learning rates and seed; only the formats differ: the precision, or with `--state` those of moments
and sums of gradients, whose steps have four microbatches. Rows that end in "to the nearest" are of no run:
without chance, they show why a run rounds stochastically. **of fp32** is held-out loss over that of the fp32
row of the same optimizer, rate and seed, the mean over seeds.

    python scripts/bench_precision.py --threads 1            # preset `tiny`, 240 steps
    python scripts/bench_precision.py --state --threads 1    # moments and sums of gradients
    python scripts/bench_precision.py --smoke                # does it run at all; seconds
    python scripts/bench_precision.py --steps 1000 --seeds 3 --json out.json
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

import torch
from bench_boundary import DENSE, SIZES, Size, heldout_tokens, spec_of, train, training_parser
from torch import Tensor

from iota.data import DirectoryReader
from iota.spec import GradientSums, Moments, OptimizerKind, Pipeline, Precision
from iota.swarm.preparation import prepare_data
from iota.swarm.run_dir import write_json

Say = Callable[[str], None]

PLAIN = "fp32"
"""The form that all others are held against."""
STATE_MICROBATCHES = 4
"""Microbatches of a step where sums of gradients are compared."""


@contextmanager
def weights_to_the_nearest() -> Iterator[None]:
    """bf16 weights are rounded without chance."""

    def nearest(values_N: Tensor, bits_N: Tensor) -> Tensor:
        return values_N.bfloat16()

    with mock.patch("iota.compute.rounding.rounded", nearest):
        yield


@contextmanager
def all_to_the_nearest() -> Iterator[None]:
    """Moments and sums of gradients are rounded without chance: the bits are always one half."""

    def half(index_N: Tensor, a: int | Tensor, b: int | Tensor) -> Tensor:
        return torch.full_like(index_N, 1 << 15)

    with mock.patch("iota.compute.rounding.random_bits", half):
        yield


@dataclass(frozen=True)
class Form:
    """The number formats of a row."""

    precision: Precision = Precision.FP32
    moments: Moments = Moments.FP32
    sums: GradientSums = GradientSums.FP32
    patched: Callable[[], AbstractContextManager[None]] = nullcontext


PRECISIONS = {
    **{each.value: Form(each) for each in Precision},
    "bf16, to the nearest": Form(Precision.BF16_SR, patched=weights_to_the_nearest),
}
STATES = {
    PLAIN: Form(),
    "bf16 moments": Form(moments=Moments.BF16),
    "int8 moments": Form(moments=Moments.INT8),
    "bf16 sums": Form(sums=GradientSums.BF16),
    "bf16-sr, int8 moments, bf16 sums": Form(Precision.BF16_SR, Moments.INT8, GradientSums.BF16),
    "int8 moments, to the nearest": Form(moments=Moments.INT8, patched=all_to_the_nearest),
}
RATES = {OptimizerKind.ADAMW: (3e-3, 3e-4), OptimizerKind.MUON: (2e-2, 2e-3)}
"""Of each optimizer the rate of `bench_boundary`, and a tenth, at which updates are small beside weights."""


@dataclass(frozen=True)
class Row:
    """One run."""

    optimizer: str
    learning_rate: float
    form: str
    seed: int
    train_loss: float
    heldout_loss: float
    seconds: float


def bench(size: Size, forms: dict[str, Form], seeds: range, folder: Path, say: Say) -> list[Row]:
    """Every optimizer, rate and form for every seed."""
    manifest = prepare_data("stdlib", "bytes", folder, say)
    reader = DirectoryReader(folder, manifest.content_digest())
    heldout = heldout_tokens(size, reader)
    rows = []
    settings = [
        (seed, kind, rate, name)
        for seed in seeds
        for kind, rates in RATES.items()
        for rate in rates
        for name in forms
    ]
    for seed, kind, rate, name in settings:
        form = forms[name]
        own = replace(size, precision=form.precision, learning_rates={kind: rate})
        spec = spec_of(
            own, kind, DENSE, 1, seed, Pipeline.SYNC, manifest.content_digest(), manifest.tokenizer.vocab_size
        )
        state = {"moments": form.moments, "gradient_sums": form.sums}
        optimizer = spec.optimizer.model_copy(update=state)
        with form.patched():
            found = train(spec.model_copy(update={"optimizer": optimizer}), reader, heldout, "cpu")
        row = Row(kind.value, rate, name, seed, found.train_loss, found.heldout_loss, found.seconds)
        rows.append(row)
        say(f"{kind} {rate:g} {name} seed {seed}: held-out {row.heldout_loss:.4f}, {row.seconds:.0f} s")
    return rows


def table(rows: list[Row]) -> str:
    """Markdown."""
    by_setting: dict[tuple[str, float, str], list[Row]] = {}
    for row in rows:
        by_setting.setdefault((row.optimizer, row.learning_rate, row.form), []).append(row)
    text = ["| optimizer | rate | formats | held-out loss | of fp32 |", "|---|---|---|---|---|"]
    for (optimizer, rate, form), group in by_setting.items():
        plain = {row.seed: row.heldout_loss for row in by_setting[optimizer, rate, PLAIN]}
        ratio = statistics.fmean(row.heldout_loss / plain[row.seed] for row in group)
        loss = statistics.fmean(row.heldout_loss for row in group)
        text.append(f"| {optimizer} | {rate:g} | {form} | {loss:.4f} | {100 * (ratio - 1):+.2f} % |")
    return "\n".join(text)


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--state", action="store_true", help="compare moments and sums, not precisions")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size: Size = replace(SIZES[given.size], steps=given.steps or SIZES[given.size].steps)
    if given.state:
        sequences = max(1, size.sequences // STATE_MICROBATCHES)
        size = replace(size, microbatches=STATE_MICROBATCHES, sequences=sequences)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    forms = STATES if given.state else PRECISIONS
    rows = bench(size, forms, seeds, given.data_dir, lambda text: print(text, flush=True))
    print("\n" + table(rows))
    if given.json is not None:
        found = {"size": asdict(size), "threads": given.threads, "torch": torch.__version__}
        write_json(given.json, {**found, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
