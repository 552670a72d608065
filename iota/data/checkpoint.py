"""Checkpoints of a preparation: a state file beside its shards, from which a killed process continues."""

from __future__ import annotations

import zipfile
from pathlib import Path

from pydantic import Field, ValidationError

from iota.data.heldout import HeldOut
from iota.data.shard_writer import WriterState
from iota.files import write_whole
from iota.spec import Count

STATE_NAME = "state.json"


class State(WriterState):
    """A preparation between two blocks of documents. Later blocks are packed again after a restart."""

    next_document: Count
    block: Count
    """Blocks of documents packed so far. It keys the shuffle of the next block."""
    tokens: Count
    """Tokens read from the source, held out or not."""
    heldout_file: str = Field(pattern=r"^heldout-[0-9]+\.npz$")


def save_state(
    folder: Path, written: WriterState, heldout: HeldOut, *, next_document: int, block: int, tokens: int
) -> None:
    """Replace the state in `folder`. A process that is killed leaves the old state or the new one.

    Files are not fsynced. After a power cut the digests show which of them are damaged.
    """
    name = f"heldout-{block}.npz"
    heldout.save(folder / name)
    state = State(**dict(written), next_document=next_document, block=block, tokens=tokens, heldout_file=name)
    write_whole(folder / STATE_NAME, state.canonical())
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


def load_heldout(folder: Path, state: State, target: int) -> HeldOut:
    """The held-out documents as of `state`. Raises `ValueError` if their file is damaged."""
    path = folder / state.heldout_file
    try:
        return HeldOut.load(path, target)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: delete {folder} to start anew") from error
