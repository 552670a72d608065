"""Every public class, function and method of the product says what it does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("iota", "miner", "validator", "orchestrator")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    """Every class of the product."""
    for path in _files():
        yield from ((path, node) for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef))


def _files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _names(bases: list[ast.expr]) -> set[str]:
    return {node.id for base in bases for node in ast.walk(base) if isinstance(node, ast.Name)}


def _interfaces() -> set[str]:
    """Methods that an interface documents: what implements one need not repeat it."""
    found = set()
    inherited = {name for _, node in _classes() for name in _names(node.bases)}
    for _, node in _classes():
        if "Protocol" in _names(node.bases) or node.name in inherited:
            found |= {m.name for m in node.body if isinstance(m, Function) and ast.get_docstring(m)}
    return found


def _undocumented(body: list[ast.stmt], owner: str, excused: set[str]) -> Iterator[str]:
    """Names of public definitions in `body` that have no docstring of their own and are not `excused`."""
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node.body, f"{owner}{node.name}.", excused)
        if not ast.get_docstring(node) and not (owner and node.name in excused):
            yield f"{owner}{node.name}"


def test_every_public_definition_has_a_docstring() -> None:
    excused = _interfaces()
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in _files()
        for name in _undocumented(_tree(path).body, "", excused)
    ]
    assert not missing, "without a docstring:\n" + "\n".join(missing)
