"""Lines of a miner's receipt file, each with its digest, and their verification.

    BLAKE3 (hex) of the text | space | text (canonical JSON) | newline

The first line is a `LogHeader`, every other one a receipt. A receipt names the digest of the one before it,
so a file is intact if every line has its digest and follows from the last. One pass in constant memory
verifies it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final, Literal, TypeVar

from blake3 import blake3
from pydantic import ValidationError

from iota.protocol.messages import Hotkey
from iota.protocol.receipts import Receipt
from iota.spec import Count, Frozen, Hex32

RECEIPT_LOG_VERSION: Final = 5
"""Version of the file's form, in its first line."""
MAX_LINE: Final = 64 << 10
"""Bytes; a receipt with two input headers has about 6 KiB."""

_Model = TypeVar("_Model", bound=Frozen)


class LogDamaged(Exception):
    """A line of the file is not what was written."""


class LogHeader(Frozen):
    """The first line: whose receipts these are, and the receipt that the chain continues from."""

    version: Literal[5] = RECEIPT_LOG_VERSION
    run: Hex32
    hotkey: Hotkey
    count: Count
    """Number of the receipt before the first one in the file; 0 for none."""
    head: Hex32
    """Its digest."""


def write_line(value: LogHeader | Receipt) -> bytes:
    """The value as a line, with its newline."""
    text = value.canonical()
    return b"%s %s\n" % (blake3(text).hexdigest().encode(), text)


def parse_line(kind: type[_Model], line: bytes) -> tuple[_Model, str]:
    """The value of a line, and its digest. Raises LogDamaged, also for another version of the form."""
    written, _, text = line.removesuffix(b"\n").partition(b" ")
    digest = blake3(text).hexdigest()
    if digest.encode() != written:
        raise LogDamaged("a line does not have the digest that was written with it")
    try:
        return kind.model_validate_json(text), digest
    except ValidationError as error:
        raise LogDamaged(f"a line is no {kind.__name__} of this version") from error


def read_header(file: BinaryIO) -> LogHeader:
    """The first line of a file that was just opened. Raises LogDamaged."""
    return parse_line(LogHeader, file.readline(MAX_LINE))[0]


def read_receipts(file: BinaryIO, header: LogHeader) -> Iterator[tuple[Receipt, str]]:
    """The receipts after the header with their digests, verified one by one, in constant memory.

    A last line without its newline is left out: a crash cut its writing short, so that nothing was sent that
    rests on it. Raises LogDamaged at the first line that is not what was written.
    """
    count, head = header.count, header.head
    while (line := file.readline(MAX_LINE)).endswith(b"\n"):
        receipt, digest = parse_line(Receipt, line)
        if (receipt.seq, receipt.previous) != (count + 1, head):
            raise LogDamaged(f"receipt {receipt.seq} does not follow from receipt {count}")
        count, head = receipt.seq, digest
        yield receipt, digest
    if len(line) == MAX_LINE:
        raise LogDamaged(f"a line has more than {MAX_LINE} bytes")
