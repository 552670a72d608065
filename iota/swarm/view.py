"""Renders a run's status for a terminal: as a page that fits a screen, or as one line."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from iota.swarm.progress import Status

_BARS = " ▁▂▃▄▅▆▇█"


def page(status: Status, speed: float, width: int, boundary: str | None = None) -> RenderableType:
    """The dashboard. `speed` is in tokens per second; `boundary` describes a boundary's traffic, if known."""
    return Group(
        _head(status, speed),
        _epoch(status),
        Panel(loss_plot(status["losses"], max(20, width - 14)), title="loss", title_align="left"),
        _members(status),
        _foot(status, boundary),
    )


def line(status: Status, speed: float) -> str:
    """One line of progress; `speed` is in tokens per second."""
    losses = status["losses"]
    loss = f"loss {losses[-1]:.4f}" if losses else "no loss yet"
    text = (
        f"epoch {status['epoch'] + 1}/{status['epochs']}"
        f" step {status['step']}/{status['steps']}  {loss}  {status['tokens']:,} tokens"
        f"  {speed:,.0f} tokens/s  audits {status['audits']['passed']}+ {status['audits']['failed']}-"
    )
    if status["dropped"] or status["rerouted"]:
        text += f"  {status['dropped']} dropped {status['rerouted']} re-routed"
    return f"{text}  {status['waiting'] or status['phase']}"


def loss_plot(losses: list[float], width: int, height: int = 6) -> Text:
    """The loss curve in block characters, `width` by `height`, with a scale to its left."""
    if not losses:
        return Text("no step has been closed yet", style="dim")
    columns = min(width, len(losses))
    # A column is the mean over its share of the steps, so that the whole run fits.
    edges = [round(i * len(losses) / columns) for i in range(columns + 1)]
    values = [sum(losses[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    lines = []
    for row in reversed(range(height)):
        label = f"{low + span * (row + 0.5) / height:7.3f} "
        cells = (max(0.0, min(1.0, (v - low) / span * height - row)) for v in values)
        floor = "▁" if row == 0 else " "
        lines.append(label + "".join(_BARS[math.ceil(c * 8)] if c > 0 else floor for c in cells))
    return Text("\n".join(lines), style="cyan", no_wrap=True)


def _head(status: Status, speed: float) -> RenderableType:
    losses = status["losses"]
    heldout = status["heldout"]
    text = Text.assemble(
        (f"iota {status['name']} ", "bold"),
        f"run {status['run'][:12]}  ",
        (status["phase"], "green" if status["phase"] != "gathering" else "yellow"),
        f"  {speed:,.0f} tokens/s  {status['tokens']:,} tokens",
        f"  loss {losses[-1]:.4f}" if losses else "",
        f"  held-out {heldout[max(heldout, key=int)]:.4f}" if heldout else "",
    )
    if status["waiting"]:
        text.append(f"\nwaiting: {status['waiting']}", style="yellow")
    return text


def _epoch(status: Status) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        f"epoch {status['epoch'] + 1}/{status['epochs']}",
        ProgressBar(total=status["steps"], completed=status["step"], width=40),
        f"step {status['step']}/{status['steps']}",
        f"{status['open_microbatches']} microbatches open",
    )
    return grid


def _members(status: Status) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("stage", "hotkey", "state", "tokens/s", "compute", "wait", "transfer", "memory", "counted"):
        table.add_column(name, justify="left" if name in ("stage", "hotkey", "state") else "right")
    nodes: dict[str, Any] = status.get("nodes", {})
    for member in status["members"]:
        node = nodes.get(member["hotkey"], {})
        seconds = node.get("seconds", {})
        total = sum(seconds.values()) or 1.0
        moved = seconds.get("transfer", 0.0) + seconds.get("serialise", 0.0)
        table.add_row(
            "validator" if member["role"] == "validator" else str(member["stage"]),
            member["hotkey"][:8],
            Text(_state(member, node), style="green" if member["live"] and not member["stalled"] else "red"),
            f"{node.get('tokens_per_second', 0.0):,.0f}",
            f"{seconds.get('compute', seconds.get('replay', 0.0)) / total:.0%}",
            f"{seconds.get('wait', 0.0) / total:.0%}",
            f"{moved / total:.0%}",
            f"{node.get('memory', 0) / 1e6:,.0f} MB",
            f"{member['tokens']:,}",
        )
    return table


def _state(member: dict[str, Any], node: dict[str, Any]) -> str:
    if not member["live"]:
        return "lost"
    if member["stalled"]:
        return "stalled"
    return str(node.get("state") or "live")[:24]


def _foot(status: Status, boundary: str | None) -> RenderableType:
    audits = status["audits"]
    weights = {k: w for row in status["weights"].values() for k, w in row.items()}
    parts = [
        f"audits: {audits['passed']} passed, {audits['failed']} failed,"
        f" {audits['inconclusive']} inconclusive",
        f"microbatches: {status['settled']} settled, {status['dropped']} dropped,"
        f" {status['rerouted']} re-routed",
    ]
    if boundary is not None:
        parts.insert(0, f"boundary: {boundary}")
    if weights:
        parts.append("weights: " + ", ".join(f"{k[:8]} {w:.2f}" for k, w in sorted(weights.items())))
    parts += [f"named: {text}" for text in status["named"][-2:]]
    return Text("\n".join(parts), style="dim")
