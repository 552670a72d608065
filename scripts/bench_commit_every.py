"""What `audit.commit_every` costs and buys: a commitment every step, every few, or once an epoch.

Measured, a miner's side: one stage's steps with a commitment to the state and a synced snapshot every so
many of them, in a thread of their own as in a miner, in turn with the same steps without any. All cadences
run once in each of `--rounds` rounds, and the medians are given:

    cost       seconds of a step over those without commitments, less 1
    busy       share of the time in which the committing thread hashes or writes: near 1 it holds training up
    written    bytes to the disk a step
    copies     bytes of host memory for the copies that are hashed while training goes on

Computed, what `iota plan` says of the preset `orion-100b` in `sync` with `bf16-sr`, Muon, int8 moments and
bf16 sums, and with the smallest windows of audits that keep the compute budget (`iota.model.audit_rates`):

    audited    share of all steps that validators replay; it is the cost to them, in the swarm's compute
    certain    steps within which a segment of every miner is audited: who cheats always is found
    rare       steps until a cheat in one STEP of ten is found with a chance of 99 %
    fetched    bytes that all validators fetch of one miner, a step
    state      bytes of one kept state
    disk       bytes of those that a miner keeps of two epochs

    python scripts/bench_commit_every.py            # `small`, two layers of the middle stage; JSON
    python scripts/bench_commit_every.py --smoke
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from stage_runs import Case, Commits, StageRun

from iota.model.audit_rates import COMPUTE_BUDGET, rates_within, segment_steps
from iota.model.presets import PRESETS
from iota.model.proposal import make_spec
from iota.planning.audits import audit_costs, segments_until, step_seconds
from iota.planning.needs import STATE_COPIES
from iota.settings import Activations
from iota.spec import OptimizerKind, Precision, RunSpec

CHANCE: Final = 0.99
RARE: Final = 0.1


@dataclass(frozen=True)
class Measured:
    """One cadence in one round."""

    step_s: float
    busy: float
    state: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="`tiny`, once")
    parser.add_argument("--model", choices=PRESETS, default="small")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024, help="of a microbatch, in one sequence")
    parser.add_argument("--microbatches", type=int, default=4, help="of a step")
    parser.add_argument("--precision", choices=list(Precision), default=Precision.FP32)
    parser.add_argument("--steps", type=int, default=10, help="H: steps of an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    if given.smoke:
        given.model, given.layers, given.tokens, given.microbatches, given.rounds, given.steps = (
            "tiny", 1, 64, 1, 1, 4,
        )  # fmt: skip
    torch.set_num_threads(given.threads)
    case = Case(
        given.model, "middle", given.layers, given.tokens, given.microbatches, OptimizerKind.MUON,
        Precision(given.precision), Activations.KEEP,
    )  # fmt: skip
    cadences = sorted({1, min(4, given.steps), given.steps})
    measured = measure(case, torch.device(given.device), cadences, given.steps, given.rounds)
    made = {
        "steps": given.steps,
        "measured": measured,
        "orion": [planned(orion_spec(given.steps, every)) for every in cadences],
    }
    print(json.dumps(made, indent=2))
    if given.json:
        given.json.write_text(json.dumps(made, indent=2) + "\n")


def measure(
    case: Case, device: torch.device, cadences: list[int], steps: int, rounds: int
) -> list[dict[str, Any]]:
    """A row a cadence: medians over the rounds, in each of which the cadences run in turn."""
    run = StageRun(case, device)
    run.step()
    found: dict[int, list[Measured]] = {every: [] for every in (0, *cadences)}
    for _ in range(rounds):
        for every, each in found.items():
            each.append(epoch(run, every, steps))
    alone = statistics.median(each.step_s for each in found[0])
    rows = []
    for every in cadences:
        step_s = statistics.median(each.step_s for each in found[every])
        state = found[every][0].state
        rows.append(
            {
                "commit_every": every,
                "step_s": round(step_s, 4),
                "cost": round(step_s / alone - 1, 4),
                "busy": round(statistics.median(each.busy for each in found[every]), 3),
                "written_mb": round(state / every / 1e6, 2),
                "copies_mb": round(STATE_COPIES * state / 1e6, 2),
            }
        )
    return rows


def epoch(run: StageRun, every: int, steps: int) -> Measured:
    """An epoch's steps with a commitment after every so many of them; 0: none.

    The last commitment is waited for, as the next epoch would.
    """
    with tempfile.TemporaryDirectory() as folder:
        commits = Commits(run, Path(folder))
        begun = time.perf_counter()
        for step in range(1, steps + 1):
            run.step()
            if every and (step % every == 0 or step == steps):
                commits.commit()
        commits.wait()
        commits.close()
        taken = time.perf_counter() - begun
        snapshot = Path(folder) / "snapshot"
        size = snapshot.stat().st_size if every else 0
    return Measured(taken / steps, (commits.hash_s + commits.write_s) / taken, size)


def orion_spec(steps: int, every: int) -> RunSpec:
    """Orion's shape with the smallest windows of audits that a cadence allows."""
    model = PRESETS["orion-100b"]
    given = {
        "model": model.model_dump(),
        "schedule": {"steps": steps, "pipeline": "sync"},
        "optimizer": {"kind": OptimizerKind.MUON, "moments": "int8", "gradient_sums": "bf16"},
        "audit": {"commit_every": every},
        "precision": Precision.BF16_SR,
    }
    spec = make_spec(given, "0" * 64, model.vocab_size)
    audit = rates_within(spec, COMPUTE_BUDGET)
    if audit is None:
        raise SystemExit("no rates keep the budget: give longer epochs")
    return spec.model_copy(update={"audit": audit})


def planned(spec: RunSpec) -> dict[str, Any]:
    """What `iota plan` says of a run's audits."""
    costs = audit_costs(spec, step_seconds(spec, 1e-3))
    turn = costs.rates.turn_steps
    length = segment_steps(spec)
    holds = 1 - (1 - RARE) ** length
    return {
        "commit_every": length,
        "audited": round(costs.rates.segment_compute, 4),
        "certain": round(turn),
        "rare": round(segments_until(holds, CHANCE) * turn / costs.segments),
        "fetched_gb": round(costs.fetched / turn / 1e9, 3),
        "state_gb": round(costs.snapshot / 1e9, 1),
        "disk_gb": round(costs.kept / 1e9, 1),
    }


if __name__ == "__main__":
    main()
