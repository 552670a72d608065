"""What a validator remembers over restarts: verdicts, work, epochs and weights, in one SQLite file."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from pathlib import Path
from typing import Self

from iota.protocol.messages import Outcome, Verdict
from validator.core.scoring import EpochWork, Score
from validator.weights import records as weight_records
from validator.weights.records import WeightRecords

_SCHEMA = """
create table if not exists about (name text primary key, value text not null);
create table if not exists verdicts (
    epoch integer, miner text, name text,
    outcome text not null, unproven integer not null, json text not null,
    primary key (epoch, miner, name));
create table if not exists work (
    epoch integer, hotkey text, flops integer not null, ended integer not null, withdrawn integer not null,
    primary key (epoch, hotkey));
create table if not exists epochs (epoch integer primary key, done integer not null, heldout real);
"""


class NotebookInUse(ValueError):
    """Another process, another run or another hotkey has this directory."""


class Notebook:
    """`<folder>/validator.sqlite`, locked while it is open. Use as a context manager."""

    def __init__(self, folder: Path, run: str, hotkey: str) -> None:
        """Raises NotebookInUse where another process has it open, or it is of another run or hotkey."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise NotebookInUse(
                f"{folder} is in use by another validator: stop it, or give this one its own --data-dir"
            ) from None
        self._db = sqlite3.connect(folder / "validator.sqlite", isolation_level=None)
        self._db.executescript(
            "pragma journal_mode=wal; pragma synchronous=full;" + _SCHEMA + weight_records.SCHEMA
        )
        self.weights = WeightRecords(self._db)
        self._db.executemany("insert or ignore into about values (?, ?)", [("run", run), ("hotkey", hotkey)])
        if dict(self._db.execute("select name, value from about")) != {"run": run, "hotkey": hotkey}:
            self.close()
            raise NotebookInUse(
                f"{folder} belongs to another run or hotkey: give this validator its own --data-dir"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

    # ---- verdicts ------------------------------------------------------------------------------

    def keep(self, name: str, verdict: Verdict, *, unproven: bool = False) -> Verdict:
        """Record a verdict; where there is one of this name already, that one stands and is returned."""
        row = (
            verdict.epoch,
            verdict.miner,
            name,
            verdict.outcome.value,
            unproven,
            verdict.model_dump_json(),
        )
        self._db.execute("insert or ignore into verdicts values (?, ?, ?, ?, ?, ?)", row)
        kept = self.verdict(verdict.epoch, verdict.miner, name)
        assert kept is not None
        return kept

    def verdict(self, epoch: int, miner: str, name: str) -> Verdict | None:
        found = self._db.execute(
            "select json from verdicts where epoch = ? and miner = ? and name = ?", (epoch, miner, name)
        ).fetchone()
        return Verdict.model_validate_json(found[0]) if found else None

    def verdicts(self, epoch: int) -> list[Verdict]:
        rows = self._db.execute("select json from verdicts where epoch = ? order by rowid", (epoch,))
        return [Verdict.model_validate_json(text) for (text,) in rows]

    def failed(self) -> dict[str, list[int]]:
        """Epochs with a failed verdict, by miner."""
        found: dict[str, list[int]] = {}
        rows = self._db.execute(
            "select distinct miner, epoch from verdicts where outcome = ? order by epoch",
            (Outcome.FAIL.value,),
        )
        for miner, epoch in rows:
            found.setdefault(miner, []).append(epoch)
        return found

    # ---- work ----------------------------------------------------------------------------------

    def keep_work(self, work: list[EpochWork]) -> None:
        rows = [(w.epoch, w.hotkey, w.flops, w.ended, w.withdrawn) for w in work]
        self._db.executemany("insert or replace into work values (?, ?, ?, ?, ?)", rows)

    def work(self, first: int, last: int) -> list[EpochWork]:
        """Work of epochs `first` to `last`; unproven where a verdict says so."""
        unproven = set(
            self._db.execute("select distinct epoch, miner from verdicts where unproven = 1").fetchall()
        )
        rows = self._db.execute(
            "select epoch, hotkey, flops, ended, withdrawn from work where epoch between ? and ?"
            " order by epoch, hotkey",
            (first, last),
        )
        return [
            EpochWork(epoch, hotkey, flops, ended, withdrawn, (epoch, hotkey) in unproven)
            for epoch, hotkey, flops, ended, withdrawn in rows
        ]

    # ---- epochs --------------------------------------------------------------------------------

    def finish(self, epoch: int) -> None:
        """All verdicts of the epoch are filed."""
        self._db.execute(
            "insert into epochs values (?, 1, null) on conflict (epoch) do update set done = 1", (epoch,)
        )

    def is_done(self, epoch: int) -> bool:
        row = self._db.execute("select done from epochs where epoch = ?", (epoch,)).fetchone()
        return bool(row and row[0])

    def last_done(self) -> int | None:
        """The newest epoch whose audits are finished."""
        row = self._db.execute("select max(epoch) from epochs where done = 1").fetchone()
        return None if row[0] is None else int(row[0])

    def keep_heldout(self, epoch: int, loss: float) -> None:
        """Held-out loss of the base of `epoch`."""
        self._db.execute(
            "insert into epochs values (?, 0, ?)"
            " on conflict (epoch) do update set heldout = excluded.heldout",
            (epoch, loss),
        )

    def heldout(self, epoch: int) -> float | None:
        row = self._db.execute("select heldout from epochs where epoch = ?", (epoch,)).fetchone()
        return row[0] if row else None

    def explain(self, epoch: int, scores: tuple[Score, ...], compute_share: float) -> Path:
        """Write `scores.json`: each miner's score with its reasons, and the last weights with their fate."""
        failed = self._db.execute(
            "select miner, json from verdicts where outcome = ? order by epoch", (Outcome.FAIL.value,)
        ).fetchall()
        document = {
            "epoch": epoch,
            "compute_share": compute_share,
            "miners": {
                score.hotkey: {
                    **score.as_dict(),
                    "failed": [json.loads(text) for miner, text in failed if miner == score.hotkey],
                }
                for score in scores
            },
            "weights": self.weights.shown(),
        }
        path = self._folder / "scores.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1) + "\n")
        os.replace(part, path)
        return path
