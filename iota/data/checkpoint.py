"""Checkpoints of a preparation: a state file beside its shards, from which a killed process continues."""

from __future__ import annotations

import zipfile
from pathlib import Path

from pydantic import Field, ValidationError

from iota.data.heldout import HeldOut, Target
from iota.data.mixture import FeedState
from iota.data.shard_writer import WriterState
from iota.files import write_whole
from iota.spec import Count

STATE_NAME = "state.json"
OpenDocument = tuple[Count, str, Count]
"""Number of its source, its name, and the part that comes next."""


class State(WriterState):
    """A preparation between two groups of documents. Later groups are packed again after a restart."""

    feeds: tuple[FeedState, ...]
    group: Count
    """Groups of documents packed so far. It keys the shuffle of the next group."""
    open_document: OpenDocument | None
    """The document whose EOS is not written yet."""
    heldout_file: str = Field(pattern=r"^heldout-[0-9]+\.npz$")


def save_state(
    folder: Path,
    written: WriterState,
    heldout: HeldOut,
    *,
    feeds: tuple[FeedState, ...],
    group: int,
    open_document: OpenDocument | None,
) -> None:
    """Replace the state in `folder`. A process that is killed leaves the old state or the new one.

    Files are not fsynced. After a power cut the digests show which of them are damaged.
    """
    name = f"heldout-{group}.npz"
    heldout.save(folder / name)
    state = State(**dict(written), feeds=feeds, group=group, open_document=open_document, heldout_file=name)
    write_whole(folder / STATE_NAME, state.model_dump_json().encode())
    for old in folder.glob("heldout-*.npz"):
        if old.name != name:
            old.unlink()


def load_state(folder: Path) -> State | None:
    """The saved state, or None if there is none yet. Raises `ValueError` if it is damaged."""
    path = folder / STATE_NAME
    if not path.exists():
        return None
    try:
        return State.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: delete {folder} to start anew") from error


def load_heldout(folder: Path, state: State, target: Target) -> HeldOut:
    """The held-out documents as of `state`. Raises `ValueError` if their file is damaged."""
    path = folder / state.heldout_file
    try:
        return HeldOut.load(path, target)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: delete {folder} to start anew") from error
