"""Files and folders appear whole or not at all, also when the writer is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iota.files import remove_unfinished, whole_file, whole_folder, write_whole

ROOT = Path(__file__).parents[2]
KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from iota.files import whole_file
with whole_file(Path(sys.argv[1])) as part:
    part.write_bytes(b"ne")
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Interrupted(Exception):
    """The writer fails in the middle."""


def kill_a_writer_of(path: Path) -> None:
    """Another process begins to write `path`, and is killed before it has finished."""
    done = subprocess.run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def fail_in_the_middle(part: Path) -> None:
    part.write_bytes(b"ne")
    raise Interrupted


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_written_over(tmp_path: Path) -> None:
    for data in (b"old", b"new"):
        write_whole(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert names(tmp_path) == ["file"]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    kill_a_writer_of(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_writer_that_is_killed_makes_no_new_file(tmp_path: Path) -> None:
    kill_a_writer_of(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    with pytest.raises(Interrupted), whole_file(tmp_path / "file") as part:
        fail_in_the_middle(part)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_disk_that_cannot_keep_the_content_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_whole(tmp_path / "file", b"new", durable=True)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def look(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        synced.append((path if path.is_dir() else path.read_bytes(), (tmp_path / "file").exists()))

    monkeypatch.setattr(os, "fsync", look)
    write_whole(tmp_path / "quick", b"quick")
    assert synced == []
    write_whole(tmp_path / "file", b"content", durable=True)
    assert synced == [(b"content", False), (tmp_path.resolve(), True)]


def test_a_durable_folder_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def look(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        what = "files" if path.is_file() else "parent" if path == tmp_path.resolve() else "folder"
        synced.append((what, (tmp_path / "made").exists()))

    monkeypatch.setattr(os, "fsync", look)
    with whole_folder(tmp_path / "made", durable=True) as part:
        for name in ("one", "two"):
            (part / name).write_bytes(b"content")
    assert synced == [("files", False), ("files", False), ("folder", False), ("parent", True)]


def test_a_file_that_may_not_be_replaced_stays(tmp_path: Path) -> None:
    write_whole(tmp_path / "key", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "key", b"second", replace=False)
    assert (tmp_path / "key").read_bytes() == b"first"
    assert names(tmp_path) == ["key"]


def test_a_secret_is_its_owners_alone_from_the_first_byte_on(tmp_path: Path) -> None:
    with whole_file(tmp_path / "secret", mode=0o600) as part:
        assert part.stat().st_mode & 0o777 == 0o600
        part.write_bytes(b"secret")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_writers_of_the_same_file_do_not_write_into_each_other(tmp_path: Path) -> None:
    with whole_file(tmp_path / "file") as first, whole_file(tmp_path / "file") as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert (tmp_path / "file").read_bytes() == b"first"  # the outer block ended last
    assert names(tmp_path) == ["file"]


def test_a_folder_has_its_name_only_when_it_is_filled(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "folder") as part:
        (part / "a").write_bytes(b"a")
        assert not (tmp_path / "folder").exists()
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["a"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), whole_folder(tmp_path / "folder") as part:
        fail_in_the_middle(part / "a")
    assert names(tmp_path) == []


def test_a_folder_takes_the_place_of_an_empty_one_and_of_no_other(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with whole_folder(tmp_path / "folder") as part:
        (part / "a").write_bytes(b"a")
    with pytest.raises(OSError, match="not empty"), whole_folder(tmp_path / "folder") as part:
        (part / "b").write_bytes(b"b")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["a"]


def test_what_killed_writers_left_is_removed_and_the_rest_stays(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    kill_a_writer_of(tmp_path / "file")
    (tmp_path / ".folder.0123.part").mkdir()
    (tmp_path / ".folder.0123.part" / "a").write_bytes(b"a")
    assert len(names(tmp_path)) == 3
    remove_unfinished(tmp_path)
    assert names(tmp_path) == ["file"]
