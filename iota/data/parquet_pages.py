"""Sizes of a parquet file's pages, which pyarrow decompresses one at a time and whole.

They stand in the header before each page, in Thrift's compact protocol. The file's metadata has only the sum
of a column's pages, which may be large where all pages are small.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Final

MAX_PAGE_BYTES: Final = 512 << 20
"""Largest page that is read. Writers aim at 1 MiB, but some count rows: a thousand books are 400 MB."""
_HEADER_BYTES: Final = 1 << 16
_MAX_HEADER_BYTES: Final = 16 << 20
"""As in pyarrow: a header may hold the least and the largest value of its page."""
_MAX_DEPTH: Final = 8
_MAX_SHIFT: Final = 63
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS: Final = (4, 5, 6)


def largest_page(file: BinaryIO, group: Any, field: str) -> int:
    """Bytes of the largest page, decompressed, of the columns in `field`; 0 where there are none.

    Args:
        group: metadata of a row group (`pyarrow.parquet.RowGroupMetaData`).

    Raises:
        ValueError: a page is larger than `MAX_PAGE_BYTES`, or its header is damaged.
    """
    columns = [group.column(number) for number in range(group.num_columns)]
    return max(
        (_largest(file, c) for c in columns if f"{c.path_in_schema}.".startswith(f"{field}.")), default=0
    )


def _largest(file: BinaryIO, column: Any) -> int:
    at: int = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
        at = column.dictionary_page_offset
    end: int = at + column.total_compressed_size
    largest = 0
    while at < end:
        header, size, stored = _page(file, at)
        if size > MAX_PAGE_BYTES:
            raise ValueError(
                f"has a page of {size >> 20} MiB, and at most {MAX_PAGE_BYTES >> 20} MiB are read: write it"
                " with smaller pages"
            )
        largest = max(largest, size)
        at += header + stored
    return largest


def _page(file: BinaryIO, at: int) -> tuple[int, int, int]:
    """(bytes of the header, of the page decompressed, of the page in the file) of the page at byte `at`."""
    length = _HEADER_BYTES
    while length <= _MAX_HEADER_BYTES:
        file.seek(at)
        reader = _Compact(file.read(length))
        try:
            numbers = reader.struct()
            size, stored = numbers[2], numbers[3]
        except (IndexError, KeyError):
            length *= 16  # it may be longer
            continue
        if size < 0 or stored < 0:
            break
        return reader.at, size, stored
    raise ValueError(f"is damaged: there is no page at byte {at}")


class _Compact:
    """Reads integers of a struct, and steps over all else. Raises IndexError beyond the data's end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """The integer fields of the struct by number; `at` is behind it then."""
        found: dict[int, int] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            if kind in _INTEGERS:
                found[number] = self._zigzag()
            elif kind not in (_TRUE, _FALSE):  # whose value is the kind
                self._skip(kind, depth + 1)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError("is damaged: the header of a page is nested too deeply")
        if kind in _INTEGERS:
            self._varint()
        elif kind in (_TRUE, _FALSE, _BYTE):
            self._step(1)
        elif kind == _DOUBLE:
            self._step(8)
        elif kind == _BINARY:
            self._step(self._varint())
        elif kind in (_LIST, _SET):
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                self._skip(head & 15, depth + 1)
        elif kind == _STRUCT:
            self.struct(depth)
        else:  # no header of a page has a map
            raise ValueError(f"is damaged: the header of a page has a value of kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _step(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 128:
            found |= (byte & 127) << shift
            shift += 7
            if shift > _MAX_SHIFT:
                raise ValueError("is damaged: the header of a page has an endless number")
        return found | byte << shift

    def _zigzag(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
