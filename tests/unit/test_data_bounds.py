"""Hostile data files: little that unfolds to much is refused, or read in bounded memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.data.parquet_pages import largest_page
from iota.data.rows import RowRules
from iota.data.sources import open_source

MIB = 1 << 20
LONG = "x" * (4 * MIB)


def parquet(path: Path, texts: list[str], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({"n": list(range(len(texts))), "text": texts}), path, **options)
    return path


def documents(path: Path, **rules: Any) -> list[str]:
    found: dict[str, str] = {}
    for document in open_source(str(path), RowRules(**rules)).read(None, Counter()):
        found[document.name] = found.get(document.name, "") + document.text
    return list(found.values())


def largest(path: Path) -> int:
    with pyarrow.parquet.ParquetFile(path) as file, path.open("rb") as raw:
        groups = range(file.num_row_groups)
        return max(largest_page(raw, file.metadata.row_group(group), "text") for group in groups)


WRITINGS: list[dict[str, Any]] = [
    {"use_dictionary": False},
    {"use_dictionary": False, "data_page_version": "2.0"},
    {"use_dictionary": True, "dictionary_pagesize_limit": 1 << 30},
    {"use_dictionary": False, "write_statistics": False},
]


@pytest.mark.parametrize("writing", WRITINGS, ids=str)
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_a_page_beyond_the_bound_is_refused_before_it_is_unfolded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writing: dict[str, Any], compression: str
) -> None:
    path = parquet(tmp_path / "a.parquet", [LONG], compression=compression, **writing)
    assert 4 * MIB <= largest(path) <= 4 * MIB + 100
    assert documents(path) == [LONG]
    monkeypatch.setattr("iota.data.parquet_pages.MAX_PAGE_BYTES", 3 * MIB)
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(ValueError, match=r"a\.parquet has a page of 4 MiB, and at most 3 MiB are read"):
        documents(path)
    assert pyarrow.total_allocated_bytes() - before < MIB


def test_a_column_far_beyond_the_bound_in_small_pages_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{number} {'x' * 1000}" for number in range(5000)]
    small = {"use_dictionary": False, "data_page_size": 10_000, "write_batch_size": 8}
    path = parquet(tmp_path / "a.parquet", texts, row_group_size=3000, **small)
    monkeypatch.setattr("iota.data.parquet_pages.MAX_PAGE_BYTES", 50_000)
    assert largest(path) < 50_000
    assert documents(path) == texts


SHARED: dict[str, tuple[int, int, dict[str, Any]]] = {
    "values that begin as the one before": (0, 64, {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}}),
    "long rows among many short ones": (50_000, 64, {"write_batch_size": 1}),
}


@pytest.mark.parametrize("name", SHARED)
def test_long_values_that_the_metadata_does_not_show_are_read_a_few_at_a_time(
    tmp_path: Path, name: str
) -> None:
    short, long, options = SHARED[name]
    texts = ["x"] * short + [LONG] * long
    path = parquet(tmp_path / "a.parquet", texts, compression="zstd", use_dictionary=False, **options)
    assert path.stat().st_size < MIB
    read = open_source(str(path)).read(None, Counter())
    most = 0
    for _ in range(short + 300):  # a long text has 128 parts
        next(read)
        most = max(most, pyarrow.total_allocated_bytes())
    assert most < 200 * MIB


GOOD = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b" * 300, None]}), GOOD, data_page_version="2.0")


@settings(max_examples=300, deadline=None)
@given(st.integers(4, len(GOOD.getvalue()) - 1), st.binary(min_size=1, max_size=12))
def test_damaged_pages_are_an_error_that_says_so(place: int, change: bytes) -> None:
    data = GOOD.getvalue()
    damaged = io.BytesIO(data[:place] + change + data[place + len(change) :])
    with pyarrow.parquet.ParquetFile(GOOD) as file:
        try:
            found = str(largest_page(damaged, file.metadata.row_group(0), "text"))
        except ValueError as error:
            found = str(error)
    assert found.isdigit() or "damaged" in found or "at most" in found


def test_a_header_without_end_costs_no_more_than_its_reading(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ["a" * 1000])
    with pyarrow.parquet.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
    for flood in (b"\x15" + b"\x80" * (32 * MIB), b"\x1c" * (32 * MIB), b"\x19\xf1\xff\xff\xff\xff\x0f", b""):
        with pytest.raises(ValueError, match="damaged"):
            largest_page(io.BytesIO(flood), group, "text")


READ_ALL = """
import resource, sys
from collections import Counter
from iota.data.sources import open_source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(sum(len(d.text) for d in open_source(sys.argv[1]).read(None, Counter())))
except ValueError as error:
    print(str(error)[:200])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10)
"""


@pytest.mark.parametrize(("name", "limit"), [("a.jsonl", "4194304"), ("a.json", "16777216")])
def test_json_that_is_all_structure_is_refused_in_bounded_memory(
    tmp_path: Path, name: str, limit: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"text": "a", "more": [' + b"[]," * (20 * MIB) + b"0]}\n")
    out = subprocess.run(
        [sys.executable, "-c", READ_ALL, path], capture_output=True, text=True, check=True
    ).stdout
    said, grown_mib = out.strip().split("\n")
    assert f"it may have more than {limit} values" in said
    assert int(grown_mib) < 400


def test_a_line_of_json_with_much_text_is_read(tmp_path: Path) -> None:
    text = "It was, as they say, a long one: [sic] {so}. " * (24 * MIB // 45)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": text}) + "\n")
    assert documents(path) == [text]


def test_a_line_of_json_beyond_the_bound_is_refused_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iota.data.row_files.MAX_ROW_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' + json.dumps({"text": "x" * 2000}) + "\n")
    with pytest.raises(ValueError, match="line 2 is longer than 64 MiB"):
        documents(path)
    assert documents(path, skip_bad=True) == ["good"]
