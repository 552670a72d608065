"""What scores are made of, in the validator's database: work, draws, and the public verdicts of others.

FLOPs are kept as decimal text: an epoch of a large stage has more than 2^63, the most that SQLite counts.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Final

from iota.protocol.messages import AuditKind, Outcome
from validator.core.pool import EpochFacts, Judgement, Pool, Task
from validator.core.scoring import MinerWork
from validator.core.segments import Drawable

SCHEMA: Final = """
create table if not exists work (
    epoch integer, hotkey text, flops text not null, ended integer not null, withdrawn integer not null,
    segments text not null, primary key (epoch, hotkey));
create table if not exists workers (hotkey text primary key, owner text not null);
create table if not exists epochs (
    epoch integer primary key, done integer not null default 0, block_hash text, pooled integer);
create table if not exists links (
    epoch integer, validator text, link text not null, primary key (epoch, validator));
create table if not exists pool (
    epoch integer, validator text, miner text, audit text, seq integer, outcome text not null,
    profile text not null, primary key (epoch, validator, miner, audit, seq));
"""
TASK: Final = "epoch, miner, audit, seq"
"""Columns of a task, here and in the table of own verdicts."""


def task_of(row: tuple[int, str, str, int]) -> Task:
    """The task of a row of `TASK`."""
    epoch, miner, audit, seq = row
    return Task(epoch, miner, AuditKind(audit), seq)


class ScoreRecords:
    """Records by epoch. A repeated record takes the place of an earlier one."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def keep_work(self, work: list[MinerWork]) -> None:
        """Record the work of miners."""
        rows = [(w.epoch, w.hotkey, str(w.flops), w.ended, w.withdrawn, json.dumps(w.segments)) for w in work]
        self._db.executemany("insert or replace into work values (?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany(
            "insert or replace into workers values (?, ?)", [(w.hotkey, w.owner) for w in work]
        )

    def keep_draw(self, epoch: int, block_hash: str) -> None:
        """Record the hash of the block that an epoch's audits are drawn from."""
        self._set(epoch, "block_hash", block_hash)

    def keep_pool(self, epoch: int, pool: Pool | None) -> None:
        """Record the verdicts of others; None where they were not to be had."""
        self._set(epoch, "pooled", int(pool is not None and pool.complete))
        if pool is None:
            return
        self._db.executemany(
            "insert or replace into links values (?, ?, ?)",
            [(epoch, v, link) for v, link in pool.links.items()],
        )
        self._db.executemany(
            "insert or replace into pool values (?, ?, ?, ?, ?, ?, ?)",
            [
                (epoch, j.validator, j.task.miner, j.task.audit, j.task.seq, j.outcome, j.profile)
                for j in pool.judgements
            ],
        )

    def finish(self, epoch: int) -> None:
        """Record that all own verdicts of the epoch are kept."""
        self._set(epoch, "done", 1)

    def _set(self, epoch: int, column: str, value: int | str) -> None:
        self._db.execute(
            f"insert into epochs (epoch, {column}) values (?, ?)"
            f" on conflict (epoch) do update set {column} = excluded.{column}",
            (epoch, value),
        )

    # ---- reading -------------------------------------------------------------------------------

    def epochs(self, condition: str) -> set[int]:
        """The epochs that fulfil a condition on the table's columns."""
        return {epoch for (epoch,) in self._db.execute(f"select epoch from epochs where {condition}")}

    def newest(self) -> int | None:
        """The newest epoch that scores are made of: its audits are closed, and others' verdicts asked for."""
        return max(self.epochs("pooled is not null"), default=None)

    def work(self, first: int, last: int) -> list[MinerWork]:
        """Work of epochs `first` to `last`, both included."""
        rows = self._db.execute(
            "select epoch, hotkey, owner, flops, ended, withdrawn, segments"
            " from work join workers using (hotkey) where epoch between ? and ? order by epoch, hotkey",
            (first, last),
        )
        return [
            MinerWork(epoch, hotkey, owner, int(flops), ended, withdrawn, tuple(json.loads(segments)))
            for epoch, hotkey, owner, flops, ended, withdrawn, segments in rows
        ]

    def owners(self) -> dict[str, str]:
        """The owner of each worker of the run."""
        return dict(self._db.execute("select hotkey, owner from workers"))

    def judgements(self, first: int, last: int) -> list[Judgement]:
        """The verdicts of others on epochs `first` to `last`."""
        rows = self._db.execute(
            f"select validator, outcome, profile, {TASK} from pool where epoch between ? and ?", (first, last)
        )
        return [Judgement(row[0], task_of(row[3:]), Outcome(row[1]), row[2]) for row in rows]

    def facts(self, first: int, last: int, own: str, link: Callable[[int], str]) -> dict[int, EpochFacts]:
        """What the draws of epochs `first` to `last` follow from. `link` gives the links of `own`."""
        segments: dict[int, dict[str, tuple[int, ...]]] = {}
        for work in self.work(first, last):
            segments.setdefault(work.epoch, {})[work.hotkey] = work.segments
        links: dict[int, dict[str, str]] = {}
        for epoch, validator, text in self._db.execute(
            "select epoch, validator, link from links where epoch between ? and ?", (first, last)
        ):
            links.setdefault(epoch, {})[validator] = text
        rows = self._db.execute(
            "select epoch, done, coalesce(block_hash, ''), coalesce(pooled, 0) from epochs"
            " where epoch between ? and ?",
            (first, last),
        )
        return {
            epoch: EpochFacts(
                block_hash=block_hash,
                links={**links.get(epoch, {}), **({own: link(epoch)} if done else {})},
                segments=segments.get(epoch, {}),
                present=bool(done),
                pooled=bool(pooled),
            )
            for epoch, done, block_hash, pooled in rows
        }

    def drawable(self, first: int, last: int) -> dict[int, Drawable]:
        """What the public draws of epochs `first` to `last` follow from, where their work is known."""
        rows = self._db.execute(
            "select epoch, block_hash, hotkey, json_array_length(segments)"
            " from epochs join work using (epoch) where epoch between ? and ?"
            " and block_hash is not null and segments != '[]'",
            (first, last),
        )
        found: dict[int, tuple[str, dict[str, int]]] = {}
        for epoch, block_hash, hotkey, count in rows:
            found.setdefault(epoch, (block_hash, {}))[1][hotkey] = count
        return {epoch: Drawable(block_hash, counts) for epoch, (block_hash, counts) in found.items()}
