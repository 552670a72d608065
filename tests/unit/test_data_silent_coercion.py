"""Silent coercion: what is no text is never trained on, and nothing is left out without being counted.

Each test runs `iota data prepare` as a user does, on a small file of its own.
"""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from iota.cli.main import main
from iota.data import Manifest, read_manifest
from tests.support.data_sets import EOS, documents_in, text_of, tokens_of, train_tokens

TEXTS = [f"{number} " + "alder birch cedar élm " * (20 + number % 7) for number in range(300)]


@dataclass(frozen=True)
class Done:
    """How a command ended, and the data that it made."""

    code: object
    err: str
    out: Path
    manifest: Manifest | None

    @property
    def documents(self) -> list[str]:
        """The texts in the shards, sorted; the one that was cut is joined again."""
        assert self.manifest is not None, self.err
        train, held = train_tokens(self.out, self.manifest), tokens_of(self.out, self.manifest, -1)
        if held[-1] != EOS:  # what was cut off is the end of the training data
            rest = train[np.flatnonzero(train == EOS)[-2] + 1 :]
            train, held = train[: -rest.size], np.concatenate([held, rest])
        return sorted(documents_in(train) + documents_in(held))

    @property
    def skipped(self) -> dict[str, int]:
        assert self.manifest is not None, self.err
        return dict(self.manifest.sources[0].skipped)


Prepare = Callable[..., Done]


@pytest.fixture
def prepare(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Prepare:
    """`iota data prepare` into an empty folder."""
    runs = iter(range(100))

    def run(source: Path, *arguments: str) -> Done:
        out = tmp_path / f"out-{next(runs)}"
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["data", "prepare", str(source), "--out", str(out), *arguments])
        printed, err = capfd.readouterr()
        manifest = read_manifest(out, printed.strip()) if ended.value.code == 0 else None
        return Done(ended.value.code, err, out, manifest)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "sources"
    made.mkdir()
    return made


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows_of_text() -> list[Any]:
    return [{"text": text} for text in TEXTS]


def parquet(path: Path, **columns: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(done: Done, *parts: str) -> None:
    assert done.code == 2
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err
    assert not list(done.out.glob("data/*"))


# ---- types of columns --------------------------------------------------------------------------


def test_a_binary_column_gives_the_same_tokens_as_strings(prepare: Prepare, folder: Path) -> None:
    binary = parquet(folder / "binary.parquet", text=[text.encode() for text in TEXTS])
    strings = parquet(folder / "strings.parquet", text=TEXTS)
    first, second = prepare(binary), prepare(strings)
    assert first.documents == second.documents == sorted(TEXTS)
    assert first.manifest is not None
    assert second.manifest is not None
    assert first.manifest.shards == second.manifest.shards


def test_a_struct_column_is_refused_and_its_field_can_be_taken(prepare: Prepare, folder: Path) -> None:
    path = parquet(folder / "struct.parquet", text=[{"raw": text} for text in TEXTS])
    refused(prepare(path), "struct.parquet", "struct<raw: string>", "--text-field text.raw")
    assert prepare(path, "--text-field", "text.raw").documents == sorted(TEXTS)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([1, 2, 3], "int64"),
        ([0.5], "double"),
        ([["a"]], "list<"),
        ([True], "bool"),
        ([{"n": 1}], "struct<n: int64>"),
    ],
)
def test_a_column_that_is_no_text_is_refused_by_its_type(
    prepare: Prepare, folder: Path, column: list[Any], kind: str
) -> None:
    path = parquet(folder / "a.parquet", text=column, body=["the text"] * len(column))
    refused(prepare(path), kind, "--text-field body")
    refused(prepare(path, "--skip-bad"), kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"raw": "x"}, "an object"),
        (["x"], "a list"),
        (5, "an integer"),
        (0.5, "a number"),
        (True, "a boolean"),
    ],
)
def test_a_json_row_that_is_no_text_is_refused_by_its_type(
    prepare: Prepare, folder: Path, value: Any, kind: str
) -> None:
    path = written(folder / "a.jsonl", lines([*rows_of_text(), {"text": value}]))
    refused(prepare(path), "line 301", kind)
    done = prepare(path, "--skip-bad")
    assert (done.documents, done.skipped) == (sorted(TEXTS), {"not text": 1})


def test_a_column_of_csv_that_is_no_text_is_refused(prepare: Prepare, folder: Path) -> None:
    path = written(
        folder / "a.csv", "text,body\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS))
    )
    refused(prepare(path), "int64", "--text-field body")
    assert prepare(path, "--text-field", "body").documents == sorted(TEXTS)


def test_another_field_is_named_and_can_be_taken(prepare: Prepare, folder: Path) -> None:
    path = written(folder / "a.jsonl", lines([{"content": text} for text in TEXTS]))
    refused(prepare(path), "no row with a field 'text'", "--text-field content")
    assert prepare(path, "--text-field", "content").documents == sorted(TEXTS)


# ---- rows without text, broken rows ------------------------------------------------------------


def nulls_as(kind: str, folder: Path) -> Path:
    """300 texts and one null before the 151st, as parquet, JSON lines or a Hub's folder."""
    rows: list[Any] = [*TEXTS[:150], None, *TEXTS[150:]]
    if kind == "parquet":
        return parquet(folder / "a.parquet", text=rows)
    if kind == "json":
        return written(folder / "a.json", json.dumps([{"text": text} for text in rows]))
    made = written(folder / "a.jsonl", lines([{"text": text} for text in rows]))
    return Path(f"hf:{folder}") if kind == "hub" else made


@pytest.mark.parametrize("kind", ["parquet", "lines", "json", "hub"])
def test_a_row_without_text_is_skipped_counted_and_said_by_every_reader(
    prepare: Prepare, folder: Path, kind: str
) -> None:
    path = nulls_as(kind, folder)
    done = prepare(path)
    assert (done.documents, done.skipped) == (sorted(TEXTS), {"null": 1})
    assert "1 (1 null) skipped" in done.err.splitlines()[-1]
    refused(prepare(path, "--strict"), "151", "--strict")


def test_rows_without_the_field_and_blank_ones_are_counted_apart(prepare: Prepare, folder: Path) -> None:
    path = written(
        folder / "a.jsonl", lines([*rows_of_text(), {"other": "x"}, {"text": " \n"}, {"text": ""}])
    )
    assert prepare(path).skipped == {"without the field": 1, "blank": 2}


def test_a_line_that_is_not_json_is_named_and_skipped_only_when_asked(prepare: Prepare, folder: Path) -> None:
    rows = lines(rows_of_text()).splitlines(keepends=True)
    rows[150] = '{"text": "cut off\n'
    path = written(folder / "broken.jsonl", "".join(rows))
    refused(prepare(path), "broken.jsonl", "line 151 is not JSON: ", "--skip-bad")
    done = prepare(path, "--skip-bad")
    assert done.skipped == {"broken": 1}
    assert done.documents == sorted(TEXTS[:150] + TEXTS[151:])
    assert "1 (1 broken) skipped" in done.err


@pytest.mark.parametrize(
    "line",
    [b"{", b'{"text": "\xff"}', b'{"text": "\\ud800"}', b"[" * 100_000, b'{"text": ' + b"9" * 5000 + b"}"],
)
def test_any_broken_line_is_refused_or_skipped(prepare: Prepare, folder: Path, line: bytes) -> None:
    path = written(folder / "a.jsonl", lines(rows_of_text()).encode() + line + b"\n")
    refused(prepare(path), "line 301")
    assert prepare(path, "--skip-bad").documents == sorted(TEXTS)


def test_a_row_of_csv_with_too_many_columns_is_refused_or_skipped(prepare: Prepare, folder: Path) -> None:
    rows = [f'{number},"{text}"\n' for number, text in enumerate(TEXTS)]
    path = written(folder / "a.csv", "id,text\n" + "".join(rows[:150]) + "1,2,3\n" + "".join(rows[150:]))
    refused(prepare(path), "a.csv", "Expected 2 columns, got 3")
    done = prepare(path, "--skip-bad")
    assert (done.documents, done.skipped) == (sorted(TEXTS), {"broken": 1})


def test_a_broken_binary_row_is_refused_with_its_number(prepare: Prepare, folder: Path) -> None:
    path = parquet(folder / "a.parquet", text=[*(text.encode() for text in TEXTS), b"ok\xff"])
    refused(prepare(path), "row 301 is not UTF-8 at byte 2 (0xff)")
    assert prepare(path, "--skip-bad").skipped == {"broken": 1}


def test_a_broken_string_row_is_refused_with_its_number(prepare: Prepare, folder: Path) -> None:
    column = pyarrow.array([*(text.encode() for text in TEXTS), b"ok\xff"]).view(pyarrow.string())
    path = parquet(folder / "a.parquet", text=column)
    refused(prepare(path), "row 301 is not UTF-8 at byte 2 (0xff)")
    assert prepare(path, "--skip-bad").skipped == {"broken": 1}


def test_damaged_parquet_is_named(prepare: Prepare, folder: Path) -> None:
    refused(prepare(written(folder / "a.parquet", b"nonsense")), "a.parquet")


def test_skipping_and_refusing_at_once_is_refused(prepare: Prepare, folder: Path) -> None:
    path = written(folder / "a.jsonl", lines(rows_of_text()))
    refused(prepare(path, "--strict", "--skip-bad"), "give one of them")


# ---- formats and compression --------------------------------------------------------------------


def zstd(data: bytes) -> bytes:
    packed: bytes = pyarrow.Codec("zstd").compress(data, asbytes=True)
    # Frames of `compress` do not need their size in front; tools write several frames after another.
    return packed


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, "gz"), (bz2.compress, "bz2"), (zstd, "zst")])
@pytest.mark.parametrize("name", ["rows.jsonl.{}", "rows.jsonl", "rows.{}", "rows"])
def test_compressed_rows_are_read_by_name_and_by_magic(
    prepare: Prepare, folder: Path, pack: Callable[[bytes], bytes], suffix: str, name: str
) -> None:
    path = written(folder / name.format(suffix), pack(lines(rows_of_text()).encode()))
    assert prepare(path).documents == sorted(TEXTS)


def test_a_file_that_was_decompressed_under_its_old_name_is_read(prepare: Prepare, folder: Path) -> None:
    path = written(folder / "rows.jsonl.gz", lines(rows_of_text()))
    assert prepare(path).documents == sorted(TEXTS)


def test_a_compressed_file_that_is_cut_off_is_refused(prepare: Prepare, folder: Path) -> None:
    path = written(folder / "rows.jsonl.gz", gzip.compress(lines(rows_of_text()).encode())[:-100])
    refused(prepare(path), "rows.jsonl.gz cannot be read")


def test_parquet_is_known_by_its_magic(prepare: Prepare, folder: Path) -> None:
    assert prepare(parquet(folder / "rows.bin", text=TEXTS)).documents == sorted(TEXTS)


# ---- encodings and binaries ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "hint"),
    [("utf-16", "it begins like UTF-16: give --encoding utf-16"), ("latin-1", "give its --encoding")],
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_another_encoding_is_refused_with_a_hint_and_read_when_named(
    prepare: Prepare, folder: Path, encoding: str, hint: str, name: str
) -> None:
    content = {
        "a.txt": "".join(f"{text}\n\n" for text in TEXTS),
        "a.jsonl": "".join(f'{{"text": "{text}"}}\n' for text in TEXTS),
        "a.csv": "text\n" + "".join(f'"{text}"\n' for text in TEXTS),
    }[name]
    path = written(folder / name, content.encode(encoding))
    refused(prepare(path), "is not", hint if name == "a.txt" or encoding == "utf-16" else "byte")
    read = "".join(prepare(path, "--encoding", encoding).documents)
    assert read.count("élm") == "".join(TEXTS).count("élm")
    assert "\ufffd" not in read


def test_an_encoding_error_says_where_it_is(prepare: Prepare, folder: Path) -> None:
    path = written(folder / "a.txt", b"\xef\xbb\xbf" + b"good text " * 200_000 + b"\xe9 bad")
    refused(prepare(path), f"a.txt is not utf-8 at byte {3 + 2_000_000}")


def test_a_byte_order_mark_of_utf8_is_no_text(prepare: Prepare, folder: Path) -> None:
    bom = b"\xef\xbb\xbf"
    path = written(folder / "a.jsonl", bom + lines(rows_of_text()).encode())
    assert prepare(path).documents == sorted(TEXTS)
    text = written(folder / "a.txt", bom + "".join(TEXTS).encode())
    assert "\ufeff" not in "".join(prepare(text).documents)


@pytest.mark.parametrize("name", ["UTF8", "utf-8", "U8"])
def test_utf8_has_many_names(prepare: Prepare, folder: Path, name: str) -> None:
    path = written(folder / "a.jsonl", b"\xef\xbb\xbf" + lines(rows_of_text()).encode())
    assert prepare(path, "--encoding", name).documents == sorted(TEXTS)


def test_an_encoding_that_is_none_is_refused(prepare: Prepare, folder: Path) -> None:
    path = written(folder / "a.txt", "".join(TEXTS))
    refused(prepare(path, "--encoding", "utf-99"), "there is no encoding 'utf-99'")


@pytest.mark.parametrize("name", ["picture.png", "picture", "picture.txt"])
def test_a_binary_is_refused(prepare: Prepare, folder: Path, name: str) -> None:
    noise = np.random.default_rng(0).bytes(300_000)
    refused(prepare(written(folder / name, noise)), name)


def test_files_of_a_folder_that_are_no_text_are_counted_and_named(prepare: Prepare, folder: Path) -> None:
    written(folder / "a.unknown", "".join(TEXTS))
    written(folder / "picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100))
    done = prepare(folder)
    assert "1 file skipped (no text): picture.png" in done.err
    assert "".join(done.documents).count("alder") == "".join(TEXTS).count("alder")
    assert done.skipped == {"files that are no text": 1}
    refused(prepare(folder, "--strict"), "picture.png", "--strict")


def test_a_folder_of_which_nothing_can_be_read_is_refused(prepare: Prepare, folder: Path) -> None:
    refused(prepare(folder), "there is no text")
    written(folder / "picture.png", bytes(100))
    refused(prepare(folder), "there is no text", "picture.png")
    refused(prepare(folder / "picture.png"), "there is no text in picture.png: 1 file skipped (no text)")


def test_an_empty_file_is_refused_with_the_reason(prepare: Prepare, folder: Path) -> None:
    refused(prepare(written(folder / "a.txt", "")), "a.txt holds no text (1 skipped: blank): choose another")


# ---- long documents ------------------------------------------------------------------------------


def test_one_long_document_without_a_line_end_is_held_out_in_part(prepare: Prepare, folder: Path) -> None:
    text = "oak elm pine fir " * 10_000
    done = prepare(written(folder / "long.txt", text))
    assert done.manifest is not None, done.err
    assert done.manifest.heldout.tokens == round(0.05 * (len(text) + 1))
    train, held = train_tokens(done.out, done.manifest), tokens_of(done.out, done.manifest, -1)
    both = text_of(train[train != EOS]) + text_of(held[held != EOS])
    assert sorted(both.split()) == sorted(text.split())
    # One EOS at the document's end, and one at each place where the held-out part is missing.
    assert (train == EOS).sum() <= 4
