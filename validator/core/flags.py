"""Flags: what an epoch's public receipts say of miners without a replay. They decide who is audited first.

A flag adds no audit, changes no draw and condemns nobody: only an audit does. It is not published.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from iota.console.counts import counted
from iota.protocol.receipts import OpKind
from validator.core import jobs
from validator.core.containment import contained
from validator.core.effects import Effect, Log
from validator.core.history import History
from validator.core.jobs import Script
from validator.core.op_times import Floats, OpTimes, Rates, is_many, op_times, overlapping, speeds
from validator.core.route_losses import Z_LIMIT, route_losses, z_scores
from validator.core.sealed import SealedEpoch
from validator.core.shared_devices import shared_devices

NAMED: Final = 20
"""Miners that the log names of an epoch; the others are counted."""


@dataclass(frozen=True)
class Flags:
    """What `find_flags` found in one epoch."""

    reasons: Mapping[str, str]
    """miner -> why it is flagged, for the operator's log."""
    rates: Rates
    """For the flags of later epochs."""

    def __str__(self) -> str:
        """One line."""
        named = [f"{hotkey} ({why})" for hotkey, why in sorted(self.reasons.items())[:NAMED]]
        more = len(self.reasons) - len(named)
        return ", ".join(named) + (f", and {more:,} more" if more else "")


def find_flags(sealed: SealedEpoch, past: Mapping[int, Rates]) -> Flags:
    """The flags of an epoch, whatever its receipts say.

    Linear in the receipts, beside pairs of a stage, and the inverse of a matrix of all miners. Of 3,008 with
    970 ops each it takes 17 to 22 s on two cores, and 400 MB.

    Args:
        past: rates of earlier epochs, by epoch.
    """
    times = op_times(sealed)
    found: dict[str, list[str]] = defaultdict(list)
    for hotkey, each in times.items():
        if is_many(odd := overlapping(each), len(each.started)):
            found[hotkey].append(f"{odd:,} of {counted(len(each.started), 'op')} overlap")
    rates = _flag_speeds(sealed, times, past, found)
    for stage in range(sealed.spec.layout.stages):
        replicas = {hotkey: each for hotkey, each in times.items() if sealed.miners[hotkey].stage == stage}
        for hotkey, other in shared_devices(replicas).items():
            found[hotkey].append(f"works in turns with {other}, as on one device")
    for hotkey, score in z_scores(route_losses(sealed)).items():
        if score > Z_LIMIT:
            found[hotkey].append(f"its microbatches' losses are {score:.1f} standard errors high")
    return Flags({hotkey: "; ".join(why) for hotkey, why in found.items()}, rates)


def _flag_speeds(
    sealed: SealedEpoch,
    times: Mapping[str, OpTimes],
    past: Mapping[int, Rates],
    found: Mapping[str, list[str]],
) -> Rates:
    """Add who has ops that are too fast; answers the rates of this epoch."""
    rates: dict[tuple[int, OpKind], Floats] = {}
    for (stage, kind), these in speeds(sealed, times).items():
        rates[stage, kind] = these.percentiles
        fence, above = these.too_fast([old[stage, kind] for old in past.values() if (stage, kind) in old])
        for hotkey, odd in above.items():
            if is_many(odd, of := len(these.by_miner[hotkey])):
                ops = f"{odd:,} of {counted(of, f'{kind} op')}"
                found[hotkey].append(f"{ops} above {fence:.3g} FLOPs a second")
    return rates


def flagged(sealed: SealedEpoch, history: History, emit: Callable[[Effect], None]) -> Script[frozenset[str]]:
    """Who is flagged; it is logged. An error of this program is, too, and then nobody is."""
    past = {epoch: rates for epoch, rates in history.rates.items() if epoch < sealed.epoch}
    found = yield from contained(
        _found(sealed, past), sealed.epoch, "its flags", lambda reason: Flags({}, {}), emit
    )
    history.rates[sealed.epoch] = found.rates
    for old in [epoch for epoch in history.rates if epoch <= sealed.epoch - sealed.spec.audit.window]:
        del history.rates[old]
    if found.reasons:
        emit(Log(f"epoch {sealed.epoch}: audited first, which says nothing of their guilt: {found}"))
    return frozenset(found.reasons)


def _found(sealed: SealedEpoch, past: Mapping[int, Rates]) -> Script[Flags]:
    found: Flags = yield jobs.FindFlags(sealed, past)
    return found
