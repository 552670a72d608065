"""What the pages name exists: files and folders anywhere, and in the glossary the names in those files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "README.md"])
FOLDERS = "iota|miner|validator|orchestrator|tests|scripts|deploy|docs"
_PATH = re.compile(rf"`((?:{FOLDERS})/(?![a-z]+/\d+`)[A-Za-z0-9_./-]*)`")
"""Signing domains, such as `iota/frame/1`, look like paths and are none."""
_ENTRY = re.compile(r"^\| (?P<word>.+?) \| .+ \| `(?P<path>[^`]+)`(?:: `(?P<name>[^`]+)`)? \|$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()


def defined(module: Path) -> set[str]:
    """Names of a module's top level, and of its classes' members as `Class.member`."""

    def names(body: list[ast.stmt]) -> set[str]:
        found: set[str] = set()
        for node in body:
            if isinstance(node, ast.ClassDef):
                found |= {node.name, *(f"{node.name}.{member}" for member in names(node.body))}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
        return found

    return names(ast.parse(module.read_text()).body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_of_a_page_exists(page: Path) -> None:
    text = page.read_text()
    assert [path for path in _PATH.findall(text) if not (ROOT / path).exists()] == []
    assert [link for link in _LINK.findall(text) if not (page.parent / link).exists()] == []


def test_every_word_of_the_glossary_lives_where_it_says() -> None:
    entries = [found.group("word", "path", "name") for found in _ENTRY.finditer(GLOSSARY)]
    rows = [line for line in GLOSSARY.splitlines() if line.startswith("| ") and "| where |" not in line]
    assert len(entries) == len(rows) > 0
    wrong = [word for word, path, name in entries if name is not None and name not in defined(ROOT / path)]
    assert wrong == []


def test_no_word_of_the_glossary_stands_there_twice() -> None:
    words = [found["word"] for found in _ENTRY.finditer(GLOSSARY)]
    assert len(words) == len(set(words))


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "threat-model.md").read_text()))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_every_module_that_tests_share_is_explained() -> None:
    page = (ROOT / "tests" / "README.md").read_text()
    shared = {path.stem for path in (ROOT / "tests" / "support").glob("[!_]*")}
    assert {name for name in shared if f"`{name}`" not in page and f"`{name}/`" not in page} == set()
