"""The canonical form: as RFC 8785 has it, for the values that our documents hold."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import iota
import miner
import orchestrator
import validator
from iota.protocol.receipts import OpKind
from iota.spec import MAX_INTEGER, Count, Frozen, canonical_json, json_digest

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


class Numbers(Frozen):
    values: tuple[float, ...]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, b"0"),
        (-0.0, b"0"),
        (1.0, b"1"),
        (5e-3, b"0.005"),
        (1e-5, b"0.00001"),
        (1e-7, b"1e-7"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (1 / 3, b"0.3333333333333333"),
        (1753000000.125, b"1753000000.125"),
        (5e-324, b"5e-324"),
        (MAX_INTEGER, b"9007199254740991"),
    ],
)
def test_a_number_has_the_text_of_ecmascript_and_reads_back(number: float, text: bytes) -> None:
    assert canonical_json(number) == text
    assert Numbers.model_validate_json(b'{"values":[%b]}' % text).values == (number,)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), MAX_INTEGER + 1, -MAX_INTEGER - 1, "\ud800", {1: 2}, {1, 2}]
)
def test_a_value_without_a_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JCS|domain|utf-8|cannot name|unsupported"):
        canonical_json({"x": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | FLOATS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
)


@given(JSON)
@example(
    [0.1, 1e-4, 9.999e-5, 9999999999999998.0, 1e16, -1e16, '\x00\x1f\x7f"\\/\u2028', OpKind.STEP, (), {}]
)
def test_every_value_has_the_bytes_of_the_reference_implementation(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


def test_keys_are_sorted_by_utf16_units_and_text_stays_utf8() -> None:
    # U+1F600 comes before U+FF5E in UTF-16 (its first unit is D83D) and after it in UTF-8.
    assert canonical_json({"～": 1, "😀": 2, "é": "π\n"}) == '{"é":"π\\n","😀":2,"～":1}'.encode()


def test_the_order_of_keys_and_fields_does_not_matter() -> None:
    assert json_digest({"a": 1, "b": [1.0, None]}) == json_digest({"b": [1, None], "a": 1.0})


def test_a_document_that_is_read_back_has_the_same_digest() -> None:
    made = Numbers(values=(-0.0, 1e-5, 2.0, 1e21))
    for text in (made.canonical(), made.model_dump_json().encode(), json.dumps(made.model_dump())):
        assert Numbers.model_validate_json(text).content_digest() == made.content_digest()


# ---- every integer of every document has a canonical form ------------------------------------------


def documents() -> Iterator[type[Frozen]]:
    """Every model of the product that is `Frozen`."""
    for package in (iota, miner, orchestrator, validator):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # The exported model's code runs beside an export alone, which writes one of its modules.
            if not module.name.endswith(("__main__", ".modeling_iota")):
                importlib.import_module(module.name)
    found = [Frozen]
    for kind in found:
        found += kind.__subclasses__()
    return (kind for kind in found if kind.__module__.split(".")[0] != "tests")


def unbounded(kind: type[BaseModel]) -> set[str]:
    """Fields that may hold an integer beyond `MAX_INTEGER`, also inside tuples, dicts and unions."""
    found: set[str] = set()

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "integer" and "const" not in node:
                most = node.get("maximum", node.get("exclusiveMaximum", float("inf")) - 1)
                least = node.get("minimum", node.get("exclusiveMinimum", float("-inf")) + 1)
                if most > MAX_INTEGER or least < -MAX_INTEGER:
                    found.add(path)
            for key, inner in node.items():
                walk(inner, f"{path}.{key}")
        elif isinstance(node, list):
            for inner in node:
                walk(inner, path)

    for name, schema in kind.model_json_schema().get("properties", {}).items():
        walk(schema, name)
    return found


def test_every_integer_of_a_document_is_bounded() -> None:
    wrong = {f"{kind.__module__}.{kind.__name__}": unbounded(kind) for kind in documents()}
    assert {name: fields for name, fields in wrong.items() if fields} == {}


def test_an_integer_without_a_bound_is_found_wherever_it_stands() -> None:
    class Loose(Frozen):
        plain: int
        half: int = Field(ge=0)
        wide: int = Field(ge=0, lt=2**63)
        pairs: tuple[tuple[Count, int], ...]
        named: dict[str, int | None]
        good: tuple[Count, ...]

    assert {path.split(".")[0] for path in unbounded(Loose)} == {"plain", "half", "wide", "pairs", "named"}
