"""The network key on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from iota.wire.network_key import FILE_NAME, load_or_create


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = load_or_create(tmp_path)
    assert len(key) == 32
    assert load_or_create(tmp_path) == key
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_two_miners_have_different_keys(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    assert load_or_create(folders[0]) != load_or_create(folders[1])


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"ab" * 33, b"zz" * 32, b"\xff" * 64, bytes(1 << 20)])
def test_a_malformed_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=f"{FILE_NAME} holds no network key.*remove it"):
        load_or_create(tmp_path)
