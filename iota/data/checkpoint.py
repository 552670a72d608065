"""What a killed preparation needs to go on: a state file beside the shards it has written."""

from __future__ import annotations

import zipfile
from pathlib import Path

from pydantic import Field, ValidationError

from iota.data.heldout import HeldOut
from iota.data.manifest import Shard
from iota.data.shard_writer import Written
from iota.files import write_whole
from iota.spec import Count, Frozen

STATE_NAME = "state.json"


class State(Frozen):
    """A point between two blocks of documents. Everything after it is done again."""

    next_document: Count
    block: Count
    """Blocks of documents done."""
    tokens: Count
    """Tokens taken from the source, held out or not."""
    shards: tuple[Shard, ...]
    open_bytes: Count
    open_digest: str
    heldout_file: str = Field(pattern=r"^heldout-[0-9]+\.npz$")

    @property
    def written(self) -> Written:
        return Written(self.shards, self.open_bytes, self.open_digest)


def save_state(
    folder: Path, written: Written, heldout: HeldOut, *, next_document: int, block: int, tokens: int
) -> None:
    """Write the state, so that at every instant a whole one lies in `folder`.

    Nothing is fsynced: it outlives a killed process. What a power cut tears is noticed by digest.
    """
    name = f"heldout-{block}.npz"
    heldout.save(folder / name)
    state = State(
        next_document=next_document,
        block=block,
        tokens=tokens,
        shards=written.shards,
        open_bytes=written.open_bytes,
        open_digest=written.open_digest,
        heldout_file=name,
    )
    write_whole(folder / STATE_NAME, state.canonical())
    for old in folder.glob("heldout-*.npz"):
        if old.name != name:
            old.unlink()


def load_state(folder: Path) -> State | None:
    """The saved state, or None if the work has not begun. Raises `ValueError` if it is damaged."""
    path = folder / STATE_NAME
    if not path.exists():
        return None
    try:
        return State.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: delete {folder} to start anew") from error


def load_heldout(folder: Path, state: State, target: int) -> HeldOut:
    """The held-out documents chosen up to `state`. Raises `ValueError` if they are damaged."""
    path = folder / state.heldout_file
    try:
        return HeldOut.load(path, target)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: delete {folder} to start anew") from error
