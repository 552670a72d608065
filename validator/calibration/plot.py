"""A plot of a profile: how often an honest distance is beyond x, the fitted tail, and the bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iota.console.counts import counted
from validator.audits.declared import COMPARED, declared_bounds
from validator.calibration.calibrate import Fitted
from validator.calibration.fitting import FALSE_REJECTS, within
from validator.calibration.tail import fit_tail


def plot(fitted: Fitted, path: Path) -> None:
    """Draw a profile at its deepest, one op kind a panel. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4), layout="constrained")
    panels = figure.subplots(1, len(COMPARED), sharey=True)
    for axes, (kind, quantities) in zip(panels, COMPARED.items(), strict=True):
        for number, quantity in enumerate(quantities):
            key = kind, quantity, fitted.profile.depth
            if fitted.profile.bounds(fitted.profile.depth).of(kind, quantity):
                _draw(axes, fitted, key, f"C{number}")
        axes.set(
            xscale="log", yscale="log", xlabel="distance", title=kind.value, ylim=(FALSE_REJECTS / 2, 1.5)
        )
        axes.grid(True, which="both", alpha=0.2)
        if axes.lines:
            axes.legend(fontsize="small")
    panels[0].set_ylabel("share of honest replays beyond it")
    figure.suptitle(
        f"{fitted.path.stem}, {counted(fitted.profile.depth, 'step')} deep"
        " (dashed: the fitted tail, solid: the bound, dotted: the declared bound)"
    )
    figure.savefig(path)


def _draw(axes: Any, fitted: Fitted, key: Any, colour: str) -> None:
    kind, quantity, depth = key
    found = within(fitted.samples.distances, key)
    values, total = sorted(value for value in found if value > 0), len(found)
    shares = [(len(values) - at) / total for at in range(len(values))]
    axes.plot(values, shares, ".", color=colour, ms=3, label=quantity.value)
    tail = fit_tail(found)
    chances = [tail.share * (FALSE_REJECTS / tail.share) ** (n / 20) for n in range(21)]
    axes.plot([tail.beyond(chance) for chance in chances], chances, "--", color=colour)
    axes.axvline(fitted.profile.bounds(depth).of(kind, quantity), color=colour, lw=1)
    axes.axvline(declared_bounds(fitted.spec, depth).of(kind, quantity), color=colour, lw=1, ls=":")
