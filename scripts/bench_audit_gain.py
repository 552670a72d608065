"""What each cheat gains on average by the scoring rule, at several rates of lying. Prints JSON.

Each row of `rows` plays one cheat beside an honest miner, with one validator: audits are drawn at the spec's
rates, and pay follows from `validator.core.scoring`. While it is banned, the cheat rests and pays for no
compute. `gain` is its profit less that of an honest miner, in units of an honest miner's pay.

Each row of `hidden` is a miner that nudges every STEP of some epochs, computes no weight gradient there, and
has a neighbour store frames that are none, so that no audit of these STEPs is decided. It knows all verdicts
of the epochs before, and is honest where a STEP audit is certain. `pay` and `work` are shares of an honest
miner's.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

from iota.spec import AuditSpec
from validator.core.scoring import MinerWork, scores
from validator.core.vesting import Findings, MinerEpoch, ban_end, failed_epochs, with_epochs_before

STEPS, MICROBATCHES = 10, 32
"""Of an epoch, and of a step."""
COST = 0.5
"""Cost of honest compute as a share of its pay: who saves compute gains more where it is larger."""
RATES = (1.0, 0.3, 0.1, 0.03)
VALIDATORS = (1, 2, 3, 5)
_FLOPS = 10**6
CHEAT, HONEST = "cheat", "honest"


@dataclass(frozen=True)
class Cheat:
    """A cheat in share q of its ops, of its steps or of its epochs."""

    name: str
    unit: str
    """What it lies in: `op`, `step` or `epoch`."""
    saves: float
    """Share of its compute that it saves where it lies."""
    withholds: bool = False
    """It delivers no evidence that shows a lie."""
    hides: bool = False
    """A neighbour stored no frame that can be read where it lies, so that no audit of that is decided."""


CHEATS = (
    Cheat("noise, zeros or another's output in place of a result", "op", 1.0),
    Cheat("the same, and no evidence when that is drawn", "op", 1.0, withholds=True),
    Cheat("noise, where a neighbour stores frames that are none", "step", 1.0, hides=True),
    Cheat("a false loss", "op", 0.0),
    Cheat("old weights: STEP is nudged, and no weight gradient is computed", "step", 1 / 3),
    Cheat("the same, and no evidence when that is drawn", "step", 1 / 3, withholds=True),
    Cheat("a scaled pseudo-gradient within the bounds", "epoch", 0.0),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    cheat: str
    unit: str
    rate: float
    detected: float
    """Chance of a bad verdict in an epoch in which it works."""
    pay: float
    """Its pay as a share of an honest miner's."""
    gain: float


def judged(cheat: Cheat, rate: float, audit: AuditSpec, rng: random.Random) -> tuple[bool, bool]:
    """(a lie is drawn, a STEP is replayed) of one epoch's audits by one validator.

    A STEP that passes decides an epoch in which other evidence is hidden.
    """
    steps = [rng.random() < rate for _ in range(STEPS)] if cheat.unit == "step" else [False] * STEPS
    poisoned = cheat.unit == "epoch" and rng.random() < rate
    op_rate = rate if cheat.unit == "op" else 0.0
    of_step, of_epoch = rng.randrange(audit.step_every) == 0, rng.randrange(audit.epoch_every) == 0
    found = any(rng.random() < op_rate for _ in range(audit.ops))
    step_lies = steps[rng.randrange(STEPS)] or rng.random() > (1 - op_rate) ** MICROBATCHES
    epoch_lies = poisoned or any(steps) or rng.random() > (1 - op_rate) ** (MICROBATCHES * STEPS)
    found |= (of_step and step_lies) or (of_epoch and epoch_lies)
    if cheat.hides:
        found |= any(steps[rng.randrange(STEPS)] for _ in range(audit.ops))
        found &= not ((of_step and not step_lies) or (of_epoch and not epoch_lies))
    return found, of_step or of_epoch


HIDING: dict[str, Callable[[int, bool], bool]] = {
    "every epoch": lambda epoch, passed: True,
    "every other epoch": lambda epoch, passed: epoch % 2 == 0,
    "one epoch in ten": lambda epoch, passed: epoch % 10 == 0,
    "each epoch after a pass": lambda epoch, passed: passed,
}
"""When a miner nudges its STEPs: from the epoch, and whether some STEP of it passed in the one before."""


@dataclass(frozen=True)
class HiddenRow:
    """What a miner comes to that hides nudged STEPs."""

    hides: str
    validators: int
    pay: float
    """At each validator, as a share of an honest miner's."""
    work: float
    """Share of an honest miner's compute that it does."""


def hide(hides: str, validators: int, audit: AuditSpec, lives: int, epochs: int) -> HiddenRow:
    """A miner that hides nudged STEPs beside an honest one, scored by the first of some validators."""
    pay, work = {CHEAT: 0.0, HONEST: 0.0}, 0.0
    for life in range(lives):
        rng, owed = random.Random(f"{hides} {validators} {life}"), set[int]()
        passed, undecided, entries = set[MinerEpoch](), set[MinerEpoch](), list[MinerWork]()
        for epoch in range(epochs):
            cheats = HIDING[hides](epoch, (epoch - 1, CHEAT) in passed) and not owed
            work += 2 / 3 if cheats else 1
            drawn = {
                number
                for number in range(validators)
                if 0 in (rng.randrange(audit.step_every), rng.randrange(audit.epoch_every))
            }
            audited = owed | drawn
            owed = audited if cheats else set()
            passed |= {(epoch, HONEST)} if drawn else set()
            passed |= {(epoch, CHEAT)} if audited and not cheats else set()
            undecided |= {(epoch, CHEAT)} if cheats and 0 in audited else set()
            entries += [MinerWork(epoch, name, name, _FLOPS, 1, 0) for name in pay]
            gone = with_epochs_before(undecided, [(entry.epoch, entry.hotkey) for entry in entries])
            found = Findings(passed=frozenset(passed), undecided=frozenset(gone))
            for score in scores(audit, epoch, entries[-2 * audit.window :], found):
                pay[score.hotkey] += score.score
    return HiddenRow(hides, validators, pay[CHEAT] / pay[HONEST], work / (lives * epochs))


def play(cheat: Cheat, rate: float, audit: AuditSpec, lives: int, epochs: int) -> Row:
    """A cheat and an honest miner with the same draws, in so many lives of `epochs` epochs each."""
    sums, cost, worked, detected = {CHEAT: 0.0, HONEST: 0.0}, 0.0, 0, 0
    for life in range(lives):
        rng = random.Random(f"{cheat.name} {cheat.unit} {rate} {life}")
        work: list[MinerWork] = []
        passed: set[tuple[int, str]] = set()
        bad: set[tuple[int, str]] = set()
        for epoch in range(epochs):
            found, replayed = judged(cheat, rate, audit, rng)
            failed = failed_epochs(_findings(cheat, passed, bad), {}, audit.window).get(CHEAT, ())
            if epoch >= ban_end(failed, audit.window):
                work.append(MinerWork(epoch, CHEAT, CHEAT, _FLOPS, 1, 0))
                worked, cost, detected = worked + 1, cost + 1 - rate * cheat.saves, detected + found
                (bad if found else passed if replayed else set()).add((epoch, CHEAT))
            work.append(MinerWork(epoch, HONEST, HONEST, _FLOPS, 1, 0))
            if replayed:
                passed.add((epoch, HONEST))
            for score in scores(audit, epoch, work[-2 * audit.window :], _findings(cheat, passed, bad)):
                sums[score.hotkey] += score.score
    pay = sums[CHEAT] / sums[HONEST]
    gain = (pay - COST * cost / (lives * epochs)) - (1 - COST)
    return Row(cheat.name, cheat.unit, rate, detected / worked, pay, gain)


def _findings(cheat: Cheat, passed: set[tuple[int, str]], bad: set[tuple[int, str]]) -> Findings:
    found = Findings(passed=frozenset(passed))
    if cheat.withholds:
        return replace(found, undelivered=frozenset(bad))
    if cheat.hides:
        return replace(found, undecided=frozenset(bad))
    return replace(found, failed=frozenset(bad))


def table(audit: AuditSpec, lives: int, epochs: int) -> Iterator[Row]:
    """Every cheat at every rate."""
    for cheat in CHEATS:
        for rate in RATES:
            yield play(cheat, rate, audit, lives, epochs)


def main() -> None:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--smoke", action="store_true", help="few lives, for a test of the script")
    args = parser.parse_args()
    audit = AuditSpec()
    lives = 2 if args.smoke else args.lives
    document = {
        "audit": audit.model_dump(mode="json"),
        "cost": COST,
        "rows": [asdict(row) for row in table(audit, lives, args.epochs)],
        "hidden": [asdict(hide(h, n, audit, lives, args.epochs)) for h in HIDING for n in VALIDATORS],
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
