"""Cuts long texts into parts, so that texts of any length are read in bounded memory.

The cut depends on the text alone. For the `bytes` tokenizer it changes no token; others see each part alone,
so parts begin where their words begin: after blank lines or line ends, else before a space.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from iota.data.file_formats import BUFFER_BYTES, encoding_hint
from iota.data.rows import UTF8

PART_CHARACTERS = 1 << 15
"""Most characters of a part, unless a source has its own number. It decides the data's bytes."""
_PLACES = tuple(re.compile(p) for p in (r"\n[ \t\r]*\n(?=\S)", r"\n(?=\S)", r"(?<=\S)(?=\s)"))
"""Where a text is cut: at the last such place in the second half of a part; without one, at its end."""


def parts(chunks: Iterable[str], most: int = PART_CHARACTERS) -> Iterator[tuple[str, bool]]:
    """The text that `chunks` add up to, as parts of at most `most` characters, each with whether it is the
    last. "" has none."""
    text, start = "", 0
    for chunk in chunks:
        text, start = text[start:] + chunk, 0
        while len(text) - start > most:
            end = _cut(text, start, most)
            yield text[start:end], False
            start = end
    if text:
        yield text[start:], True


def _cut(text: str, start: int, most: int) -> int:
    end = start + most
    for place in _PLACES:
        found = start
        for match in place.finditer(text, start + most // 2, end):
            found = match.end()
        if found > start:
            return found
    return end


def decoded_chunks(file: BinaryIO, encoding: str) -> Iterator[str]:
    """The text of `file`, decoded strictly; a UTF-8 byte order mark is left out.

    Raises:
        ValueError: if it has another encoding, or is no text. The position is in it.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    data = head = file.read(BUFFER_BYTES)
    position = 0
    if encoding == UTF8 and data.startswith(codecs.BOM_UTF8):
        data, position = data[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
    while True:
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = position - pending + error.start
            hint = f": {encoding_hint(head)}" if encoding == UTF8 else ""
            raise ValueError(f"is not {encoding} at byte {at} ({error.reason}){hint}") from error
        if "\0" in text:
            raise ValueError(f"is no text: there is a NUL in the bytes before {position + len(data)}")
        if text:
            yield text
        if not data:
            return
        position += len(data)
        data = file.read(BUFFER_BYTES)
