"""Sources: which documents they give, in which order, and what they say when they cannot."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from iota.data import open_source
from iota.data.source_hub import HubSource
from tests.support.data_sets import write_jsonl


def texts(spec: str | Path, start: int = 0) -> list[str]:
    return [document.text for document in open_source(str(spec)).documents(start)]


def write_parquet(path: Path, column: str, values: list[str | None]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({column: values}), path)
    return path


def test_the_standard_library_is_there_without_tests_and_packages() -> None:
    names = [document.name for document in open_source("stdlib").documents()]
    assert names == sorted(names)
    assert "json/decoder.py" in names
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]


def test_the_standard_librarys_first_file_is_a_whole_file() -> None:
    import json.decoder

    found = {d.name: d.text for d in open_source("stdlib").documents()}
    assert found["json/decoder.py"].encode() == Path(json.decoder.__file__).read_bytes()


def test_a_folders_files_are_documents_in_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/.hidden.swp", "picture.png", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path) == ["a/z.md", "b.txt"]


def test_a_folder_mixes_kinds_of_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", ["one", "two"])
    write_parquet(tmp_path / "c.parquet", "text", ["three", None, "four"])
    (tmp_path / "a.txt").write_text("zero")
    assert texts(tmp_path) == ["zero", "one", "two", "three", "four"]


@pytest.mark.parametrize("start", range(6))
def test_a_source_can_be_entered_at_any_document(tmp_path: Path, start: int) -> None:
    write_jsonl(tmp_path / "b.jsonl", ["one", "", "two"])
    write_parquet(tmp_path / "c.parquet", "text", ["three", "four"])
    whole = list(open_source(str(tmp_path)).documents())
    entered = list(open_source(str(tmp_path)).documents(start))
    assert entered == [document for document in whole if document.index >= start]


def test_a_single_text_file_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    book = "".join(f"Paragraph {i} " + "word " * (i % 90) + "\r\n\n" for i in range(400))
    path.write_bytes(book.encode())
    pieces = texts(path)
    assert "".join(pieces) == book
    assert len(pieces) > 10
    assert all(piece.endswith("\n\n") for piece in pieces)


def test_a_single_file_without_blank_lines_is_cut_at_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("".join(f"row {i}\n" for i in range(20_000)))
    pieces = texts(path)
    assert len(pieces) > 5
    assert "".join(pieces) == path.read_text()


def test_bytes_that_are_no_text_do_not_stop_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ok \xff\xfe")
    (tmp_path / "b.jsonl").write_text('{"text": "lone \\ud800 surrogate"}\n')
    assert [text.encode() for text in texts(tmp_path)] == ["ok \ufffd\ufffd".encode(), b"lone ? surrogate"]


@pytest.mark.parametrize("line", ["{", '{"body": "x"}', '{"text": 5}', "[]", "\udcff"])
def test_a_bad_json_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(ValueError, match=r"line 2 of b\.jsonl"):
        texts(path)


def test_a_parquet_file_without_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"c\.parquet has no text"):
        texts(write_parquet(tmp_path / "c.parquet", "body", ["x"]))


def test_what_is_no_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"c\.parquet is no readable parquet"):
        texts(tmp_path)


def test_a_folder_without_text_says_what_it_wants(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.jsonl"):
        open_source(str(tmp_path))


def test_a_source_that_is_not_there_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="stdlib"):
        open_source("/no/such/place")


def test_a_fingerprint_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    before = open_source(str(tmp_path)).fingerprint
    assert open_source(str(tmp_path)).fingerprint == before
    (tmp_path / "a.txt").write_text("other")
    assert open_source(str(tmp_path)).fingerprint != before


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        (
            "hf:HuggingFaceFW/fineweb-edu-score-2",
            HubSource("HuggingFaceFW/fineweb-edu-score-2", None, "train"),
        ),
        ("hf:a/b:sample", HubSource("a/b", "sample", "train")),
        ("hf:a/b:sample:test", HubSource("a/b", "sample", "test")),
        ("hf:a/b::test", HubSource("a/b", None, "test")),
    ],
)
def test_a_hub_data_set_is_named_with_config_and_split(spec: str, parsed: HubSource) -> None:
    assert open_source(spec) == parsed


@pytest.mark.parametrize("spec", ["hf:", "hf::train", "hf:a:b:c:d"])
def test_a_bad_hub_name_shows_the_form(spec: str) -> None:
    with pytest.raises(ValueError, match=r"hf:DATASET\[:CONFIG\]\[:SPLIT\]"):
        open_source(spec)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_data_set_is_streamed_through_datasets(tmp_path: Path, kind: str) -> None:
    rows = [f"row {i}" for i in range(50)]
    if kind == "parquet":
        write_parquet(tmp_path / "train.parquet", "text", list(rows))
    else:
        write_jsonl(tmp_path / "train.jsonl", rows)
    assert texts(f"hf:{tmp_path}") == rows
    entered = list(open_source(f"hf:{tmp_path}").documents(45))
    assert [(document.index, document.text) for document in entered] == [(i, rows[i]) for i in range(45, 50)]


def test_a_data_sets_other_splits_are_found(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ["train"])
    write_jsonl(tmp_path / "test.jsonl", ["test"])
    assert texts(f"hf:{tmp_path}::test") == ["test"]
    with pytest.raises(ValueError, match="cannot be read"):
        texts(f"hf:{tmp_path}::nothing")


def test_a_data_set_without_text_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", "body", ["x"])
    with pytest.raises(ValueError, match=r"no string 'text' among its fields \['body'\]"):
        texts(f"hf:{tmp_path}")


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        texts(f"hf:{tmp_path}/none")


def test_a_local_data_sets_name_does_not_show_where_it_lies(tmp_path: Path) -> None:
    assert str(tmp_path.parent) not in open_source(f"hf:{tmp_path}").name
    (tmp_path / "a.txt").write_text("x")
    assert str(tmp_path.parent) not in open_source(str(tmp_path)).name
