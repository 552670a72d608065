"""Every command line in the documentation is one that our programs, or the pinned `btcli`, take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.command_lines import reached

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
_PROGRAM = r"(?:iota|iota-miner|iota-validator|iota-orchestrator|btcli)"
_LINE = re.compile(rf"^\s*(?:sudo -u \S+ )?(?:\S*/)?({_PROGRAM} [a-z].*)$")
_SPAN = re.compile(rf"`({_PROGRAM}\s[a-z][^`]*)`")
_OURS = re.compile(r'"\$\{\w+\[@\]\}"')


def command_lines(text: str) -> list[list[str]]:
    """Those in code blocks, fenced or indented, and those in backticks; a shell's array counts as nothing."""
    joined = text.replace("\\\n", " ")
    blocks = re.findall(r"^```bash\n(.*?)^```", joined, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^ {4,}\S.*$", joined, re.MULTILINE)
    lines = [found[1] for block in blocks for line in block.splitlines() if (found := _LINE.match(line))]
    lines += _SPAN.findall(re.sub(r"^```.*?^```", "", joined, flags=re.MULTILINE | re.DOTALL))
    # `scripts/up` and others take the same words: only what begins with a program's name is looked at.
    cleaned = [_OURS.sub("", line).partition("|")[0].partition(" &")[0] for line in lines]
    return [shlex.split(line.replace("...", ""), comments=True) for line in cleaned]


def test_what_is_looked_for_is_found() -> None:
    fenced = "```bash\n/x/bin/iota data prepare S \\\n  --out D &   # why\n```\n"
    text = f"{fenced}\n    btcli stake add\n\nby `iota plan`."
    assert command_lines(text) == [
        ["iota", "data", "prepare", "S", "--out", "D"],
        ["btcli", "stake", "add"],
        ["iota", "plan"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_is_taken(page: Path) -> None:
    wrong = [" ".join(line) for line in command_lines(page.read_text()) if reached(line) is None]
    assert wrong == []


def test_a_line_with_an_option_that_there_is_not_would_be_noticed() -> None:
    assert reached(["btcli", "subnets", "register", "--netuid", "9", "--hot", "x"]) is None
    assert reached(["iota-miner", "register", "--burn", "1"]) is None
