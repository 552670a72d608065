"""Renders a run's status for a terminal: as a page that fits the screen, or as one line. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from iota.console.counts import counted
from iota.console.durations import duration
from iota.console.redaction import printable
from iota.protocol.status_delta import Status
from iota.swarm.chart import loss_chart
from iota.swarm.members import bottleneck, members_table

CHART = 12
"""Lines of the loss chart, its axis included; more on a tall screen, fewer where members need them."""
_MIN_CHART = 6
_MIN_FOOT = 2


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a page shows beside the status."""

    speed: float
    """Tokens per second."""
    eta_s: float | None = None
    """Seconds to the last step, if they can be estimated."""
    names: Mapping[str, str] = field(default_factory=dict)
    """A name by hotkey."""
    boundary: str | None = None
    """A boundary's traffic."""
    page: int = 0
    """Page of the members; a live page counts it up."""


def page(status: Status, shown: Shown, width: int, height: int | None = None) -> RenderableType:
    """The dashboard in at most `height` lines of `width` columns; None: as many lines as it takes."""
    head = [*_head(status, shown, width)]
    foot = _foot(status, shown, width)
    members = len(status["members"])
    chart, rows = CHART, members
    if height is not None:
        room = height - len(head) - 1  # one for the table's header
        least = _MIN_CHART if status["losses"] else 1
        foot = foot[: max(_MIN_FOOT, room - least - members)]
        room -= len(foot)
        chart = max(least, min(max(CHART, height * 2 // 5), room - members)) if status["losses"] else 1
        rows = room - chart
        if rows < members:
            rows = max(1, rows - 1)  # one for the line that says which are shown
    table, more = members_table(status, shown.names, width, rows, shown.page)
    heldout = _heldout(status)
    plot = loss_chart(
        status["losses"],
        width,
        chart,
        first=status.get("losses_from", 0),
        merges=status.get("merges", ()),
        heldout=heldout,
    )
    parts: list[RenderableType] = [*head, plot, table]
    if more:
        parts.append(Text(more, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts, *foot)


def line(status: Status, speed: float, eta_s: float | None = None) -> str:
    """One line of progress, without colours. `speed` is in tokens per second."""
    losses, heldout = status["losses"], status["heldout"]
    loss = f"loss {losses[-1]:.4f}" if losses else "no loss yet"
    text = f"{_place(status)}  {loss}"
    if heldout:
        text += f"  held-out {heldout[max(heldout, key=int)]:.4f}"
    text += f"  {counted(status['tokens'], 'token')}  {speed:,.0f} tokens/s  {_audits(status)}"
    if eta_s is not None and status["phase"] != "finished":
        text += f"  {duration(eta_s)} left"
    if status["dropped"] or status["rerouted"]:
        text += f"  {status['dropped']} dropped {status['rerouted']} re-routed"
    return printable(f"{text}  {status['waiting'] or status['phase']}")


def _head(status: Status, shown: Shown, width: int) -> list[Text]:
    losses, heldout = status["losses"], status["heldout"]
    done = (status["epoch"] * status["steps"] + status["step"]) / (status["epochs"] * status["steps"])
    items = [
        f"iota {status['name']}",
        f"run {status['run'][:12]}",
        status["phase"],
        _place(status),
        f"{min(done, 1.0):.0%}" + (f", {duration(shown.eta_s)} left" if shown.eta_s is not None else ""),
        f"{counted(status['open_microbatches'], 'microbatch')} open",
        f"loss {losses[-1]:.4f}" if losses else "no loss yet",
        f"held-out {heldout[max(heldout, key=int)]:.4f}" if heldout else "",
        f"{shown.speed:,.0f} tokens/s",
        counted(status["tokens"], "token"),
    ]
    if slowest := bottleneck(status):
        items.append(f"bottleneck: stage {slowest[0]} (works {slowest[1]:.0%})")
    lines = [
        Text(printable(text), style="bold" if at == 0 else "") for at, text in enumerate(packed(items, width))
    ]
    if status["waiting"]:
        wrapped = textwrap.wrap(f"waiting: {status['waiting']}", width, max_lines=3, placeholder=" ...")
        lines += [Text(printable(text), style="yellow") for text in wrapped]
    lines.append(Text("loss by step   ▲ merge   ● held-out loss"[:width], style="dim"))
    return lines


def _place(status: Status) -> str:
    """The epoch by its number, as logs and keys have it, with the last one's; and the closed steps of it."""
    last = status["epochs"] - 1
    epoch = min(status["epoch"], last)
    return f"epoch {epoch} (last: {last}) step {status['step']}/{status['steps']}"


def _heldout(status: Status) -> dict[int, float]:
    """Number of losses at the merge that made a base -> the base's held-out loss."""
    places = [0, *status.get("merges", ())]
    return {places[int(e)]: loss for e, loss in status["heldout"].items() if int(e) < len(places)}


def _foot(status: Status, shown: Shown, width: int) -> list[Text]:
    """Lines, the most important first."""
    validators = len(status["weights"])
    owned = any(member["owner"] != member["hotkey"] for member in status["members"])
    whose = ", each row its owner's" if owned else ""
    items = [
        _audits(status),
        f"weights by {counted(validators, 'validator')}{whose}" if validators else "no weights yet",
        f"microbatches: {status['settled']} settled, {status['dropped']} dropped,"
        f" {status['rerouted']} re-routed",
        f"boundary: {shown.boundary}" if shown.boundary else "",
    ]
    lines = packed(items, width)
    for found in status.get("verdicts", [])[-2:]:
        who = shown.names.get(found["miner"], found["miner"][:8])
        reason = f": {found['reason']}" if found["reason"] else ""
        lines.append(f"audit: {who}, {found['audit']} of epoch {found['epoch']}: {found['outcome']}{reason}")
    lines += [f"named: {_with_names(text, shown.names)}" for text in status["named"][-2:]]
    return [Text(printable(text), style="dim", no_wrap=True, overflow="ellipsis") for text in lines]


def _with_names(text: str, names: Mapping[str, str]) -> str:
    """An incident with names, or short hotkeys, in place of whole hotkeys."""
    words = (word.strip("():,") for word in text.split())
    for hotkey in [word for word in words if len(word) in range(46, 49) and word.startswith("5")]:
        text = text.replace(hotkey, names.get(hotkey, hotkey[:8]))
    return text


def _audits(status: Status) -> str:
    audits = status["audits"]
    undelivered = f" {audits['undelivered']}!" if audits["undelivered"] else ""
    undecided = f" {audits['inconclusive']}?" if audits["inconclusive"] else ""
    return f"audits {audits['passed']}+ {audits['failed']}-{undelivered}{undecided}"


def packed(items: Iterable[str], width: int) -> list[str]:
    """Items, two blanks apart, in as few lines of at most `width` columns as their order allows."""
    lines: list[str] = []
    for item in (item for item in items if item):
        if lines and len(lines[-1]) + 2 + len(item) <= width:
            lines[-1] += f"  {item}"
        else:
            lines.append(item[:width])
    return lines
