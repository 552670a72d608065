"""A variable, its lease, and what happened to it: frozen, so that a change keeps what a reader was given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

from iota.protocol.bridge import ChangeKind, ValueKind, WriteRule


@dataclass(frozen=True)
class Lease:
    """Who may write a variable with rule `lock`, and until when (Unix seconds)."""

    holder: str
    number: int
    until: float


@dataclass(frozen=True)
class Variable:
    """A shared variable. Its value is kept as canonical JSON, which a replay of the journal makes alike."""

    name: str
    kind: ValueKind
    rule: WriteRule
    text: str
    version: int
    owner: str
    """Hotkey of the member who made it, or `RUN`."""
    expires: float | None
    lease: Lease | None = None

    @property
    def size(self) -> int:
        """Bytes that it counts for in bounds."""
        return len(self.name) + len(self.text)

    @cached_property
    def json(self) -> str:
        """Its `VariableView` as JSON: made once for all readers."""
        lease = self.lease
        view = {
            "name": self.name,
            "kind": self.kind.value,
            "rule": self.rule.value,
            "version": self.version,
            "owner": self.owner,
            "expires": self.expires,
            "lease": lease and {"holder": lease.holder, "number": lease.number, "until": lease.until},
        }
        return f'{json.dumps(view, separators=(",", ":"))[:-1]},"value":{self.text}}}'


@dataclass(frozen=True)
class Change:
    """One change of one variable."""

    revision: int
    kind: ChangeKind
    name: str
    variable: Variable | None
    """As it was then; None where it is gone."""
    public: bool
    """Whether anyone might read the variable then."""

    @property
    def size(self) -> int:
        """Bytes that it counts for in bounds."""
        return len(self.name) + (0 if self.variable is None else self.variable.size)

    @cached_property
    def json(self) -> str:
        """Its `ChangeView` as JSON: made once for all watchers."""
        variable = "null" if self.variable is None else self.variable.json
        head = {"revision": self.revision, "kind": self.kind.value, "name": self.name}
        return f'{json.dumps(head, separators=(",", ":"))[:-1]},"variable":{variable}}}'
