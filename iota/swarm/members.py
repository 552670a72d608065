"""The table of members on the dashboard, a page of it where the screen is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from iota.console.redaction import printable
from iota.protocol.status_delta import Status

WIDE = 120
"""Columns from which on the table has all that is known."""
_COLUMNS = ("st", "name", "hotkey", "owner", "device", "state", "work", "tok/s", "audits", "weight")
_MORE = ("wait", "transfer", "memory", "tokens", "taken")
_LEFT = ("st", "name", "hotkey", "owner", "device", "state")


def members_table(
    status: Status, names: Mapping[str, str], width: int, rows: int | None, page: int
) -> tuple[Table, str]:
    """The table, and a sentence on what of it is shown; empty where that is all.

    Args:
        names: a name by hotkey.
        rows: members that fit, None for all.
        page: number of the page, counted up while time passes.
    """
    members = sorted(status["members"], key=lambda m: (m["role"] == "validator", m["stage"], m["order"]))
    shown, more = members, ""
    if rows is not None and len(members) > rows:
        pages = -(-len(members) // rows)
        at = page % pages
        shown = members[at * rows : (at + 1) * rows]
        first = at * rows + 1
        more = f"members {first}-{first + len(shown) - 1} of {len(members)}, page {at + 1} of {pages}"
        if troubled := [m for m in members if not m["live"] or m["stalled"]]:
            more += f"; lost or late: {', '.join(_name(m, names) for m in troubled[:4])}"
            more += f" and {len(troubled) - 4} more" if len(troubled) > 4 else ""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    owned = any(m["owner"] != m["hotkey"] for m in members)
    left_out = {name for name, shown in (("name", names), ("owner", owned)) if not shown}
    device = 8 if width < WIDE else 20 if owned else 30
    columns = [c for c in (*_COLUMNS, *(_MORE if width >= WIDE else ())) if c not in left_out]
    for column in columns:
        left = column in _LEFT
        table.add_column(column, justify="left" if left else "right", no_wrap=True, ratio=None)
    weights = mean_weights(status)
    nodes: dict[str, Any] = status.get("nodes", {})
    for member in shown:
        node = nodes.get(member["hotkey"], {})
        state = state_of(member, node, ended=status["finished"])
        row = _row(member, node, state, names, weights, width, device)
        table.add_row(*(_cell(row[column]) for column in columns))
    return table, more


def mean_weights(status: Status) -> dict[str, float]:
    """Weight by hotkey: the mean over the validators that have reported weights."""
    rows: list[dict[str, float]] = list(status["weights"].values())
    hotkeys = {hotkey for row in rows for hotkey in row}
    return {hotkey: sum(row.get(hotkey, 0.0) for row in rows) / len(rows) for hotkey in hotkeys}


def work_share(node: dict[str, Any]) -> float | None:
    """Share of its time in which a node computes; None while that is not known.

    Transfers overlap with both computing and waiting, and stay out.
    """
    seconds = node.get("seconds", {})
    working = sum(seconds.get(name, 0.0) for name in ("compute", "serialise", "replay"))
    total = working + seconds.get("wait", 0.0)
    return working / total if total > 0 else None


def bottleneck(status: Status) -> tuple[int, float] | None:
    """(stage, share of its time in which it works) of the stage that the others wait for.

    It is the one whose replicas wait least. None with one stage, or before enough is known.
    """
    nodes: dict[str, Any] = status.get("nodes", {})
    shares: dict[int, list[float]] = {}
    for member in status["members"]:
        share = work_share(nodes.get(member["hotkey"], {}))
        if member["role"] == "miner" and member["live"] and share is not None:
            shares.setdefault(member["stage"], []).append(share)
    if len(shares) < 2:
        return None
    means = {stage: sum(found) / len(found) for stage, found in shares.items()}
    stage = max(sorted(means), key=means.__getitem__)
    return stage, means[stage]


def state_of(member: dict[str, Any], node: dict[str, Any], *, ended: bool) -> str:
    """A member's state in a few words; `ended` says that the run has."""
    if member["revoked"]:
        return "revoked"
    if not member["live"]:
        return "lost"
    if member["stalled"]:
        return "late"
    if ended:
        return "ended"
    return str(node.get("state") or "live")


def _row(
    member: dict[str, Any],
    node: dict[str, Any],
    state: str,
    names: Mapping[str, str],
    weights: Mapping[str, float],
    width: int,
    device: int,
) -> dict[str, str | Text]:
    hotkey, wide = member["hotkey"], width >= WIDE
    seconds, share = node.get("seconds", {}), work_share(node)
    total = sum(seconds.values()) or 1.0
    audits = member.get("audits", {})
    moved = seconds.get("transfer", 0.0)
    validator = member["role"] == "validator"
    judged = f"{audits.get('pass', 0)}+ {audits.get('fail', 0)}-" if any(audits.values()) else "-"
    good = member["live"] and not member["stalled"]
    return {
        "st": "va" if validator else str(member["stage"]),
        "name": names.get(hotkey, "")[: 24 if wide else 9],
        "hotkey": hotkey[:8],
        "owner": "" if member["owner"] == hotkey else member["owner"][:8],
        "device": _device(member["device"], device),
        "state": Text(printable(state)[: 44 if wide else 17], "green" if good else "red"),
        "work": "-" if share is None else f"{share:.0%}",
        "tok/s": "-" if validator else _short(node.get("tokens_per_second", 0.0)),
        "audits": "-" if validator else judged,
        "weight": f"{weights[member['owner']]:.3f}" if member["owner"] in weights else "-",
        "wait": f"{seconds.get('wait', 0.0) / total:.0%}",
        "transfer": f"{moved / total:.0%}",
        "memory": f"{node.get('memory', 0) / 1e6:,.0f} MB",
        "tokens": f"{member['tokens']:,}",
        "taken": str(member["withdrawn"]),
    }


def _cell(value: str | Text) -> Text:
    """A cell that shows a text of others as it stands: no markup, no commands for a terminal."""
    return value if isinstance(value, Text) else Text(printable(value))


def _device(device: str, width: int) -> str:
    """A device class in `width` characters: a card's name, else the kind and what there is room for."""
    kind, *rest = device.split("/")
    if kind != "cpu" and rest:
        name = rest[0] if width > 8 else rest[0].removeprefix("NVIDIA ").removeprefix("GeForce ")
        return name[:width]
    return " ".join([kind, *rest[:2]])[:width] if width > 8 else kind[:width]


def _short(number: float) -> str:
    """A number in at most 6 characters."""
    if number >= 1e13:
        return f"{number:.0e}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if number >= size:
            return f"{number / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{number:,.0f}"


def _name(member: dict[str, Any], names: Mapping[str, str]) -> str:
    return names.get(member["hotkey"], member["hotkey"][:8])
