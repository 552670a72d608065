"""Runs swarms with cheats of `tests.support.cheats` beside honest miners, and says what each came to."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from iota.swarm.preparation import VALIDATOR, ledger_weights, miner_names
from iota.swarm.programs import NETUID
from orchestrator.coordinator.state import Phase
from tests.support.cheat_cases import STEPS, Case
from tests.support.cheats.first_lie import first_lie
from tests.support.live_swarm import LiveSwarm, Status, tiny

BAD: Final = ("fail", "undelivered")
"""Outcomes that are held against a miner."""
MOST_MINERS: Final = 10
"""Of a case."""
_EPOCH: Final = re.compile(r"epoch (\d+)")
_REFUSED: Final = re.compile(r"bad-receipts: ([^\n]*?)\), since")
_LATE: Final = "missed a deadline"
"""What is said of slow miners too."""


@dataclass(frozen=True)
class Found:
    """Why a cheat is not paid."""

    by: str
    """The audit that it failed; `charge`: the orchestrator's; `door`: its receipts were refused."""
    reason: str
    step: int
    """Inner step of the run by which it was known: the end of the epoch, and of a refusal the false one."""


@dataclass(frozen=True)
class Outcome:
    """What a run of a case came to, by miner's name where nothing else is said."""

    lies_from: int | None
    """Inner step of the first lie of any cheat; None if none lied."""
    found: Found | None
    """What was first held against one of the cheats."""
    weights: dict[str, float]
    honest: dict[str, dict[str, Any]]
    """What `scores.json` says of each honest miner: TFLOP by what became of them, and its factors."""
    failed: dict[str, list[str]]
    """The audits that each miner failed, or did not deliver to."""
    reasons: dict[str, list[str]]
    undecided: dict[str, list[str]]
    """Other verdicts that are no pass."""
    named: list[str]
    internal_errors: list[str]
    seconds: float
    heldout: dict[int, float]
    """Held-out loss by the base that it is of, where the run has any."""
    merges: list[float]
    """How long each merge took (seconds), from its last step to the next epoch, as the status shows it."""

    @property
    def steps_to_detection(self) -> int | None:
        """Inner steps from the first lie until it was found; None if it never was."""
        if self.found is None or self.lies_from is None:
            return None
        return self.found.step - self.lies_from

    def false_accusations(self, case: Case) -> list[str]:
        """What was held against an honest miner."""
        cheats, said = case.cheats, [] if case.misnames else self.named
        bad = [f"{m}: {r}" for m, found in self.reasons.items() if m not in cheats for r in found]
        paid = [f"{m}: {s}" for m, s in self.honest.items() if s["failed_epochs"] or s["voided"]]
        charged = [line for line in said if any(m in line for m in self.honest) and _LATE not in line]
        return bad + paid + charged


@dataclass
class _Watch:
    """What was in any status of a run: a status shows the newest verdicts alone."""

    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    named: dict[str, None] = field(default_factory=dict)
    merging: dict[int, tuple[float, float]] = field(default_factory=dict)
    """epoch -> when its merge was first and last seen under way."""

    def saw(self, status: Status) -> bool:
        """Keep what is new. Whether the run has ended."""
        if status["phase"] == Phase.MERGING:
            first, _ = self.merging.get(status["epoch"], (time.monotonic(), 0.0))
            self.merging[status["epoch"]] = first, time.monotonic()
        for verdict in status["verdicts"]:
            self.verdicts.setdefault(json.dumps(verdict, sort_keys=True), verdict)
        self.named |= dict.fromkeys(status["named"])
        return bool(status["finished"])


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What an outcome should not be, in words; none if the cheat lost and nobody else did."""
    found = []
    liars = [name for name in case.cheats if name not in case.accomplices]
    if outcome.lies_from is None:
        found.append("the cheat never lied")
    if outcome.found is None and not case.unpaid and case.most == 0:
        found.append("nothing found it")
    least = min(outcome.weights[name] for name in outcome.honest)
    if any(outcome.weights[liar] > case.most * least for liar in liars):
        found.append("the cheat is paid")
    if least <= 0:
        found.append("an honest miner is not paid")
    found += outcome.false_accusations(case)
    return found + outcome.internal_errors


async def run_case(case: Case, root: Path) -> Outcome:
    """Run a case to its end."""
    base = {
        "stages": 2,
        "replicas": 2,
        "steps_per_epoch": STEPS,
        "values": {"audit": {"window_steps": STEPS, "deadline_s": 60}},
    }
    options = tiny(**{**base, "epochs": case.epochs, **case.more})
    entries = {miner: f"tests.support.cheats.{cheat}" for miner, cheat in case.cheats.items()}
    begun, watch = time.monotonic(), _Watch()
    ways = {} if case.way is None else dict.fromkeys(miner_names(MOST_MINERS), case.way)
    async with LiveSwarm(root, options, validator=True, entries=entries, ways=ways, in_order=True) as swarm:
        await swarm.until(watch.saw, 400)
        seconds = time.monotonic() - begun
        await swarm.validator_done(90)
        status = await swarm.until(watch.saw)  # once more: audits go on after the last step
        by_hotkey = await ledger_weights(swarm.crew, swarm.programs.url("ledger"), NETUID)
        weights = {swarm.name_of(hotkey): weight for hotkey, weight in by_hotkey.items()}
        (file,) = swarm.run_dir.node(VALIDATOR).rglob("scores.json")
        scores = json.loads(file.read_text())["miners"]
        logs = {cheat: swarm.run_dir.log(cheat).read_text(errors="replace") for cheat in case.cheats}
        verdicts = [{**v, "miner": swarm.name_of(v["miner"])} for v in watch.verdicts.values()]
        bad = [v for v in verdicts if v["outcome"] in BAD]
        named = [_with_names(swarm, line) for line in watch.named]
        steps = swarm.spec.schedule.steps
        lies = [step for text in logs.values() if (step := first_lie(text, steps)) is not None]
        honest = sorted(name for name in weights if name not in case.cheats)
        return Outcome(
            lies_from=min(lies, default=None),
            found=_first(case, steps, bad, named, logs, min(lies, default=0)),
            weights=dict(sorted(weights.items())),
            honest={name: _shown(scores[swarm.crew.addresses[name]]) for name in honest},
            failed=_by_miner((v["miner"], v["audit"]) for v in bad),
            reasons=_by_miner((v["miner"], v["reason"]) for v in bad),
            undecided=_by_miner(
                (v["miner"], f"{v['audit']} {v['outcome']}: {v['reason']}")
                for v in verdicts
                if v["outcome"] not in (*BAD, "pass")
            ),
            named=named,
            internal_errors=status["internal_errors"],
            seconds=round(seconds, 1),
            heldout={int(epoch): loss for epoch, loss in status["heldout"].items()},
            merges=[round(last - first, 1) for first, last in watch.merging.values()],
        )


def _first(
    case: Case,
    steps: int,
    bad: list[dict[str, Any]],
    named: list[str],
    logs: dict[str, str],
    lies_from: int,
) -> Found | None:
    """What was known first; of one epoch a refusal before a charge before an audit."""
    liars = set(case.cheats) - case.accomplices
    found = [
        Found("door", refused[1], lies_from)
        for liar in sorted(liars)
        if (refused := _REFUSED.search(logs[liar])) is not None
    ]
    for line in named:
        epoch = _EPOCH.search(line)
        if epoch is not None and any(liar in line for liar in liars) and _LATE not in line:
            found.append(Found("charge", line, (int(epoch[1]) + 1) * steps))
    for verdict in bad:
        if verdict["miner"] in liars:
            by = verdict["audit"] + (", undelivered" if verdict["outcome"] == "undelivered" else "")
            found.append(Found(by, verdict["reason"], (verdict["epoch"] + 1) * steps))
    return min(found, key=lambda one: one.step, default=None)


def _with_names(swarm: LiveSwarm, line: str) -> str:
    for name, hotkey in swarm.crew.addresses.items():
        line = line.replace(hotkey, name)
    return line


def _shown(score: dict[str, Any]) -> dict[str, Any]:
    work = {state: round(score[state] / 1e12, 3) for state in ("work", "open", "voided")}
    return {**work, "timeliness": score["timeliness"], "failed_epochs": score["failed_epochs"]}


def _by_miner(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for miner, what in pairs:
        found.setdefault(miner, set()).add(what)
    return {miner: sorted(what) for miner, what in sorted(found.items())}
