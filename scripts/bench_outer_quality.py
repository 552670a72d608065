"""What codecs of pseudo-gradients and overlap cost in quality: held-out loss of three replicas.

Each row trains the same tokens in this process. Three replicas take one microbatch of a step each, and merge
every H steps as a swarm does: change of the weights, error feedback, codec, mean, outer step. The row *one
replica* takes all three in each step, with a mean over them: what the others are held against. **of one** is
held-out loss over that row's, the mean over seeds, with the standard deviation; **of none** over that of
`none` without overlap, with the same H and outer momentum; the loss is that of the base after the last merge.

Two outer steps are compared: a plain mean (eta 1, no momentum) and Nesterov's (`--eta`, `--momentum`, warmed
up as in a run). Rows with overlap begin each epoch with a replica's own start, one merge late, and have eta
the eta that `iota spec` proposes (docs/training.md says why), or `--overlap-eta`, for the plain mean. Rows
that `--json` has already are not trained again.

    python scripts/bench_outer_quality.py --threads 1          # preset `tiny`, 200 steps, H of 10 and 50
    python scripts/bench_outer_quality.py --narrow --seeds 3 --json out.json    # 125,376 parameters
    python scripts/bench_outer_quality.py --smoke              # does it run at all; seconds
    python scripts/bench_outer_quality.py --narrow --steps 1200 --periods 10 --curve 10 --codecs none sparse
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
OUTERS = ("plain", "plain-overlap", "nesterov", "nesterov-overlap")
NARROW = {"hidden_size": 64, "layers": 2, "ffn_size": 176}
Outer = tuple[float, float, bool]
"""eta, mu, and whether there is overlap."""


@dataclass(frozen=True)
class Setting:
    """What differs between rows."""

    codec: str
    steps: int
    """H; 0 for one replica."""
    eta: float
    momentum: float
    overlap: bool = False


@dataclass(frozen=True)
class Row:
    """One run."""

    setting: Setting
    seed: int
    heldout_loss: float
    seconds: float
    curve: tuple[tuple[int, float], ...] = ()
    """Held-out loss of bases, by the number of merges before."""


@dataclass(frozen=True)
class Data:
    """What the rows train and are measured on."""

    reader: DirectoryReader
    heldout: list[Tokens]
    curve: int
    """A base in so many is measured on the way; 0 for none."""


def run_spec(
    size: Size, narrow: bool, setting: Setting, seed: int, beta: float, manifest: str, vocabulary: int
) -> RunSpec:
    """The spec of a row."""
    spec = spec_of(size, OptimizerKind.ADAMW, DENSE, 1, seed, Pipeline.SYNC, manifest, vocabulary)
    given = spec.model_dump()
    steps = setting.steps or size.steps
    given["schedule"] |= {"epochs": size.steps // steps, "steps": steps, "microbatches": REPLICAS}
    codec = OuterCodec.NONE if setting.codec == ONE else OuterCodec(setting.codec)
    given["outer"] |= {
        "eta": setting.eta, "momentum": setting.momentum, "codec": codec, "beta": beta,
    }  # fmt: skip
    if narrow:
        given["model"] |= NARROW
        given["layout"]["cuts"] = [NARROW["layers"]]
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


def train_three(spec: RunSpec, data: Data, overlap: bool) -> tuple[Vector, list[tuple[int, float]]]:
    """Three replicas: the weights of the last base, and the curve."""
    engines = [Engine(spec, 0) for _ in range(REPLICAS)]
    base, curve = initial_base(spec, 0), []
    feedback: list[list[Vector | None]] = [[None] * len(_parts(spec, base.weights)) for _ in engines]
    starts = [base.weights] * REPLICAS
    for engine in engines:
        engine.load(StageState.initial(spec, 0), version=0)
    for epoch in range(spec.schedule.epochs):
        for replica, engine in enumerate(engines):
            for step in range(spec.schedule.steps):
                microbatch_loss(spec, [engine], Microbatch(epoch, step, replica), data.reader)
                engine.step(step, 1, spec.learning_rate(epoch, step))
        sent = {str(r): _sent(spec, starts[r], engine, feedback[r]) for r, engine in enumerate(engines)}
        merged = weighted_mean(dict.fromkeys(sent, 1), sent.__getitem__)
        anchor, outer = base, (spec.outer.eta, spec.outer.momentum_at(epoch))
        base = outer_step(anchor, merged, *outer)
        for replica, engine in enumerate(engines):
            own = outer_step(anchor, sent[str(replica)], *outer) if overlap else base
            starts[replica] = own.weights
            engine.rebase(named_weights(spec, 0, own.weights))
        if data.curve and (epoch + 1) % data.curve == 0:
            curve.append((epoch + 1, heldout_loss(spec, base.weights, data)))
    return base.weights, curve


def heldout_loss(spec: RunSpec, base_N: Vector, data: Data) -> float:
    """Of a base's weights."""
    state = replace(StageState.initial(spec, 0), weights=named_weights(spec, 0, base_N))
    return evaluate_model(spec, iter([state]), data.heldout)


def _parts(spec: RunSpec, vector_N: Vector) -> list[Vector]:
    return split(vector_N, spec.outer.part_elements)


def _sent(spec: RunSpec, start_N: Vector, engine: Engine, feedback: list[Vector | None]) -> Vector:
    """What arrives of a replica's pseudo-gradient; its feedback is replaced by what is left."""
    change, arrived = start_N - flatten(engine.state(copy=False).weights).numpy(), []
    codec = open_delta_codec(spec.outer.codec)
    for number, part in enumerate(_parts(spec, change)):
        data, feedback[number] = encode_part(spec.outer, part, feedback[number])
        arrived.append(codec.decode(data, part.size))
    return np.concatenate(arrived)


def settings(size: Size, periods: Sequence[int], given: argparse.Namespace) -> list[Setting]:
    """One replica first, then `none` without overlap before what is held against it."""
    found = [Setting(ONE, 0, *PLAIN)]
    for steps in periods:
        for name in given.outer:
            found += [
                Setting(codec, steps, *outer_of(name, OuterCodec(codec), given)) for codec in given.codecs
            ]
    return [each for each in found if size.steps % (each.steps or 1) == 0]


def outer_of(name: str, codec: OuterCodec, given: argparse.Namespace) -> Outer:
    """Eta, mu and overlap of one of `OUTERS`."""
    overlap = name.endswith("overlap")
    if name.startswith("nesterov"):
        return given.eta, given.momentum, overlap
    eta, mu = PLAIN
    if overlap:
        eta = given.overlap_eta or (1.0 if codec.is_sparse else 0.5)
    return eta, mu, overlap


def run_row(spec: RunSpec, setting: Setting, data: Data) -> Row:
    """Train, and measure."""
    began = time.perf_counter()
    curve: list[tuple[int, float]] = []
    if setting.codec == ONE:
        loss = evaluate_model(spec, iter([train_one(spec, data.reader).state()]), data.heldout)
    else:
        last, curve = train_three(spec, data, setting.overlap)
        loss = heldout_loss(spec, last, data)
    return Row(setting, spec.seed, loss, time.perf_counter() - began, tuple(curve))


def table(rows: list[Row]) -> str:
    """Markdown."""
    by_setting: dict[Setting, list[Row]] = {}
    for row in rows:
        by_setting.setdefault(row.setting, []).append(row)
    text = [
        "| H | eta, mu | overlap | codec | held-out loss | of one | of none |",
        "|---|---|---|---|---|---|---|",
    ]
    for setting, group in by_setting.items():
        whole = _ratio(group, by_setting.get(Setting(ONE, 0, *PLAIN), []))
        none = _ratio(group, _none_beside(setting, by_setting))
        loss = statistics.fmean(row.heldout_loss for row in group)
        text.append(
            f"| {setting.steps or ''} | {setting.eta:g}, {setting.momentum:g}"
            f" | {'one_epoch' if setting.overlap else ''} | {setting.codec} |"
            f" {loss:.4f} | {whole} | {none} |"
        )
    for row in rows:
        if row.curve:
            told = ", ".join(f"{merges}: {loss:.4f}" for merges, loss in row.curve)
            text.append(f"\n{row.setting} seed {row.seed}, by merges: {told}")
    return "\n".join(text)


def _none_beside(setting: Setting, by_setting: Mapping[Setting, list[Row]]) -> list[Row]:
    """The rows of `none` with the same H and momentum, without overlap."""
    for other, rows in by_setting.items():
        same = (other.steps, other.momentum) == (setting.steps, setting.momentum)
        if same and other.codec == OuterCodec.NONE and not other.overlap:
            return rows
    return []


def _ratio(group: list[Row], plain: list[Row]) -> str:
    by_seed = {row.seed: row.heldout_loss for row in plain}
    ratios = [100 * (row.heldout_loss / by_seed[row.seed] - 1) for row in group if row.seed in by_seed]
    if not ratios:
        return ""
    spread = f" ± {statistics.stdev(ratios):.1f}" if len(ratios) > 1 and any(ratios) else ""
    return f"{statistics.fmean(ratios):+.2f}{spread} %"


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--periods", type=int, nargs="+", default=[10, 50], help="H of the rows")
    parser.add_argument("--eta", type=float, default=0.7)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--beta", type=float, default=0.95)
    parser.add_argument(
        "--overlap-eta",
        type=float,
        help="of a plain mean with overlap; by default 0.5, and 1 for a sparse codec",
    )
    parser.add_argument("--outer", nargs="+", choices=OUTERS, default=OUTERS)
    parser.add_argument("--codecs", nargs="+", default=list(OuterCodec), choices=list(OuterCodec))
    parser.add_argument("--curve", type=int, default=0, help="measure a base in so many on the way, too")
    parser.add_argument(
        "--narrow", action="store_true", help="a model of 125,376 parameters, half the tokens"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    smoke = given.size == "smoke"
    size = replace(
        SIZES[given.size], stages=1, microbatches=REPLICAS, steps=given.steps or (4 if smoke else 200)
    )
    length = size.sequence_length // (2 if given.narrow else 1)
    size = replace(size, sequences=max(1, size.sequences // 2), sequence_length=length)
    manifest = prepare_data("stdlib", "bytes", given.data_dir, lambda text: print(text, flush=True))
    reader = DirectoryReader(given.data_dir, manifest.content_digest())
    data = Data(reader, heldout_tokens(size, reader), given.curve)
    named = manifest.content_digest(), manifest.tokenizer.vocab_size
    about = {"size": asdict(size), "narrow": given.narrow, "torch": torch.__version__}
    rows = [] if given.json is None else read_rows(given.json, about)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        periods = [2] if smoke else given.periods
        for setting in settings(size, periods, given):
            if any((row.setting, row.seed) == (setting, seed) for row in rows):
                continue
            spec = run_spec(size, given.narrow, setting, seed, given.beta, *named)
            rows.append(row := run_row(spec, setting, data))
            print(f"{setting} seed {seed}: held-out {row.heldout_loss:.4f}, {row.seconds:.0f} s", flush=True)
            if given.json is not None:
                write_json(given.json, {**about, "rows": [asdict(row) for row in rows]})
    print("\n" + table(rows))


def read_rows(file: Path, about: Mapping[str, object]) -> list[Row]:
    """The rows that a run before has left; raises SystemExit if they are of another size."""
    if not file.exists():
        return []
    found = json.loads(file.read_bytes())
    if {name: found[name] for name in about} != json.loads(json.dumps(about)):
        raise SystemExit(f"{file} has rows of another size: give another file")
    return [Row(**{**row, "setting": Setting(**row["setting"])}) for row in found["rows"]]


if __name__ == "__main__":
    main()
