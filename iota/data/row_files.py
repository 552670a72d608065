"""Rows of JSON, CSV and parquet files.

pyarrow reads columns. JSON is read by Python's json, a line at a time, since it says where a line is broken.
The functions judge nothing: `RowRules` does. They give the rows from number `start` on.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from iota.data.file_formats import SNIFFED_BYTES, Readable
from iota.data.parquet_pages import largest_page
from iota.data.rows import (
    MAX_ROW_BYTES,
    UTF8,
    Broken,
    Missing,
    Row,
    RowRules,
    check_column,
    decoded,
    field_of,
)

COLUMN_ROWS = 256
"""Most rows of a column file that are in memory at once; fewer where they are long."""
COLUMN_BYTES = 64 << 20
"""Bytes that those rows should have at most, unless one of them has more."""
CSV_BLOCK_BYTES = 16 << 20
"""A row of CSV up to this size can be read."""
MAX_JSON_BYTES = 256 << 20
"""Bound of a .json file, which is read into memory whole."""
BYTES_PER_VALUE = 16
"""JSON may hold a value for each so many bytes of its bound: a Python object takes many times its text."""
ROWS_BEFORE_VERDICT = 1000
"""Rows after which JSON is refused if none of them has the field."""
_LIMIT = f"is longer than {MAX_ROW_BYTES >> 20} MiB, the most that is read as one row"
_JSON_LIMIT = f"is longer than {MAX_JSON_BYTES >> 20} MiB, the most that is read as one JSON file"


def json_line_rows(file: BinaryIO, rules: RowRules, start: int, offset: int) -> Iterator[Row]:
    """The rows of JSON lines; empty lines are none, but count as line numbers.

    Args:
        offset: the byte at which row `start` begins, or 0 if earlier rows have to be read over.
    """
    number = 0
    if offset:
        file.seek(offset)
        number = start
    for line, size in _lines(file, rules.encoding):
        begin, offset = offset, offset + size
        if number >= start and (isinstance(line, Broken) or line.strip()):
            yield Row(number, begin, offset, _json_value(line, rules.field, number == 0))
        number += 1


def json_rows(file: BinaryIO, rules: RowRules, start: int) -> Iterator[Row]:
    """The rows of a JSON file: the elements of its array, or its one object. It is read whole.

    Raises:
        ValueError: if it is not JSON, or too large.
    """
    data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{_JSON_LIMIT}: write it as JSON lines (.jsonl)")
    try:
        text = data.decode("utf-8-sig" if rules.encoding == UTF8 else rules.encoding)
        document = _loaded(text, MAX_JSON_BYTES)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
    for number, row in enumerate(document if isinstance(document, list) else [document]):
        if number >= start:
            yield Row(number, 0, len(data), field_of(row, rules.field))


def csv_rows(file: Readable, rules: RowRules, start: int, suffixes: Sequence[str]) -> Iterator[Row]:
    """The rows of a CSV file with a header; of a .tsv, tabs divide the columns. Broken rows come last."""
    import pyarrow
    from pyarrow import csv

    broken = 0

    def invalid(row: Any) -> str:
        nonlocal broken
        broken += 1
        return "skip" if rules.skip_bad else "error"

    delimiter = "\t" if ".tsv" in suffixes else ","
    reading = csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES, encoding=rules.encoding)
    # Other columns are not converted: they may hold anything. The head shows their names and types.
    head = csv.open_csv(
        io.BytesIO(file.peek(SNIFFED_BYTES)),
        reading,
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=lambda _: "skip"),
    )
    check_column(head.schema, rules.field)
    reader = csv.open_csv(
        file,
        reading,
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=invalid),
        csv.ConvertOptions(include_columns=[rules.field], column_types={rules.field: pyarrow.binary()}),
    )
    number = 0
    for batch in reader:
        for value in batch.column(0):
            if number >= start:
                yield Row(number, 0, 0, value.as_py())
            number += 1
    for lost in range(broken):
        if number + lost >= start:
            yield Row(number + lost, 0, 0, Broken("has more or fewer columns than the header"))


def parquet_rows(path: Path, rules: RowRules, start: int) -> Iterator[Row]:
    """The rows of a parquet file. Earlier row groups are not read."""
    import pyarrow.compute
    import pyarrow.parquet

    size, number = path.stat().st_size, 0
    # Without a bounded buffer the whole column of a row group is read at once.
    with (
        pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file,
        path.open("rb", buffering=0) as raw,
    ):
        check_column(file.schema_arrow, rules.field)
        whole = rules.field in file.schema_arrow.names
        outer, *inner = [rules.field] if whole else rules.field.split(".")
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            if number + metadata.num_rows <= start:
                number += metadata.num_rows
                continue
            # No value is longer than the largest page: neither a dictionary's, nor one with a shared prefix.
            longest = largest_page(raw, metadata, rules.field)
            at_once = min(COLUMN_ROWS, max(1, COLUMN_BYTES // max(1, longest)))
            for batch in file.iter_batches(at_once, row_groups=[group], columns=[rules.field]):
                column = batch.column(outer)
                if inner:
                    column = pyarrow.compute.struct_field(column, inner)
                if pyarrow.types.is_string(column.type):
                    # A string column may hold bytes that are no UTF-8, which a row's rules decide about.
                    column = column.cast(pyarrow.binary())
                for value in column:
                    if number >= start:
                        held: Any = value.as_py()
                        if held is not None and len(held) > MAX_ROW_BYTES:
                            held = Broken(_LIMIT)
                        yield Row(number, 0, size * (number + 1) // file.metadata.num_rows, held)
                    number += 1


def with_field(rows: Iterator[Row], rules: RowRules) -> Iterator[Row]:
    """`rows`, unless none of the first many has the field.

    Raises:
        ValueError: it names the fields that hold text.
    """
    missing = 0
    found = False
    for row in rows:
        if isinstance(row.value, Missing) and not found:
            missing += 1
            fields = row.value.fields
            if missing == ROWS_BEFORE_VERDICT:
                raise _no_field(rules, fields)
        else:
            found = found or not (row.value is None or isinstance(row.value, Broken))
        yield row
    if missing and not found:
        raise _no_field(rules, fields)


def _no_field(rules: RowRules, fields: tuple[str, ...]) -> ValueError:
    remedy = f"give --text-field {fields[0]}" if fields else "and none that holds text"
    return ValueError(
        f"has no row with a field {rules.field!r}: {remedy} (they have {', '.join(fields) or 'none'})"
    )


def _json_value(line: str | bytes | Broken, field: str, first: bool) -> object:
    if isinstance(line, bytes):
        line = decoded(line.removeprefix(codecs.BOM_UTF8) if first else line)
    if isinstance(line, Broken):
        return line
    try:
        return field_of(_loaded(line, MAX_ROW_BYTES), field)
    except (ValueError, RecursionError) as error:
        return Broken(f"is not JSON: {error}")


def _loaded(text: str, bound: int) -> object:
    """The value of JSON. Raises ValueError for none, and for too many values in a text of up to `bound`."""
    most = bound // BYTES_PER_VALUE
    if len(text) > most and sum(map(text.count, ",[{")) > most:
        raise ValueError(f"it may have more than {most} values")
    return json.loads(text)


def _lines(file: BinaryIO, encoding: str) -> Iterator[tuple[str | bytes | Broken, int]]:
    """Lines with their sizes in bytes (0 in another encoding than UTF-8). Too long ones are `Broken`."""
    if encoding == UTF8:
        while line := file.readline(MAX_ROW_BYTES):
            size = len(line)
            if size < MAX_ROW_BYTES:
                yield line, size
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_ROW_BYTES)
                size += len(line)
            yield Broken(_LIMIT), size
        return
    text = io.TextIOWrapper(file, encoding, newline="\n")
    while read := text.readline(MAX_ROW_BYTES):
        if len(read) == MAX_ROW_BYTES:
            raise ValueError(_LIMIT)
        yield read, 0
    text.detach()
