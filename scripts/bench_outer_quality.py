"""What codecs of pseudo-gradients cost in quality: held-out loss of three replicas, all else equal.

Each row trains the same tokens in this process. Three replicas take one microbatch of a step each, and merge
every H steps as a swarm does: change of the weights, error feedback, codec, mean, outer step. The row *one
replica* takes all three in each step, with a mean over them: what the others are held against. **of one** is
held-out loss over that row's, the mean over seeds; **of none** over that of `none` with the same H and outer
step. Two outer steps are compared: a plain mean (eta 1, no momentum) and Nesterov's (`--eta`, `--momentum`).

    python scripts/bench_outer_quality.py --threads 1          # preset `tiny`, 200 steps, H of 10 and 50
    python scripts/bench_outer_quality.py --smoke              # does it run at all; seconds
    python scripts/bench_outer_quality.py --seeds 3 --json out.json
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from bench_boundary import DENSE, SIZES, Size, heldout_tokens, microbatch_loss, spec_of, training_parser

from iota.compute import Microbatch
from iota.compute.engine import Engine
from iota.compute.evaluate import evaluate_model
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.data import DirectoryReader
from iota.outer import open_delta_codec, outer_step
from iota.outer.base import initial_base, named_weights
from iota.outer.error_feedback import encode_part
from iota.outer.partition import Vector, split
from iota.outer.pseudo_gradient import flatten
from iota.outer.weighted_mean import weighted_mean
from iota.spec import OptimizerKind, OuterCodec, Pipeline, RunSpec
from iota.swarm.preparation import prepare_data
from iota.swarm.run_dir import write_json

REPLICAS = 3
ONE = "one replica"
PLAIN = (1.0, 0.0)
"""eta and mu of a merge that is a mean."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What differs between rows."""

    codec: str
    steps: int
    """H; 0 for one replica."""
    eta: float
    momentum: float


@dataclass(frozen=True)
class Row:
    """One run."""

    setting: Setting
    seed: int
    heldout_loss: float
    seconds: float


def run_spec(size: Size, setting: Setting, seed: int, beta: float, manifest: str, vocabulary: int) -> RunSpec:
    """The spec of a row."""
    spec = spec_of(size, OptimizerKind.ADAMW, DENSE, 1, seed, Pipeline.SYNC, manifest, vocabulary)
    given = spec.model_dump()
    steps = setting.steps or size.steps
    given["schedule"] |= {"epochs": size.steps // steps, "steps": steps, "microbatches": REPLICAS}
    codec = OuterCodec.NONE if setting.codec == ONE else OuterCodec(setting.codec)
    given["outer"] |= {
        "eta": setting.eta, "momentum": setting.momentum, "momentum_warmup": 0, "codec": codec, "beta": beta,
    }  # fmt: skip
    return RunSpec.model_validate(given)


def train_one(spec: RunSpec, reader: DirectoryReader) -> Engine:
    """One replica on the joint batches."""
    engine = Engine(spec, 0)
    engine.load(StageState.initial(spec, 0), version=0)
    for step in range(spec.schedule.steps):
        for index in range(REPLICAS):
            microbatch_loss(spec, [engine], Microbatch(0, step, index), reader)
        engine.step(step, REPLICAS, spec.learning_rate(0, step))
    return engine


def train_three(spec: RunSpec, reader: DirectoryReader) -> Engine:
    """Three replicas; any of them after the last merge."""
    engines = [Engine(spec, 0) for _ in range(REPLICAS)]
    base = initial_base(spec, 0)
    feedback: list[list[Vector | None]] = [[None] * len(_parts(spec, base.weights)) for _ in engines]
    for engine in engines:
        engine.load(StageState.initial(spec, 0), version=0)
    for epoch in range(spec.schedule.epochs):
        for replica, engine in enumerate(engines):
            for step in range(spec.schedule.steps):
                microbatch_loss(spec, [engine], Microbatch(epoch, step, replica), reader)
                engine.step(step, 1, spec.learning_rate(epoch, step))
        sent = {str(r): _sent(spec, base.weights, engine, feedback[r]) for r, engine in enumerate(engines)}
        merged = weighted_mean(dict.fromkeys(sent, 1), sent.__getitem__)
        base = outer_step(base, merged, spec.outer.eta, spec.outer.momentum_at(epoch))
        for engine in engines:
            engine.rebase(named_weights(spec, 0, base.weights))
    return engines[0]


def _parts(spec: RunSpec, vector_N: Vector) -> list[Vector]:
    return split(vector_N, spec.outer.part_elements)


def _sent(spec: RunSpec, base_N: Vector, engine: Engine, feedback: list[Vector | None]) -> Vector:
    """What arrives of a replica's pseudo-gradient; its feedback is replaced by what is left."""
    change, arrived = base_N - flatten(engine.state(copy=False).weights).numpy(), []
    codec = open_delta_codec(spec.outer.codec)
    for number, part in enumerate(_parts(spec, change)):
        data, feedback[number] = encode_part(spec.outer, part, feedback[number])
        arrived.append(codec.decode(data, part.size))
    return np.concatenate(arrived)


def settings(size: Size, periods: Sequence[int], nesterov: tuple[float, float]) -> list[Setting]:
    """One replica first, then `none` before the codecs that are held against it."""
    found = [Setting(ONE, 0, *PLAIN)]
    for steps in periods:
        for outer in dict.fromkeys((PLAIN, nesterov)):
            found += [Setting(codec.value, steps, *outer) for codec in OuterCodec]
    return [each for each in found if size.steps % (each.steps or 1) == 0]


def run_row(spec: RunSpec, setting: Setting, reader: DirectoryReader, heldout: list[Tokens]) -> Row:
    """Train, and measure."""
    began = time.perf_counter()
    engine = (train_one if setting.codec == ONE else train_three)(spec, reader)
    loss = evaluate_model(spec, iter([engine.state()]), heldout)
    return Row(setting, spec.seed, loss, time.perf_counter() - began)


def table(rows: list[Row]) -> str:
    """Markdown."""
    by_setting: dict[Setting, list[Row]] = {}
    for row in rows:
        by_setting.setdefault(row.setting, []).append(row)
    text = ["| H | eta, mu | codec | held-out loss | of one | of none |", "|---|---|---|---|---|---|"]
    for setting, group in by_setting.items():
        whole = _ratio(group, by_setting[Setting(ONE, 0, *PLAIN)])
        none = by_setting.get(replace(setting, codec=OuterCodec.NONE.value))
        loss = statistics.fmean(row.heldout_loss for row in group)
        text.append(
            f"| {setting.steps or ''} | {setting.eta:g}, {setting.momentum:g} | {setting.codec} |"
            f" {loss:.4f} | {whole} | {'' if none is None else _ratio(group, none)} |"
        )
    return "\n".join(text)


def _ratio(group: list[Row], plain: list[Row]) -> str:
    by_seed = {row.seed: row.heldout_loss for row in plain}
    return f"{100 * (statistics.fmean(row.heldout_loss / by_seed[row.seed] for row in group) - 1):+.2f} %"


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--periods", type=int, nargs="+", default=[10, 50], help="H of the rows")
    parser.add_argument("--eta", type=float, default=0.7)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--beta", type=float, default=0.95)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    smoke = given.size == "smoke"
    size = replace(
        SIZES[given.size], stages=1, microbatches=REPLICAS, steps=given.steps or (4 if smoke else 200)
    )
    size = replace(size, sequences=max(1, size.sequences // 2))
    manifest = prepare_data("stdlib", "bytes", given.data_dir, lambda text: print(text, flush=True))
    reader = DirectoryReader(given.data_dir, manifest.content_digest())
    heldout, rows = heldout_tokens(size, reader), []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for setting in settings(size, [2] if smoke else given.periods, (given.eta, given.momentum)):
            spec = run_spec(
                size, setting, seed, given.beta, manifest.content_digest(), manifest.tokenizer.vocab_size
            )
            rows.append(row := run_row(spec, setting, reader, heldout))
            print(f"{setting} seed {seed}: held-out {row.heldout_loss:.4f}, {row.seconds:.0f} s", flush=True)
    print("\n" + table(rows))
    if given.json is not None:
        found = {"size": asdict(size), "threads": given.threads, "torch": torch.__version__}
        write_json(given.json, {**found, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
