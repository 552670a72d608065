"""Counts in what people read: one thing is never given in the plural."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from iota.console.counts import counted

ROOT = Path(__file__).parents[2]
NOUNS = (
    "attempts|blocks|cores|deadlines|documents|entries|epochs|files|layers|lines|members|merges|microbatches|miners"
    "|nodes|objects|ops|parts|receipts|replicas|sequences|shards|sources|stages|steps|threads|tokens|tries"
    "|validators|verdicts"
)
MANY = {
    "iota/cli/spec.py": "a list of layers",
    "iota/data/job.py": "no source, or more than are allowed",
    "iota/data/heldout.py": "not one",
    "iota/data/sequences.py": "less than one",
    "iota/data/shard_writer.py": "a constant",
    "iota/data/passes.py": "of a whole run",
    "iota/model/cuts.py": "less than one, or more than there are layers",
    "iota/planning/shortfalls.py": "one node is worded otherwise",
    "iota/settings/kinds.py": "worded for any number",
    "iota/spec/contradictions.py": "a credit is too small for two stages at least",
    "iota/swarm/up.py": "a list of layers",
    "orchestrator/intake/bounds.py": "a constant",
}


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "epoch", "1 epoch"),
        (0, "epoch", "0 epochs"),
        (2, "microbatch", "2 microbatches"),
        (2, "entry", "2 entries"),
        (3, "held-out evaluation", "3 held-out evaluations"),
        (12345, "token", "12,345 tokens"),
        (2, "process", "2 processes"),
    ],
)
def test_a_count_and_its_noun_agree(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text


def test_no_message_puts_a_plural_behind_a_number_by_itself() -> None:
    """By the parts of f-strings: a value, and then a noun of the list."""
    pattern = re.compile(rf" (?:[a-z-]+ )?(?:{NOUNS})\b(?!/)")
    found = [
        f"{path.relative_to(ROOT)}:{value.lineno}: {ast.unparse(value.value)}{text.value[:30]}"
        for folder in ("iota", "miner", "validator", "orchestrator")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr)
        for value, text in zip(node.values, node.values[1:], strict=False)
        if isinstance(value, ast.FormattedValue) and value.conversion == -1
        if isinstance(text, ast.Constant) and pattern.match(text.value)
    ]
    wrong = [place for place in found if place.partition(":")[0] not in MANY]
    assert not wrong, "\n".join(wrong)
    assert {place.partition(":")[0] for place in found} == MANY.keys(), "an exception that none needs"
