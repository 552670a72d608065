"""Who may write and read which names: by prefix, the longest that has a rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from iota.protocol.fields import Hotkey
from iota.spec import Frozen

RIGHTS: Final = "rights"
"""The operator's rules: the variable `rights/PREFIX` holds the `Rights` of the names under PREFIX."""
NODE: Final = "node"
"""`node/HOTKEY/...` is written by that hotkey."""
MAX_WRITERS: Final = 64


class Writers(StrEnum):
    """Groups that may write."""

    OPERATOR = "operator"
    """The operator alone, who may write everything but what the run itself does."""
    MEMBERS = "members"
    """Any member, every variable."""
    OWNER = "owner"
    """Any member may make a variable, and who made it may write it."""


class Readers(StrEnum):
    """Groups that may read."""

    ANYONE = "anyone"
    MEMBERS = "members"


class Rights(Frozen):
    """The value of a variable `rights/PREFIX`."""

    write: Writers | Annotated[tuple[Hotkey, ...], Field(max_length=MAX_WRITERS)] = Writers.OPERATOR
    """A group, or hotkeys of members: an empty list leaves the operator alone."""
    read: Readers = Readers.MEMBERS


_PUBLIC: Final = Rights(read=Readers.ANYONE)
_DEFAULT: Final = Rights()
_BUILT_IN: Final = ("run", RIGHTS, NODE)


def rule_fault(name: str) -> str | None:
    """Why a variable `rights/...` says nothing, or None. `name` is the whole name."""
    prefix = name.removeprefix(f"{RIGHTS}/")
    if prefix == name:
        return f"{name} rules no prefix: write {RIGHTS}/PREFIX"
    if prefix.partition("/")[0] in _BUILT_IN:
        return f"the rights of {prefix} are fixed"
    return None


@dataclass
class RuleBook:
    """The rights of every name."""

    rules: dict[str, Rights] = field(default_factory=dict)
    """prefix -> what its variable says."""

    def of(self, name: str) -> Rights:
        """The rights of a name: built in, or of the longest prefix that has a rule."""
        parts = name.split("/")
        if parts[0] in ("run", RIGHTS):
            return _PUBLIC
        if parts[0] == NODE:
            return _DEFAULT
        for length in range(len(parts), 0, -1):
            if (found := self.rules.get("/".join(parts[:length]))) is not None:
                return found
        return _DEFAULT

    def may_write(self, name: str, hotkey: str, owner: str | None) -> bool:
        """Whether a member may write a name; `owner` is who made the variable, None where there is none."""
        parts = name.split("/")
        if parts[0] == NODE:
            return len(parts) > 2 and parts[1] == hotkey
        match self.of(name).write:
            case Writers.OPERATOR:
                return False
            case Writers.MEMBERS:
                return True
            case Writers.OWNER:
                return owner in (None, hotkey)
            case hotkeys:
                return hotkey in hotkeys

    def is_public(self, name: str) -> bool:
        """Whether anyone may read a name."""
        return self.of(name).read is Readers.ANYONE
