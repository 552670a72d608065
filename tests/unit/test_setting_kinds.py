"""Sizes in bytes are read and shown as people write them."""

from __future__ import annotations

import pytest

from iota.settings.kinds import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 << 30),
        ("1.5 gb", 1_500_000_000),
        ("2 ki", 2048),
        ("1TiB", 1 << 40),
        ("1TB", 10**12),
        ("4096", 4096),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_what_is_no_text_is_left_to_the_check() -> None:
    assert parse_bytes(4096) == 4096


@pytest.mark.parametrize("text", ["plenty", "-1", "4 GiBs", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 500MB, 4GiB"):
        parse_bytes(text)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 3 << 20, 4 << 30, (4 << 30) + 1, 1 << 40, 5 << 50])
def test_a_size_that_is_shown_reads_as_itself(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == size


def test_a_size_is_shown_in_the_largest_unit_that_divides_it() -> None:
    assert [format_bytes(n) for n in (4 << 30, 1536, 1500)] == ["4GiB", "1536", "1500"]
