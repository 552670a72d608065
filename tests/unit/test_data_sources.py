"""Sources: which documents they give, in which order, and what they say when they cannot."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from iota.data import Document, RowRules, open_source, open_sources
from iota.data.source_hub import HubSource
from iota.data.text_parts import PART_CHARACTERS
from tests.support.data_sets import write_jsonl

SKIP_BAD = RowRules(skip_bad=True)


def documents(spec: str | Path, rules: RowRules | None = None) -> list[Document]:
    return list(open_source(str(spec), rules or RowRules()).read(None, Counter()))


def texts(spec: str | Path, rules: RowRules | None = None) -> list[str]:
    return [document.text for document in documents(spec, rules)]


def write_parquet(path: Path, column: str, values: list[str | None]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({column: values}), path, row_group_size=2)
    return path


def test_the_standard_library_is_there_without_tests_and_packages() -> None:
    names = [document.name for document in documents("stdlib")]
    assert names == sorted(names)
    assert "json/decoder.py" in names
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]


def test_the_standard_librarys_files_are_whole() -> None:
    import json.decoder

    found = "".join(d.text for d in documents("stdlib") if d.name == "json/decoder.py")
    assert found.encode() == Path(json.decoder.__file__).read_bytes()


def test_a_folders_files_are_documents_in_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/.hidden.swp", "Makefile", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path) == ["Makefile", "a/z.md", "b.txt"]


def test_a_folder_mixes_kinds_of_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", ["one", "two"])
    write_parquet(tmp_path / "c.parquet", "text", ["three", None, "four"])
    (tmp_path / "a.txt").write_text("zero")
    (tmp_path / "d.csv").write_text('id,text\n1,"five\nlines"\n2,six\n')
    (tmp_path / "e.json").write_text('[\n{"text": "seven"}, {"text": "eight"}]')
    (tmp_path / "f.json").write_text('{"text": "nine"}\n{"text": "ten"}\n')
    (tmp_path / "g.tsv").write_text("text\tid\neleven\t1\n")
    numbers = "zero one two three four five six seven eight nine ten eleven"
    assert texts(tmp_path) == numbers.replace("five", "five\nlines@").replace("@ ", " ").split(" ")


LONG = "words and words " * (PART_CHARACTERS // 4)
ROWS = ["one", "", "two", LONG, "three", LONG, "four"]
LINES = "".join(json.dumps({"text": row}) + "\n" for row in [*ROWS, ""]) + '\n\n{"text": "five"}\n'
FORMATS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_text(LINES),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "a.json": lambda path: path.write_text(json.dumps([{"text": row} for row in ROWS])),
    "a.csv": lambda path: path.write_text("text,n\n" + "".join(f'"{row}",1\n' for row in ROWS)),
    "a.parquet": lambda path: write_parquet(path, "text", list(ROWS)),
    "a.txt": lambda path: path.write_text(LONG),
}


@pytest.mark.parametrize("prefix", ["", "hf:"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_source_resumes_after_any_document_and_any_part(tmp_path: Path, name: str, prefix: str) -> None:
    FORMATS[name](tmp_path / name)
    if not prefix:
        (tmp_path / "b.txt").write_text("the end")
    spec = f"{prefix}{tmp_path}"
    whole = documents(spec)
    assert len(whole) > 4
    for number, document in enumerate(whole):
        rest = list(open_source(spec).read(json.loads(json.dumps(document.after)), Counter()))
        assert rest == whole[number + 1 :]


def test_a_single_text_file_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    book = "".join(f"Paragraph {i} " + "word " * (i % 90) + "\r\n\n" for i in range(1400))
    path.write_bytes(book.encode())
    pieces = texts(path)
    assert "".join(pieces) == book
    assert len(pieces) > 5
    assert all(piece.endswith("\n\n") for piece in pieces)


def test_a_single_file_without_blank_lines_is_cut_at_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("".join(f"row {i}\n" for i in range(40_000)))
    pieces = texts(path)
    assert len(pieces) > 5
    assert all(piece.endswith("\n") for piece in pieces)
    assert "".join(pieces) == path.read_text()


def test_a_line_of_any_length_is_cut_before_a_space(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("some words of text " * 20_000)
    pieces = texts(path)
    assert "".join(pieces) == path.read_text()
    assert all(piece.startswith(" ") for piece in pieces[1:])
    assert max(map(len, pieces)) <= PART_CHARACTERS


def test_text_without_any_space_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("文" * 100_000)
    assert "".join(texts(path)) == "文" * 100_000


def test_a_file_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="stdlib"):
        open_source("/no/such/place")


def test_a_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for place in ("x/set", "y/set"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.txt").write_text("one")
    before, same = (open_source(str(tmp_path / place)).fingerprint for place in ("x/set", "y/set"))
    assert before == same
    (tmp_path / "x/set/a.txt").write_text("other")
    assert open_source(str(tmp_path / "x/set")).fingerprint != before


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_source_that_was_written_to_has_another_identity(tmp_path: Path, prefix: str) -> None:
    import os

    write_jsonl(tmp_path / "train.jsonl", ["one"])
    before = open_source(f"{prefix}{tmp_path}").identity
    assert open_source(f"{prefix}{tmp_path}").identity == before
    os.utime(tmp_path / "train.jsonl", ns=(1, 1))
    assert open_source(f"{prefix}{tmp_path}").identity != before


def test_the_rules_of_reading_are_part_of_the_identity(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["one"])
    path = str(tmp_path / "a.jsonl")
    assert open_source(path).identity != open_source(path, SKIP_BAD).identity


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("hf:HuggingFaceFW/fineweb-edu-score-2", HubSource("HuggingFaceFW/fineweb-edu-score-2")),
        ("hf:a/b:sample", HubSource("a/b", None, "sample")),
        ("hf:a/b:sample:test", HubSource("a/b", None, "sample", "test")),
        ("hf:a/b::test", HubSource("a/b", None, None, "test")),
        (f"hf:a/b@{COMMIT}", HubSource("a/b", COMMIT)),
        ("hf:a/b@v1.0:sample", HubSource("a/b", "v1.0", "sample")),
    ],
)
def test_a_hub_data_set_is_named_with_revision_config_and_split(spec: str, parsed: HubSource) -> None:
    assert open_source(spec) == parsed


def test_a_pinned_hub_data_set_has_its_commit_as_fingerprint_and_in_its_name() -> None:
    source = open_source(f"hf:a/b@{COMMIT}")
    assert (source.fingerprint, source.name) == (COMMIT, f"hf:a/b@{COMMIT}::train")


@pytest.mark.parametrize("spec", ["hf:", "hf::train", "hf:a:b:c:d", "hf:a/b@", "hf:@main"])
def test_a_bad_hub_name_shows_the_form(spec: str) -> None:
    with pytest.raises(ValueError, match=r"hf:DATASET\[@REVISION\]\[:CONFIG\]\[:SPLIT\]"):
        open_source(spec)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_data_set_is_streamed_through_datasets_and_resumes_after_any_row(tmp_path: Path, kind: str) -> None:
    rows = [f"row {i}" for i in range(2500)]
    if kind == "parquet":
        write_parquet(tmp_path / "train.parquet", "text", list(rows))
    else:
        write_jsonl(tmp_path / "train.jsonl", rows)
    whole = documents(f"hf:{tmp_path}")
    assert [document.text for document in whole] == rows
    for number in (0, 1022, 1023, 1024, 2100, 2499):
        rest = open_source(f"hf:{tmp_path}").read(whole[number].after, Counter())
        assert [document.text for document in rest] == rows[number + 1 :]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_data_sets_files_may_be_compressed(tmp_path: Path, codec: str) -> None:
    suffix = {"gzip": "gz", "zstd": "zst"}[codec]
    rows = [f"row {i}" for i in range(50)]
    with pyarrow.CompressedOutputStream(str(tmp_path / f"train.jsonl.{suffix}"), codec) as file:
        file.write("".join(json.dumps({"text": row}) + "\n" for row in rows).encode())
    assert texts(f"hf:{tmp_path}") == rows


def test_a_data_sets_other_splits_are_found(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ["train"])
    write_jsonl(tmp_path / "test.jsonl", ["test"])
    assert texts(f"hf:{tmp_path}::test") == ["test"]
    with pytest.raises(ValueError, match="cannot be read"):
        texts(f"hf:{tmp_path}::nothing")


def test_a_data_set_without_text_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", "body", ["x"])
    with pytest.raises(ValueError, match=r"no column 'text': give --text-field body"):
        texts(f"hf:{tmp_path}")


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        texts(f"hf:{tmp_path}/none")


def test_a_local_data_sets_name_does_not_show_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert str(tmp_path.parent) not in open_source(f"hf:{tmp_path}").name
    assert str(tmp_path.parent) not in open_source(str(tmp_path)).name


def test_weights_are_scaled_to_shares(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    opened = open_sources([f"{tmp_path}/a.txt=3", f"{tmp_path}/b.txt=1"])
    assert [(w.source.name, w.weight) for w in opened] == [("a.txt", 0.75), ("b.txt", 0.25)]


def test_a_path_that_exists_is_no_weight(tmp_path: Path) -> None:
    (tmp_path / "lr=0.1").write_text("x")
    assert open_sources([f"{tmp_path}/lr=0.1"])[0].source.name == "lr=0.1"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["stdlib", "stdlib=1"], "has no weight"),
        (["stdlib=1", "stdlib=2"], "named twice"),
        (["stdlib=1", "hf:x/y=0"], "above 0"),
        (["stdlib=1", "hf:x/y=nan"], "above 0"),
        (["stdlib=1", "hf:x/y=-1"], "above 0"),
        ([], "give a source"),
    ],
)
def test_a_mixture_that_is_not_clear_is_refused(given: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        open_sources(given)


def test_a_long_value_that_many_rows_share_is_not_copied_for_each(tmp_path: Path) -> None:
    value, rows = "x" * (4 << 20), 256
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), [value])
    path, options = tmp_path / "a.parquet", {"store_schema": False, "dictionary_pagesize_limit": 1 << 30}
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, compression="zstd", **options)
    assert path.stat().st_size < 1000
    read = open_source(str(path)).read(None, Counter())
    assert next(iter(read)).text
    assert pyarrow.total_allocated_bytes() < 256 << 20


def test_a_row_of_parquet_beyond_the_bound_of_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iota.data.row_files.MAX_ROW_BYTES", 1000)
    path = write_parquet(tmp_path / "a.parquet", "text", ["short", "x" * 1001])
    with pytest.raises(ValueError, match="row 2 is longer than"):
        texts(path)


def test_a_link_out_of_a_folder_is_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "hotkey").write_text("a secret")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    (folder / "inside.txt").symlink_to("a.txt")
    assert texts(folder) == ["text", "text"]
    (folder / "notes.txt").symlink_to("../hotkey")
    with pytest.raises(ValueError, match=r"notes\.txt is a link out of .*/hotkey"):
        open_source(str(folder))


@pytest.mark.parametrize("link", ["notes.txt", "more/notes.txt"])
def test_a_link_out_of_a_local_data_set_is_not_trained_on(tmp_path: Path, link: str) -> None:
    (tmp_path / "hotkey").write_text("a secret")
    folder = tmp_path / "set"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("text")
    (folder / "more" / "inside.txt").symlink_to("../a.txt")
    assert texts(f"hf:{folder}") == ["text", "text"]
    (folder / link).symlink_to(tmp_path / "hotkey")
    with pytest.raises(ValueError, match=r"notes\.txt is a link out of .*/hotkey: give that"):
        texts(f"hf:{folder}")


@pytest.mark.parametrize("named", ["../hotkey.txt", "{}/hotkey.txt", "../hot*.txt", "more/../../hotkey.txt"])
def test_a_local_data_set_cannot_name_files_outside_of_it_as_its_data(tmp_path: Path, named: str) -> None:
    (tmp_path / "hotkey.txt").write_text("a secret")
    folder = tmp_path / "set"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("text")
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: {named.format(tmp_path)!r}\n---\n"
    )
    with pytest.raises(ValueError, match=r"hotkey\.txt lies outside of"):
        texts(f"hf:{folder}")


@pytest.mark.parametrize("prefix", ["", "hf:"])
@pytest.mark.parametrize("below", ["", "data"])
def test_the_hubs_own_cache_is_read_through_its_links(tmp_path: Path, prefix: str, below: str) -> None:
    repository = tmp_path / "datasets--owner--set"
    snapshot = repository / "snapshots" / ("a" * 40)
    (snapshot / "data").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "123abc").write_text('{"text": "one"}\n{"text": "two"}\n')
    (snapshot / "data" / "train.jsonl").symlink_to("../../../blobs/123abc")
    assert texts(f"{prefix}{snapshot / below}") == ["one", "two"]
    (tmp_path / "hotkey").write_text("a secret")
    (snapshot / "data" / "train-2.jsonl").symlink_to("../../../../hotkey")
    with pytest.raises(ValueError, match=r"train-2\.jsonl is a link out of"):
        texts(f"{prefix}{snapshot / below}")


def test_a_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\udcff.txt").write_text("text")
    with pytest.raises(ValueError, match=r"'a\\udcff\.txt' is not UTF-8: rename it"):
        open_source(str(tmp_path))


def test_names_of_skipped_files_do_not_command_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b\x1b[2J\n.bin").write_bytes(bytes(1000))
    assert open_source(str(tmp_path)).left_out == "1 file skipped (no text): b?[2J .bin"
