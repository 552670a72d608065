"""What changed between two statuses of a run, so that a stream need not repeat the rest.

A status is the JSON object of `GET /v1/status`. Its `losses` are those from number `losses_from` on; of
`members` (by hotkey) and `nodes` a delta holds those that changed, of the other fields the whole value. No
field, member or node ever goes away, so a delta removes nothing.
"""

from __future__ import annotations

from typing import Any, Final

Status = dict[str, Any]
MAX_STATUS_BYTES: Final = 64 << 20
"""Bound of a status that is read: well above that of 3,000 members."""


def delta(before: Status, after: Status) -> Status:
    """The fields of `after` that differ from `before`, without the losses."""
    changed: Status = {}
    for name, value in after.items():
        old = before.get(name)
        if name == "losses" or (name in before and value == old):
            continue
        if name == "members" and old is not None:
            known = {member["hotkey"]: member for member in old}
            changed[name] = [member for member in value if known.get(member["hotkey"]) != member]
        elif name == "nodes" and old is not None:
            changed[name] = {key: node for key, node in value.items() if old.get(key) != node}
        else:
            changed[name] = value
    return changed


def merged(before: Status | None, changed: Status) -> Status:
    """`before` with a delta, or with a whole status of the same run. Losses take their places by number.

    A status of another run replaces everything, and so does one whose losses leave a gap.
    """
    if before is None or changed.get("run", before["run"]) != before["run"]:
        return changed
    found = {**before, **changed}
    if "members" in changed:
        members = {member["hotkey"]: member for member in [*before["members"], *changed["members"]]}
        found["members"] = sorted(members.values(), key=lambda m: m["order"])
    if "nodes" in changed:
        found["nodes"] = {**before.get("nodes", {}), **changed["nodes"]}
    if "losses" in changed:
        start, place = before["losses_from"], changed["losses_from"] - before["losses_from"]
        if 0 <= place <= len(before["losses"]):
            found["losses"] = [*before["losses"][:place], *changed["losses"]]
            found["losses_from"] = start
    return found
