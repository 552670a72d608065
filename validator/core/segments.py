"""Which segments of a miner are audited, and by whom. Anyone can recompute it. Pure.

A segment is what a miner did between two of its commitments (`RunSpec.is_committed`). Two draws decide:

- the *public* one, from the hash of block B alone. A window is so many epochs that their steps are
  `audit.window_steps` (one epoch if it has more). In each window at least one epoch of every miner is drawn:
  not before its seal, and with a chance of one in the epochs that are left, so that the last is certain.
  After one was drawn, each further one has a chance of one in the epochs of a window, so that nobody is safe
  after a check. In an epoch that is longer than a window each window's worth of segments has one drawn. The
  validators of the record take them by turns, and a pass of any validator counts.
- each validator's *own*, from its link too: all validators together draw one more segment in
  `audit.extra_every` epochs, which hang on no block alone; and each one in epochs that are certain
  (`is_certain`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from iota.spec import RunSpec
from validator.core.draw import Numbers, draw, strata


@dataclass(frozen=True)
class Drawable:
    """What the public draw of one epoch follows from."""

    block_hash: str
    segments: Mapping[str, int]
    """miner -> segments that can be audited, of miners that have any."""


@dataclass(frozen=True)
class Draws:
    """What the draws of one validator in one epoch follow from."""

    block_hash: str
    """Of block B, in hex."""
    link: str
    """That the validator revealed for the epoch."""
    validator: str
    earlier: Mapping[int, Drawable] = field(default_factory=dict)
    """The public draws of the epochs before in its window, as far as they are known."""


@dataclass(frozen=True)
class Turn:
    """A segment of the public draw."""

    at: int
    """Which of the miner's segments, from 0."""
    place: int
    """Whose turn it is, modulo the number of validators."""


def window_start(spec: RunSpec, epoch: int) -> int:
    """The first epoch of the window that `epoch` is in."""
    return epoch - epoch % spec.window_epochs


def public_turns(
    spec: RunSpec, epoch: int, miner: str, drawable: Callable[[int], Drawable | None]
) -> tuple[Turn, ...]:
    """The segments of a miner that the public draw of `epoch` names; as a rule none.

    Args:
        drawable: an epoch's part of the draw; None where it is not known, which counts as not drawn.
    """
    first, fallen = window_start(spec, epoch), False
    end = min(first + spec.window_epochs, spec.schedule.epochs)
    for number in range(first, epoch + 1):
        known = drawable(number)
        if known is None or not known.segments.get(miner):
            continue
        numbers = Numbers(draw(spec.id, known.block_hash, "", number, miner))
        drawn = numbers.one_in(spec.window_epochs if fallen else end - number)
        if drawn and number == epoch:
            return _strata(spec, numbers, known.segments[miner])
        fallen |= drawn
    return ()


def _strata(spec: RunSpec, numbers: Numbers, segments: int) -> tuple[Turn, ...]:
    bounds = strata(segments, spec.epoch_windows)
    return tuple(Turn(low + numbers.below(high - low), numbers.below(1 << 32)) for low, high in bounds)


def own_segment(
    spec: RunSpec,
    block_hash: str,
    link: str,
    epoch: int,
    miner: str,
    segments: int,
    *,
    certain: bool,
    validators: int = 1,
) -> int | None:
    """The segment of a validator's own draw, from 0; None if it draws none.

    The more validators an epoch has, the fewer each draws; one that is drawn among many is among few too.
    """
    if not segments:
        return None
    numbers = Numbers(draw(spec.id, block_hash, link, epoch, f"segment of {miner}"))
    wanted = numbers.one_in(spec.audit.extra_every * max(1, validators))
    return numbers.below(segments) if wanted or certain else None


def is_certain(spec: RunSpec, epoch: int, *, owed: bool) -> bool:
    """Whether a validator draws ops and a segment of a miner for certain: in the last epoch, and if `owed`.

    A validator owes a miner one if of the epoch before it published a verdict on that miner which `owes`
    (`validator.core.tasks`). So it depends on verdicts that are signed and public.
    """
    return owed or epoch == spec.schedule.epochs - 1


def has_turn(turn: Turn, validators: Sequence[str], validator: str) -> bool:
    """Whether a segment is a validator's to audit. One that the record leaves out audits them all."""
    return validator not in validators or validators[turn.place % len(validators)] == validator
