"""Measured tolerance profiles: their files, what they hold for, and that none makes an audit weaker."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from tests.support.small_runs import small_run
from validator.audits.declared import COMPARED, declared_bounds, least_bound
from validator.audits.measured import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MeasuredProfile,
    read_profile,
    read_profiles,
    segment_steps,
    shipped_profiles,
)
from validator.audits.tolerance import EXACT, profile_for
from validator.core.results import Quantity

MINE, THEIRS = "cpu/x86_64/AVX2/t1/torch2", "cpu/x86_64/AVX512/t2/torch2"
ROOT = Path(__file__).parents[2]
ERROR = (OpKind.FORWARD, Quantity.ERROR)


def _run(**changes: Any) -> RunSpec:
    """With fp32 on the wire, whose rounding is far below what was measured."""
    return small_run(boundary={"wire": "fp32"}, **changes)


def bound(value: float, depth: int = 5, **fields: Any) -> dict[str, Any]:
    return {"kind": "forward", "quantity": "error", "depth": depth, "samples": 100,
            "quantiles": [0.0, 0.0, 0.0, value], "tail": 0.1, "bound": value, **fields}  # fmt: skip


def document(**fields: Any) -> dict[str, Any]:
    spec = _run()
    return {
        "form": 3, "classes": ["cpu/x86_64/AVX2/t*/torch2", "cpu/x86_64/AVX512/t*/torch2"], "threads": 2,
        "precision": "fp32", "optimizer": "adamw", "moments": "fp32", "gradient_sums": "fp32",
        "wire": "fp32", "codec": "resbm-anchor",
        "hidden_size": spec.model.hidden_size, "layers": 2, "tokens": spec.data.tokens,
        "false_rejects": 1e-6, "margin": 2.0, "measured": [bound(1e-4)], **fields,
    }  # fmt: skip


def profile(**fields: Any) -> MeasuredProfile:
    return MeasuredProfile.model_validate_json(json.dumps(document(**fields)))


def error_bound(*profiles: MeasuredProfile, spec: RunSpec, mine: str = MINE, theirs: str = THEIRS) -> float:
    return profile_for(spec, mine, theirs, profiles).bounds(segment_steps(spec)).of(*ERROR)


SPEC = _run()
STEPS = segment_steps(SPEC)
WIDE = declared_bounds(SPEC, STEPS).of(*ERROR)


def test_a_measured_profile_of_the_pair_of_classes_is_used() -> None:
    found = profile_for(SPEC, MINE, THEIRS, [profile()])
    assert found.bounds(STEPS).of(*ERROR) == 1e-4
    assert found.name.startswith("measured/fp32/adamw/fp32/3 steps/")
    assert profile_for(SPEC, THEIRS, MINE, [profile()]) == found


def test_one_device_class_is_compared_to_the_bit_whatever_was_measured() -> None:
    same = ["cpu/x86_64/AVX2/t*/torch2"] * 2
    assert profile_for(SPEC, MINE, MINE, [profile(classes=same)], shown=True) is EXACT
    assert error_bound(profile(classes=same), spec=SPEC, theirs=MINE.replace("t1", "t2")) == 1e-4


def test_quantities_that_were_not_measured_have_the_declared_bound() -> None:
    found = profile_for(SPEC, MINE, THEIRS, [profile()])
    for depth in (1, STEPS):
        own, declared = found.bounds(depth).values, declared_bounds(SPEC, depth).values
        assert {key for key in declared if own[key] != declared[key]} == {ERROR}


@pytest.mark.parametrize(
    "fields",
    [{"threads": 1}, {"precision": "bf16-master"}, {"optimizer": "muon"}, {"wire": "int8"},
     {"codec": "identity"},
     {"hidden_size": 31}, {"layers": 1}, {"tokens": 23}, {"measured": [bound(1e-4, depth=2)]},
     {"classes": ["cpu/x86_64/AVX2/t*/torch2", "cuda/A/cuda13/torch2"]},
     {"classes": ["cpu/x86_64/AVX2/t*/torch2.1", "cpu/x86_64/AVX512/t*/torch2.1"]}],
)  # fmt: skip
def test_a_profile_holds_for_no_more_than_was_measured(fields: dict[str, Any]) -> None:
    assert error_bound(profile(**fields), spec=SPEC) == WIDE
    assert error_bound(profile(**fields), profile(), spec=SPEC) == 1e-4


def test_the_least_depth_that_suffices_gives_the_bounds() -> None:
    measured = profile(measured=[bound(1e-5, 1), bound(1e-4, 3), bound(1e-3, 10)])
    for steps, expected in ((1, 1e-5), (3, 1e-4), (4, 1e-3), (10, 1e-3)):
        assert error_bound(measured, spec=_with_audit(commit_every=steps, steps=10)) == expected
    assert error_bound(measured, spec=_with_audit(commit_every=11, steps=20)) == WIDE


def test_each_depth_of_a_segment_has_its_own_bounds() -> None:
    measured = profile(measured=[bound(1e-5, 1), bound(1e-4, 3)])
    found = profile_for(SPEC, MINE, THEIRS, [measured])
    assert [found.bounds(depth).of(*ERROR) for depth in (1, 2, 3, 4)] == [1e-5, 1e-4, 1e-4, 1e-4]


@pytest.mark.parametrize("sequences", [1, 2])
def test_a_run_of_fewer_tokens_has_at_least_what_its_wire_rounds(sequences: int) -> None:
    spec = _run(data={"sequences": sequences})
    assert error_bound(profile(measured=[bound(0.0)]), spec=spec) == least_bound(spec, Quantity.ERROR)
    assert least_bound(spec, Quantity.ERROR) < WIDE


def _with_audit(*, commit_every: int, steps: int) -> RunSpec:
    run = _run(schedule={"steps": steps}).model_dump()
    return RunSpec.model_validate({**run, "audit": {"commit_every": commit_every}})


CLASSES = st.one_of(
    st.sampled_from([MINE, THEIRS, "", "mixed", "cuda/x", "t*", "/t9/", "/t9999/"]), st.text()
)


@given(CLASSES, st.floats(0, 1e6))
def test_no_declared_class_makes_an_audit_weaker_than_the_declared_bounds(theirs: str, value: float) -> None:
    measured = [
        bound(value, kind=kind, quantity=quantity) for kind in COMPARED for quantity in COMPARED[kind]
    ]
    found = profile_for(SPEC, MINE, theirs, [profile(measured=measured)])
    for depth in range(1, STEPS + 1):
        declared = declared_bounds(SPEC, depth).values
        assert all(found.bounds(depth).of(*key) <= wide for key, wide in declared.items())


# ---- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [{"form": 1}, {"more": 1}, {"threads": "2"}, {"threads": 0}, {"measured": []}, {"margin": 0.5},
     {"margin": float("nan")}, {"false_rejects": 0}, {"precision": "fp8"}, {"classes": ["b", "a"]},
     {"classes": ["a"]}, {"classes": ["cpu/t1/x", "cpu/t1/x"]}, {"classes": ["", "a"]},
     {"measured": [bound(-1.0)]}, {"measured": [bound(float("inf"))]}, {"measured": [bound(1.0, depth=0)]},
     {"measured": [bound(1.0), bound(1.0)]}, {"measured": [bound(1.0, 1), bound(0.5, 2)]},
     {"measured": [bound(1.0, quantity="norm")]}, {"measured": [bound(1.0, kind="merge")]},
     {"measured": [bound(1.0, quantity="more")]}, {"measured": [bound(1.0, samples=0)]}],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_refused_by_its_name(fields: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(document(**fields)))
    with pytest.raises(ValueError, match=r"own\.json is no tolerance profile"):
        read_profile(path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"form": 2}', b"[" * 10_000])
def test_bytes_that_are_no_profile_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is no tolerance profile"):
        read_profile(path)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(ValueError, match="has more than"):
        read_profile(path)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, value in (("b", 1e-3), ("a", 1e-4)):
        path = tmp_path / f"{name}.json"
        path.write_text(profile(measured=[bound(value)]).model_dump_json())
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert [each.measured[0].bound for each in read_profiles(tmp_path)] == [1e-4, 1e-3]


def test_a_folder_that_is_none_and_one_with_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        read_profiles(tmp_path / "none")
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.json").touch()
    with pytest.raises(ValueError, match="take some away"):
        read_profiles(tmp_path)


def test_the_shipped_profiles_are_read_and_each_is_of_something_else() -> None:
    found = shipped_profiles()
    assert found
    assert len({(p.classes, p.precision, p.optimizer, p.wire) for p in found}) == len(found)


def test_the_page_on_tolerance_names_every_shipped_profile() -> None:
    page = (ROOT / "docs" / "tolerance.md").read_text()
    paths = (ROOT / "validator" / "audits" / "profiles").glob("*.json")
    assert {path.stem for path in paths} == set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE))
