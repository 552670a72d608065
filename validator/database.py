"""The validator's SQLite database, kept over restarts: verdicts, what scores need, and weight plans."""

from __future__ import annotations

import logging
import sqlite3
from itertools import count
from pathlib import Path
from typing import Final, Self

from iota.files import FileLock
from iota.protocol.messages import CHARGING, AuditKind, Outcome, Verdict
from validator.core.history import History
from validator.core.pool import Judgement
from validator.core.tasks import owes
from validator.score_records import SCHEMA as SCORE_SCHEMA
from validator.score_records import TASK, ScoreRecords, task_of
from validator.weights import records as weight_records
from validator.weights.records import WeightRecords

log = logging.getLogger(__name__)

DATABASE_NAME: Final = "validator.sqlite"
DATABASE_VERSION: Final = 5
"""The form of the tables; the file holds it as SQLite's `user_version`."""
_CHARGING: Final = f"({', '.join('?' * len(CHARGING))})"
_SCHEMA = """
create table if not exists about (name text primary key, value text not null);
create table if not exists verdicts (
    epoch integer, miner text, name text, audit text not null, seq integer not null,
    outcome text not null, json text not null, primary key (epoch, miner, name));
create table if not exists internal_errors (epoch integer, what text, primary key (epoch, what));
"""


class DatabaseInUse(ValueError):
    """The directory is in use by another process, or belongs to another run, hotkey or version."""


class Database:
    """`<folder>/validator.sqlite`, locked while it is open. Use it as a context manager.

    A damaged file is kept under another name, and an empty one takes its place.
    """

    def __init__(self, folder: Path, run: str, hotkey: str) -> None:
        """Open or create it. Raises DatabaseInUse."""
        folder.mkdir(parents=True, exist_ok=True)
        in_use = f"{folder} is in use by another validator: stop it, or give this one its own --data-dir"
        self._lock = FileLock(folder / "lock", lambda: DatabaseInUse(in_use))
        path = folder / DATABASE_NAME
        try:
            self._db = _opened(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # no room, no rights: not the content's fault
                self._lock.release()
                raise
            _set_aside(path, error)
            self._db = _opened(path)
        except DatabaseInUse:
            self._lock.release()
            raise
        self.weights, self.scores = WeightRecords(self._db), ScoreRecords(self._db)
        self._db.executemany("insert or ignore into about values (?, ?)", [("run", run), ("hotkey", hotkey)])
        if dict(self._db.execute("select name, value from about")) != {"run": run, "hotkey": hotkey}:
            self.close()
            raise DatabaseInUse(
                f"{folder} belongs to another run or hotkey: give this validator its own --data-dir"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release the lock."""
        self._db.close()
        self._lock.release()

    # ---- verdicts ------------------------------------------------------------------------------

    def keep(self, name: str, verdict: Verdict) -> Verdict:
        """Record a verdict under its task's name, and return the verdict that stands.

        The first one stands: a restarted validator repeats an audit, but must not contradict itself.
        """
        named = (verdict.epoch, verdict.miner, name)
        task = (verdict.audit.value, verdict.seq)
        self._db.execute(
            "insert or ignore into verdicts values (?, ?, ?, ?, ?, ?, ?)",
            (*named, *task, verdict.outcome.value, verdict.model_dump_json()),
        )
        (kept,) = self._db.execute(
            "select json from verdicts where epoch = ? and miner = ? and name = ?", named
        ).fetchone()
        return Verdict.model_validate_json(kept)

    def verdicts(self, epoch: int) -> list[Verdict]:
        """The verdicts of an epoch, in the order of recording."""
        return self._verdicts("epoch = ? order by rowid", epoch)

    def charging(self) -> list[Verdict]:
        """All verdicts that cost their miner something, by epoch."""
        return self._verdicts(f"outcome in {_CHARGING} order by epoch, rowid", *CHARGING)

    def judgements(self, own: str, first: int, last: int) -> list[Judgement]:
        """The verdicts of `own` on epochs `first` to `last`, and all that cost something."""
        rows = self._db.execute(
            f"select {TASK}, outcome, json_extract(json, '$.profile') from verdicts"
            f" where epoch between ? and ? or outcome in {_CHARGING}",
            (first, last, *CHARGING),
        )
        return [Judgement(own, task_of(row[:4]), Outcome(row[4]), row[5]) for row in rows]

    def keep_internal_error(self, epoch: int, what: str) -> None:
        """Record that an error of this program ended an audit; each audit counts once."""
        self._db.execute("insert or ignore into internal_errors values (?, ?)", (epoch, what))

    def internal_errors(self) -> int:
        """Number of audits of the whole run that ended by an error of this program."""
        (count,) = self._db.execute("select count(*) from internal_errors").fetchone()
        return int(count)

    def _verdicts(self, condition: str, *values: int | str) -> list[Verdict]:
        rows = self._db.execute(f"select json from verdicts where {condition}", values)
        return [Verdict.model_validate_json(text) for (text,) in rows]

    # ---- epochs --------------------------------------------------------------------------------

    def history(self, window: int) -> History:
        """Everything decided so far, for the core of a new membership.

        Args:
            window: epochs of the longest time in which one public draw depends on others.
        """
        newest = max(self.scores.epochs("block_hash is not null"), default=0)
        rows = self._db.execute("select epoch, miner, audit, outcome from verdicts")
        return History(
            audited=self.scores.epochs("done = 1"),
            filed=set(self._db.execute("select epoch, miner, name from verdicts")),
            owing={
                (e, miner) for e, miner, audit, outcome in rows if owes(AuditKind(audit), Outcome(outcome))
            },
            worked=self.scores.epochs("block_hash is not null"),
            drawable=self.scores.drawable(newest - window + 1, newest),
            pooled=self.scores.epochs("pooled = 1"),
        )


def _opened(path: Path) -> sqlite3.Connection:
    """The checked database, with its tables. The check reads the file once.

    Raises DatabaseInUse for another version, and sqlite3.DatabaseError for a damaged file.
    """
    db = sqlite3.connect(path, isolation_level=None)
    try:
        (version,) = db.execute("pragma user_version").fetchone()
        (tables,) = db.execute("select count(*) from sqlite_master").fetchone()
        if tables and version != DATABASE_VERSION:
            raise DatabaseInUse(
                f"{path} is of version {version}, and this release reads version {DATABASE_VERSION}: give an"
                " empty --data-dir, or start the release that wrote it"
            )
        (found,) = db.execute("pragma quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        db.executescript(
            f"pragma journal_mode=wal; pragma synchronous=full; pragma user_version={DATABASE_VERSION};"
            + _SCHEMA
            + SCORE_SCHEMA
            + weight_records.SCHEMA
        )
    except BaseException:
        db.close()
        raise
    return db


def _set_aside(path: Path, error: sqlite3.DatabaseError) -> None:
    """Give a damaged database and its log another name, and say what is lost."""
    aside = next(name for n in count(1) if not (name := path.with_name(f"{path.name}.damaged-{n}")).exists())
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    log.error(
        "%s is damaged (%s): it is kept as %s. Epochs whose audits are open are audited again; verdicts, work"
        " and held-out losses of closed ones are lost, so that scores rest on fewer epochs for a while",
        path,
        str(error)[:200],
        aside.name,
    )
