"""Swarms with cheats of `tests.support.cheats` beside honest miners, and what each came to.

`python -m tests.support.cheat_runs [NAME...]` runs them one after another and prints a table of weights.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from iota.swarm.preparation import VALIDATOR, ledger_weights
from iota.swarm.programs import NETUID
from tests.support.live_swarm import LiveSwarm, tiny


@dataclass(frozen=True)
class Case:
    """A swarm, with the cheat of some of its miners by name. A STEP of each miner and epoch is audited."""

    cheats: dict[str, str]
    epochs: int = 3
    more: dict[str, Any] = field(default_factory=dict)
    most: float = 0.0
    """What the cheat may earn, as a share of what the honest miner earns that has least."""


@dataclass(frozen=True)
class Outcome:
    """What a run of a case came to, by miner's name where nothing else is said."""

    weights: dict[str, float]
    honest: dict[str, dict[str, Any]]
    """What `scores.json` says of each honest miner: TFLOP by what became of them, and its factors."""
    failed: dict[str, list[str]]
    """The audits that each miner failed, or did not deliver to."""
    reasons: dict[str, list[str]]
    named: list[str]
    internal_errors: list[str]
    seconds: float


CASES: Final = {
    "no work after the base, and no snapshot": Case({"miner-00": "lazy"}),
    "the same, and no second replica": Case({"miner-00": "lazy"}, more={"replicas": 1}),
    "frames that are not stored, and constants": Case(
        {"miner-00": "unstored_frames", "miner-01": "constants"}
    ),
    "never steps": Case({"miner-00": "still"}),
    "pseudo-gradient times -100": Case({"miner-00": "reversed_delta"}),
    "pseudo-gradient of NaN": Case({"miner-00": "nan_delta"}),
    "pseudo-gradient of 1e30": Case({"miner-00": "huge_delta"}),
    "no pseudo-gradient": Case({"miner-00": "no_delta"}, epochs=2),  # each merge waits for its deadline
    "three lying mergers": Case({f"miner-0{n}": "lying_merger" for n in (0, 1, 2)}),
    "three mergers against one": Case({f"miner-0{n}": "excluding_merger" for n in (0, 1, 2)}),
    "noise without receipts": Case({"miner-00": "no_forward_receipts"}),
    "second receipts": Case({"miner-00": "second_receipts"}),
    "denied frames": Case({"miner-01": "denier"}, most=0.9),
    "false NaN": Case({"miner-01": "crier"}),
}
"""miner-00 and miner-02 have stage 0, miner-01 and miner-03 stage 1."""


async def run_case(case: Case, root: Path) -> Outcome:
    """Run a case to its end."""
    base = {
        "stages": 2,
        "replicas": 2,
        "steps_per_epoch": 3,
        "values": {"audit": {"commit_every": 2, "window_steps": 3, "extra_every": 1, "deadline_s": 60}},
    }
    options = tiny(**{**base, "epochs": case.epochs, **case.more})
    entries = {miner: f"tests.support.cheats:{cheat}" for miner, cheat in case.cheats.items()}
    begun = time.monotonic()
    async with LiveSwarm(root, options, validator=True, entries=entries, in_order=True) as swarm:
        await swarm.finished(400)
        seconds = time.monotonic() - begun
        await swarm.validator_done(90)
        status = await swarm.finished()  # once more: audits go on after the last step
        by_hotkey = await ledger_weights(swarm.crew, swarm.programs.url("ledger"), NETUID)
        weights = {swarm.name_of(hotkey): weight for hotkey, weight in by_hotkey.items()}
        (file,) = swarm.run_dir.node(VALIDATOR).rglob("scores.json")
        scores = json.loads(file.read_text())["miners"]
        bad = [v for v in status["verdicts"] if v["outcome"] in ("fail", "undelivered")]
        honest = sorted(name for name in weights if name not in case.cheats)
        return Outcome(
            weights=dict(sorted(weights.items())),
            honest={name: _shown(scores[swarm.crew.addresses[name]]) for name in honest},
            failed=_by_miner(swarm, [(v["miner"], v["audit"]) for v in bad]),
            reasons=_by_miner(swarm, [(v["miner"], v["reason"]) for v in bad]),
            named=status["named"],
            internal_errors=status["internal_errors"],
            seconds=round(seconds, 1),
        )


def _shown(score: dict[str, Any]) -> dict[str, Any]:
    work = {state: round(score[state] / 1e12, 3) for state in ("work", "open", "voided")}
    return {**work, "timeliness": score["timeliness"], "failed_epochs": score["failed_epochs"]}


def _by_miner(swarm: LiveSwarm, pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for miner, what in pairs:
        found.setdefault(swarm.name_of(miner), set()).add(what)
    return {miner: sorted(what) for miner, what in sorted(found.items())}


def _row(name: str, case: Case, outcome: Outcome) -> str:
    cheats = ", ".join(f"{outcome.weights[miner]:.3f}" for miner in case.cheats)
    honest = ", ".join(f"{outcome.weights[miner]:.3f}" for miner in outcome.honest)
    audits = sorted({audit for miner in case.cheats for audit in outcome.failed.get(miner, [])})
    return f"| {name} | {cheats} | {honest} | {', '.join(audits)} | {outcome.seconds:.0f} s |"


def main(names: list[str]) -> None:
    """Print the table."""
    print("| cheat | its weight | weights of the honest | failed audits | run |\n|---|---|---|---|---|")
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(run_case(CASES[name], Path(folder) / "run"))
        print(_row(name, CASES[name], outcome), flush=True)
        print(outcome, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
