"""How many variables, of what size, each owner may have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from iota.protocol.bridge import RUN
from orchestrator.bridge.bridge import Bridge, Owned
from orchestrator.bridge.refusals import Unfit
from orchestrator.bridge.variable import Variable

MAX_OPERATOR_VARIABLES: Final = 8192
MAX_OPERATOR_BYTES: Final = 16 << 20
MAX_MEMBER_VARIABLES: Final = 16
"""Variables that one member may own."""
MAX_MEMBER_BYTES: Final = 8192
"""Names and values of these together."""
MAX_MEMBERS_BYTES: Final = 32 << 20
"""Names and values of all members' variables together."""


@dataclass(frozen=True)
class Put:
    """What a write makes of one variable: None removes it."""

    name: str
    variable: Variable | None


def beyond(bridge: Bridge, puts: list[Put]) -> Unfit | None:
    """The bound that the write would break, or None."""
    after: dict[str, Owned] = {}
    for put in puts:
        for variable, sign in ((bridge.variables.get(put.name), -1), (put.variable, 1)):
            if variable is None:
                continue
            if (owned := after.get(variable.owner)) is None:
                owned = after[variable.owner] = replace(bridge.owned.get(variable.owner, Owned()))
            owned.variables += sign
            owned.size += sign * variable.size
    for owner, owned in after.items():
        before = bridge.owned.get(owner, Owned())
        limits = MAX_OPERATOR_VARIABLES, MAX_OPERATOR_BYTES
        if owner != RUN:
            limits = MAX_MEMBER_VARIABLES, MAX_MEMBER_BYTES
        if owned.variables > max(limits[0], before.variables) or owned.size > max(limits[1], before.size):
            return Unfit(
                f"with this, {owner} would have {owned.variables} variables of {owned.size} bytes, and"
                f" {limits[0]} of {limits[1]} are the most: delete some first"
            )
    grown = sum(o.size - bridge.owned.get(w, Owned()).size for w, o in after.items() if w != RUN)
    if grown > 0 and bridge.members_size + grown > MAX_MEMBERS_BYTES:
        return Unfit(f"the variables of all members have {MAX_MEMBERS_BYTES} bytes already")
    return None
