"""Table of merge rules. A new rule is a file of its own and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from iota.outer.partition import Vector
from iota.outer.weighted_mean import weighted_mean

MergeRule = Callable[[Mapping[str, int], Callable[[str], Vector], Mapping[str, int] | None], Vector]
"""Merges one partition of all replicas: from the tokens that weigh each hotkey's part, a function that reads
a hotkey's part, and the steps that each one is of (None: all of as many). Bitwise equal on every machine, for
any order of replicas."""

_RULES: dict[str, MergeRule] = {"weighted-mean": weighted_mean}


def open_merge_rule(name: str = "weighted-mean") -> MergeRule:
    """The rule `name`. Raises ValueError for an unknown name, listing the known ones."""
    if name not in _RULES:
        raise ValueError(f"no merge rule is called {name!r}: this build has {', '.join(_RULES)}")
    return _RULES[name]
