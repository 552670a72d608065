"""A run's folder: its lock, and the files that a resumed `iota up` reads.

lock  options.json  spec.json  manifest.json  run.json  summary.json  secret
wallets/  store/  nodes/NAME/  logs/NAME.log  journal.db  ledger.db  export/
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

from iota.files import FileLock, write_whole
from iota.settings.spec_file import read_spec
from iota.spec import RunSpec
from iota.swarm.options import SwarmOptions


class RunDir:
    """The folder `root` of a run; its context locks it for this process.

    Raises (on entry):
        ValueError: another process holds it, or it is a file or a folder with other content.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.store = self.root / "store"
        self.wallets = self.root / "wallets"
        self.logs = self.root / "logs"
        self.secret = self.root / "secret"
        self.journal = self.root / "journal.db"
        self.ledger = self.root / "ledger.db"
        self.spec_file = self.root / "spec.json"
        self.options_file = self.root / "options.json"
        self.manifest_file = self.root / "manifest.json"
        self.info_file = self.root / "run.json"
        self.summary_file = self.root / "summary.json"
        self.export = self.root / "export"
        self.fresh = False
        """True where the folder held no options on entry: the run is new."""
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"{self.root} is a file: give a folder with --run-dir")
        if self.root.is_dir() and any(self.root.iterdir()) and not (self.root / "lock").exists():
            raise ValueError(f"{self.root} holds something that is no run: give another --run-dir")
        self.root.mkdir(parents=True, exist_ok=True)
        lock = self.root / "lock"
        self._lock = FileLock(
            lock,
            lambda: ValueError(
                f"{self.root} is in use by process {lock.read_text().strip()}: stop that one, or give another"
                " --run-dir"
            ),
        )
        lock.write_text(f"{os.getpid()}\n")
        self.fresh = not self.options_file.exists()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None
        self._lock.release()

    def discard(self) -> None:
        """Remove the folder of a new run that did not start."""
        assert self.fresh
        shutil.rmtree(self.root)

    def node(self, name: str) -> Path:
        """The data directory of one node."""
        return self.root / "nodes" / name

    def log(self, name: str) -> Path:
        """The log file of one process."""
        return self.logs / f"{name}.log"

    # ---- content ---------------------------------------------------------------------------------

    def saved_options(self) -> SwarmOptions | None:
        """The options that the run was made with; None for a new run. Raises ValueError if damaged."""
        if not self.options_file.exists():
            return None
        try:
            return SwarmOptions.of(**json.loads(self.options_file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.options_file} is damaged: give another --run-dir") from error

    def refuse_lost_journal(self) -> None:
        """Raise ValueError if miners of this run have worked and its journal is not there."""
        if not self.journal.exists() and any(self.root.glob("nodes/*/receipts.jsonl")):
            raise ValueError(
                f"the run in {self.root} has lost its journal ({self.journal.name}) and cannot go on: put the"
                " file back, or give another --run-dir for a new run"
            )

    def saved_spec(self) -> RunSpec | None:
        """The run's spec; None for a run without one. Raises ValueError if damaged."""
        if not self.spec_file.exists():
            return None
        try:
            return read_spec(self.spec_file)
        except ValueError as error:
            raise ValueError(f"{self.spec_file} is damaged: give another --run-dir") from error

    def info(self) -> dict[str, Any]:
        """The content of `run.json` (see `note`); empty for a new run."""
        return read_info(self.root)

    def note(self, **values: Any) -> None:
        """Set `values` in `run.json`, for resumption and `iota status`."""
        write_json(self.info_file, {**self.info(), **values})


def is_held(root: Path) -> bool:
    """Whether an `iota up` holds the run in `root`; False where there is no lock that this user may open."""
    try:
        FileLock(root / "lock", BlockingIOError, create=False).release()
    except BlockingIOError:
        return True
    except (FileNotFoundError, PermissionError):
        return False
    return False


def no_run(root: Path) -> ValueError:
    """The error for a folder of which a command can read no run."""
    if (root / "options.json").exists() and not (root / "journal.db").exists():
        return ValueError(
            f"the run in {root} has not started yet, or has lost its journal (journal.db): wait, or put the"
            " file back"
        )
    return ValueError(f"there is no run in {root}: give the folder of an `iota up`")


def read_info(root: Path) -> dict[str, Any]:
    """The content of `run.json` in `root`; empty if there is none. Raises ValueError if it is damaged."""
    path = root / "run.json"
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: remove it, and `iota up` writes it anew") from error
    return found


def member_names(root: Path | None) -> dict[str, str]:
    """Name by hotkey of the processes of the run in `root`; empty without a folder."""
    hotkeys = {} if root is None else read_info(root).get("hotkeys", {})
    return {hotkey: name for name, hotkey in hotkeys.items()}


def write_json(path: Path, value: Any) -> None:
    """Write `value` as an indented JSON file, whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())
