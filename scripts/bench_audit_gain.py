"""What each cheat gains on average by the scoring rule, at several rates of lying. Prints JSON.

Each row of `rows` plays one cheat beside an honest miner, with one validator: audits are drawn at the spec's
rates, and pay follows from `validator.core.scoring`. While it is banned, the cheat rests and pays for no
compute. `gain` is its profit less that of an honest miner, in units of an honest miner's pay.

Each row of `hidden` is a miner that in some epochs does no work after the base's version, or nudges every
STEP and computes no weight gradient, and whose evidence is lost, so that no audit of these segments is
decided. It knows all verdicts of the epochs before, and is honest where the audit of a segment is certain.
`pay` and `work` are shares of an honest miner's.

Each row of `seldom` is a cheat that lies in little of its work, or leaves in place of an answer; `assumes`
says what its figure rests on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from iota.model.proposal import make_spec
from iota.spec import AuditSpec
from iota.spec.draft import from_assignments
from validator.core.scoring import MinerWork, scores
from validator.core.vesting import (
    Findings,
    MinerEpoch,
    ban_end,
    failed_epochs,
    hidden_epochs,
    with_epochs_before,
)

STEPS, MICROBATCHES = 10, 32
"""Of an epoch, and of a step."""
BASE_STEPS = 1
"""Steps of an epoch whose ops use the base, and are drawn one by one; in `delayed` there is one more."""
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
    waits: bool = False
    """It lies only in epochs after the one in which its window's public draw fell."""
    once: bool = False
    """It lies in one step of each epoch, whatever the rate."""
    later: bool = False
    """It is honest in the ops that use the base, so that segments alone find it."""
    renews: bool = False
    """It leaves when a lie is drawn, and comes back in the next epoch under a new hotkey, at no cost."""
    forgoes: float = 0.0
    """Share of its pay that it forgoes where it lies; no audit finds such a lie."""

    @property
    def first(self) -> int:
        """The first step of an epoch in which it may lie."""
        return BASE_STEPS if self.later else 0

    @property
    def saved(self) -> float:
        """Share of an epoch's compute that it saves where it lies."""
        return self.saves * (STEPS - self.first) / STEPS


CHEATS = (
    Cheat("noise, zeros or another's output in place of a result", "op", 1.0),
    Cheat("the same, and no evidence when that is drawn", "op", 1.0, withholds=True),
    Cheat("noise, where a neighbour stores frames that are none", "step", 1.0, hides=True),
    Cheat("noise in ops that use a later version than the base", "op", 1.0, later=True),
    Cheat("the same, and no evidence when that is drawn", "op", 1.0, later=True, withholds=True),
    Cheat("the same noise, only after the window's public draw", "op", 1.0, later=True, waits=True),
    Cheat("a false loss", "op", 0.0),
    Cheat("old weights: STEP is nudged, and no weight gradient is computed", "step", 1 / 3),
    Cheat("the same, and no evidence when that is drawn", "step", 1 / 3, withholds=True),
    Cheat("old weights, only after the window's public draw", "step", 1 / 3, waits=True),
    Cheat("a scaled pseudo-gradient within the bounds", "epoch", 0.0),
)

_ONE_STEP = "a segment of audit.commit_every steps shows it if it is drawn, an op audit never does"
SELDOM = (
    (
        Cheat("noise in 5 % of its ops", "op", 1.0),
        0.05,
        "an op audit and a segment each find any lie in what they replay; the class is the same",
    ),
    (
        Cheat("the same in ops that use a later version than the base", "op", 1.0, later=True),
        0.05,
        "a segment finds any lie in what it replays, an op audit none",
    ),
    (
        Cheat(
            "all ops after the base's version, and leaves when that is drawn",
            "op",
            1.0,
            later=True,
            renews=True,
        ),
        1.0,
        "its new hotkey costs nothing, has no ban, and loses no epoch",
    ),
    (
        Cheat("one STEP an epoch is left out, with its weight gradients", "step", 1 / 3, once=True),
        1 / STEPS,
        _ONE_STEP,
    ),
    (
        Cheat("one tensor is left out of one STEP an epoch", "step", 0.0, once=True),
        1 / STEPS,
        f"{_ONE_STEP}; it saves nothing",
    ),
    (
        Cheat("old weights in each STEP, and leaves when that is drawn", "step", 1 / 3, renews=True),
        1.0,
        "its new hotkey costs nothing, has no ban, and loses no epoch",
    ),
    (Cheat("the same in 10 % of its steps", "step", 1 / 3, renews=True), 0.1, "the same"),
    (
        Cheat("joins anew before every STEP", "epoch", 1 / 3, forgoes=1 / 3),
        1.0,
        "no audit finds it, its work vests, and bases are taken anew without limit: none is so in a run",
    ),
)
"""Cheats that lie seldom, the share in which they do, and what their figure rests on."""


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


def window_epochs(audit: AuditSpec) -> int:
    """Epochs of one window of audits."""
    return max(1, audit.window_steps // STEPS)


def before(hidden: Iterable[MinerEpoch], work: Iterable[MinerWork], audit: AuditSpec) -> set[MinerEpoch]:
    """The epochs that hidden segments leave undecided."""
    count = hidden_epochs(window_epochs(audit), audit.extra_every)
    return with_epochs_before(hidden, [(entry.epoch, entry.hotkey) for entry in work], count)


class SegmentDraws:
    """The segments of one miner that are drawn, epoch by epoch, by the rules of `validator.core.segments`."""

    def __init__(self, audit: AuditSpec, validators: int, rng: random.Random) -> None:
        self._audit, self._validators, self._rng = audit, validators, rng
        self._length = self._left = window_epochs(audit)
        self.segments = STEPS // audit.commit_every
        self.fallen = False
        """Whether the public draw of the window fell in an epoch before."""

    def begin(self, epoch: int) -> None:
        """An epoch begins: with a window, nothing has fallen yet."""
        self._left = self._length - epoch % self._length
        if self._left == self._length:
            self.fallen = False

    def end(self, *, certain: bool = False) -> set[int]:
        """The segments of the epoch that some validator audits; `certain` has each draw one."""
        rng = self._rng
        found = {
            rng.randrange(self.segments)
            for _ in range(self._validators)
            if rng.randrange(self._audit.extra_every * self._validators) == 0 or certain
        }
        if rng.randrange(self._length if self.fallen else self._left) == 0:
            self.fallen = True
            found.add(rng.randrange(self.segments))
        return found


def judged(
    cheat: Cheat, rate: float, audit: AuditSpec, drawn: set[int], segments: int, rng: random.Random
) -> tuple[set[str], bool]:
    """What is found of a lie, in `op` or `segment`; and whether a segment passes, of one epoch's audits.

    Args:
        rate: share of the cheat's units in which it lies.
        drawn: the segments that are audited, of so many.
    """
    steps = _false_steps(cheat, rate, rng)
    poisoned = cheat.unit == "epoch" and rng.random() < rate
    op_rate = rate if cheat.unit == "op" else 0.0
    length = STEPS // segments
    false = {
        at
        for at in drawn
        if poisoned
        or any(steps[at * length : (at + 1) * length])
        or rng.random()
        > (1 - op_rate) ** (MICROBATCHES * ((at + 1) * length - max(at * length, cheat.first)))
    }
    if cheat.hides:  # its outputs are noise in these steps
        op_rate = sum(steps[:BASE_STEPS]) / BASE_STEPS
    of_op = not cheat.later and any(rng.random() < op_rate for _ in range(audit.ops))
    found = ({"op"} if of_op else set()) | ({"segment"} if false else set())
    return found, bool(drawn - false)


def _false_steps(cheat: Cheat, rate: float, rng: random.Random) -> list[bool]:
    if cheat.once and rate:
        chosen = rng.randrange(STEPS)
        return [step == chosen for step in range(STEPS)]
    return [cheat.unit == "step" and rng.random() < rate for _ in range(STEPS)]


HIDING: dict[str, Callable[[int, bool, bool], bool]] = {
    "every epoch": lambda epoch, passed, fallen: True,
    "every other epoch": lambda epoch, passed, fallen: epoch % 2 == 0,
    "one epoch in ten": lambda epoch, passed, fallen: epoch % 10 == 0,
    "each epoch after a pass": lambda epoch, passed, fallen: passed,
    "epochs after the window's public draw": lambda epoch, passed, fallen: fallen,
}
"""When a miner lies: from the epoch, whether a segment of the one before passed, and whether the
window's public draw fell in an epoch before."""


HIDDEN = {
    "no work after the base's version": (STEPS - BASE_STEPS) / STEPS,
    "no weight gradients": 1 / 3,
}
"""Share of an epoch's compute that a lie saves which segments alone find."""


@dataclass(frozen=True)
class HiddenRow:
    """What a miner comes to that hides such a lie."""

    lie: str
    hides: str
    validators: int
    pay: float
    """At each validator, as a share of an honest miner's."""
    work: float
    """Share of an honest miner's compute that it does."""


def hide(lie: str, hides: str, validators: int, audit: AuditSpec, lives: int, epochs: int) -> HiddenRow:
    """A miner that hides a lie beside an honest one: each validator finds the same of both."""
    pay, work = {CHEAT: 0.0, HONEST: 0.0}, 0.0
    for life in range(lives):
        rng, owed = random.Random(f"{hides} {validators} {life}"), False
        draws = {name: SegmentDraws(audit, validators, rng) for name in pay}
        passed, hidden, entries = set[MinerEpoch](), set[MinerEpoch](), list[MinerWork]()
        for epoch in range(epochs):
            for each in draws.values():
                each.begin(epoch)
            cheats = HIDING[hides](epoch, (epoch - 1, CHEAT) in passed, draws[CHEAT].fallen) and not owed
            work += 1 - HIDDEN[lie] if cheats else 1
            drawn = draws[CHEAT].end(certain=owed)
            owed = bool(drawn) and cheats  # all examine it, and so all owe one
            if drawn:
                (hidden if cheats else passed).add((epoch, CHEAT))
            if draws[HONEST].end():
                passed.add((epoch, HONEST))
            entries += [MinerWork(epoch, name, name, _FLOPS, 1, 0) for name in pay]
            found = Findings(passed=frozenset(passed), undecided=frozenset(before(hidden, entries, audit)))
            for score in scores(audit, epoch, entries[-2 * audit.window :], found):
                pay[score.hotkey] += score.score
    return HiddenRow(lie, hides, validators, pay[CHEAT] / pay[HONEST], work / (lives * epochs))


def play(cheat: Cheat, rate: float, audit: AuditSpec, lives: int, epochs: int) -> Row:
    """A cheat and an honest miner with the same draws, in so many lives of `epochs` epochs each."""
    sums, cost, worked, detected = {CHEAT: 0.0, HONEST: 0.0}, 0.0, 0, 0
    for life in range(lives):
        rng = random.Random(f"{cheat.name} {cheat.unit} {rate} {life}")
        draws, work, found, name = SegmentDraws(audit, 1, rng), list[MinerWork](), _Found(), CHEAT
        for epoch in range(epochs):
            draws.begin(epoch)
            now = 0.0 if cheat.waits and not draws.fallen else rate
            drawn = draws.end()
            bad, passes = judged(cheat, 0.0 if cheat.forgoes else now, audit, drawn, draws.segments, rng)
            failed = failed_epochs(found.findings(cheat, work, audit), {}, audit.window).get(name, ())
            if epoch >= ban_end(failed, audit.window):
                paid = round(_FLOPS * (1 - now * cheat.forgoes))
                work.append(MinerWork(epoch, name, name, paid, 1, 0))
                worked, cost, detected = worked + 1, cost + 1 - now * cheat.saved, detected + bool(bad)
                found.add((epoch, name), bad, passes=passes)
                if bad and cheat.renews:
                    name = f"{CHEAT} from {epoch + 1}"
                    draws.fallen = False
            work.append(MinerWork(epoch, HONEST, HONEST, _FLOPS, 1, 0))
            found.add((epoch, HONEST), set(), passes=bool(drawn))
            findings = found.findings(cheat, work, audit)
            for score in scores(audit, epoch, work[-2 * audit.window :], findings):
                sums[HONEST if score.hotkey == HONEST else CHEAT] += score.score
    pay = sums[CHEAT] / sums[HONEST]
    gain = (pay - COST * cost / (lives * epochs)) - (1 - COST)
    return Row(cheat.name, cheat.unit, rate, detected / worked, pay, gain)


class _Found:
    """What the audits of one life found, by epoch and miner."""

    def __init__(self) -> None:
        self._passed: set[MinerEpoch] = set()
        self._bad: set[MinerEpoch] = set()
        self._segments: set[MinerEpoch] = set()
        """Those of the bad ones where it was a segment."""

    def add(self, at: MinerEpoch, bad: set[str], *, passes: bool) -> None:
        if passes:
            self._passed.add(at)
        if bad:
            self._bad.add(at)
        if "segment" in bad:
            self._segments.add(at)

    def findings(self, cheat: Cheat, work: list[MinerWork], audit: AuditSpec) -> Findings:
        found = Findings(passed=frozenset(self._passed))
        if cheat.withholds or cheat.renews:
            return replace(found, undelivered=frozenset(self._bad))
        if cheat.hides:
            gone = before(self._segments, work, audit)
            # A segment that passes decides an epoch in which evidence on an op is hidden.
            return replace(found, undecided=frozenset(gone | (self._bad - self._passed)))
        return replace(found, failed=frozenset(self._bad))


def proposed_audit(preset: str) -> AuditSpec:
    """The audits that are proposed for a preset."""
    spec = make_spec(from_assignments([f"model.preset={preset}", f"schedule.steps={STEPS}"]), "0" * 64, 2)
    return spec.audit


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
    parser.add_argument("--preset", help="take the rates that are proposed for it; its epochs have 10 steps")
    parser.add_argument("--smoke", action="store_true", help="few lives, for a test of the script")
    args = parser.parse_args()
    audit = AuditSpec() if args.preset is None else proposed_audit(args.preset)
    lives = 2 if args.smoke else args.lives
    document = {
        "audit": audit.model_dump(mode="json"),
        "cost": COST,
        "rows": [asdict(row) for row in table(audit, lives, args.epochs)],
        "seldom": [
            {**asdict(play(cheat, rate, audit, lives, args.epochs)), "assumes": assumes}
            for cheat, rate, assumes in SELDOM
        ],
        "hidden": [
            asdict(hide(lie, h, n, audit, lives, args.epochs))
            for lie in HIDDEN
            for h in HIDING
            for n in VALIDATORS
        ],
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
