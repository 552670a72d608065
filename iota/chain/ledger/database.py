"""The ledger's rows in one SQLite file, without any rules: those are in `book`.

The file holds the seeds of the block hashes and of the ledger's own key, so its mode is 600. SQLite's
exclusive lock, held from opening to closing, keeps other processes out.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from iota.chain.chain import Endpoint, Neuron
from iota.chain.ledger.clock import genesis_hash
from iota.chain.ledger.parameters import LedgerParameters
from iota.console.classification import passing

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE checkpoints (number INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE neurons (
    uid INTEGER PRIMARY KEY, hotkey TEXT NOT NULL UNIQUE, coldkey TEXT NOT NULL, stake REAL NOT NULL,
    registered_at INTEGER NOT NULL, weights_block INTEGER, incentive REAL NOT NULL DEFAULT 0,
    dividends REAL NOT NULL DEFAULT 0, ip TEXT, port INTEGER);
CREATE TABLE weights (uid INTEGER PRIMARY KEY, block INTEGER NOT NULL, row TEXT NOT NULL);
CREATE TABLE hidden_weights (
    id INTEGER PRIMARY KEY, uid INTEGER NOT NULL, block INTEGER NOT NULL, reveal_block INTEGER NOT NULL,
    version_key INTEGER NOT NULL, row TEXT NOT NULL);
CREATE TABLE commitments (
    hotkey TEXT NOT NULL, block INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (hotkey, block))
    WITHOUT ROWID;
"""


class LedgerDatabase:
    """One open ledger file."""

    def __init__(self, path: Path, choices: Mapping[str, Any], now_s: float) -> None:
        """Open `path`, or create it with `choices` over the default parameters and genesis at `now_s`.

        Raises:
            ValueError: another process has it open, it is no ledger, or it was created with other choices.
            sqlite3.Error, OSError: the disk is full or fails.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        try:
            self.parameters = self._open(choices, now_s)
        except sqlite3.OperationalError as error:
            self._db.close()
            if error.sqlite_errorname != "SQLITE_BUSY" and passing(error):
                raise
            raise ValueError(
                f"cannot open the ledger {path} ({error}): is another process using it?"
            ) from None
        except sqlite3.DatabaseError:
            self._db.close()
            raise ValueError(f"{path} is not a ledger: name another file with --db") from None
        except ValueError:
            self._db.close()
            raise

    def _open(self, choices: Mapping[str, Any], now_s: float) -> LedgerParameters:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self.transaction():
            tables = {
                row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            if not tables:
                return self._create(LedgerParameters(**choices), now_s)
            if "meta" not in tables or self.get("schema") != _SCHEMA_VERSION:
                raise ValueError(f"{self._path} is no ledger of schema {_SCHEMA_VERSION}: name another file")
            stored = LedgerParameters(**json.loads(self.get("parameters")))
        different = {k: getattr(stored, k) for k, v in choices.items() if getattr(stored, k) != v}
        if different:
            raise ValueError(
                f"the ledger {self._path} was created with {different}: leave those settings out, "
                "or start a new ledger in another file"
            )
        return stored

    def _create(self, parameters: LedgerParameters, now_s: float) -> LedgerParameters:
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        hash_seed = secrets.token_bytes(32)
        for key, value in (
            ("schema", _SCHEMA_VERSION),
            ("parameters", json.dumps(asdict(parameters))),
            ("genesis_s", now_s),
            ("hash_seed", hash_seed),
            ("key_seed", secrets.token_bytes(32)),
            ("head", 0),
            ("epochs", 0),
            ("last_epoch_block", 0),
            ("nonce_fence", 0),
        ):
            self.put(key, value)
        self.add_checkpoint(0, genesis_hash(hash_seed))
        return parameters

    def close(self) -> None:
        """Close the file and release its lock."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction, on the disk when it ends; an exception rolls it back. Not to be nested."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself ends some, as for a full disk
                self._db.execute("ROLLBACK")
            raise

    def get(self, key: str) -> Any:
        """A value of `meta`."""
        return self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]

    def put(self, key: str, value: Any) -> None:
        """Set a value of `meta`."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def add_checkpoint(self, number: int, digest: bytes) -> None:
        """Store the hash of a block."""
        self._db.execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?)", (number, digest))

    def checkpoint_before(self, number: int) -> tuple[int, bytes]:
        """(number, hash) of the last stored block up to `number`."""
        row = self._db.execute(
            "SELECT number, hash FROM checkpoints WHERE number <= ? ORDER BY number DESC LIMIT 1", (number,)
        ).fetchone()
        return int(row[0]), bytes(row[1])

    def neurons(self) -> list[Neuron]:
        """All neurons, ordered by uid. Permits are not stored: `validator_permit` is False here."""
        rows = self._db.execute(
            "SELECT uid, hotkey, coldkey, stake, incentive, dividends,"
            " coalesce(weights_block, registered_at), registered_at, ip, port FROM neurons ORDER BY uid"
        )
        return [
            Neuron(
                uid, hotkey, coldkey, stake, False, incentive, dividends, updated, registered, _axon(*address)
            )
            for uid, hotkey, coldkey, stake, incentive, dividends, updated, registered, *address in rows
        ]

    def put_neuron(self, uid: int, hotkey: str, coldkey: str, stake: float, block: int) -> None:
        """Give `uid` to a hotkey, and remove all weights of and for its previous holder."""
        for table in ("neurons", "weights", "hidden_weights"):
            self._db.execute(f"DELETE FROM {table} WHERE uid = ?", (uid,))
        for table in ("weights", "hidden_weights"):
            for rowid, text in self._db.execute(f"SELECT rowid, row FROM {table}").fetchall():
                weights = _weights(text)
                if weights.pop(uid, None) is not None:
                    self._db.execute(
                        f"UPDATE {table} SET row = ? WHERE rowid = ?", (json.dumps(weights), rowid)
                    )
        self._db.execute(
            "INSERT INTO neurons (uid, hotkey, coldkey, stake, registered_at) VALUES (?, ?, ?, ?, ?)",
            (uid, hotkey, coldkey, stake, block),
        )

    def put_endpoint(self, uid: int, ip: str, port: int) -> None:
        """Record the address that a neuron claims."""
        self._db.execute("UPDATE neurons SET ip = ?, port = ? WHERE uid = ?", (ip, port, uid))

    def put_rewards(self, rewards: Mapping[int, tuple[float, float]]) -> None:
        """Store (incentive, dividends) by uid."""
        self._db.executemany(
            "UPDATE neurons SET incentive = ?, dividends = ? WHERE uid = ?",
            [(incentive, dividends, uid) for uid, (incentive, dividends) in rewards.items()],
        )

    def put_weights_block(self, uid: int, block: int) -> None:
        """Record the block in which a validator last set weights, hidden or not."""
        self._db.execute("UPDATE neurons SET weights_block = ? WHERE uid = ?", (block, uid))

    def put_weights(self, uid: int, block: int, weights: Mapping[int, int]) -> None:
        """Put a row of weights in force."""
        self._db.execute("INSERT OR REPLACE INTO weights VALUES (?, ?, ?)", (uid, block, json.dumps(weights)))

    def weights(self) -> dict[int, tuple[int, dict[int, int]]]:
        """(block, weights by uid) by validator uid, for those with weights in force."""
        rows = self._db.execute("SELECT uid, block, row FROM weights ORDER BY uid")
        return {uid: (block, _weights(row)) for uid, block, row in rows}

    def hide_weights(
        self, uid: int, block: int, reveal_block: int, version_key: int, weights: Mapping[int, int]
    ) -> None:
        """Store a row of weights until its reveal."""
        self._db.execute(
            "INSERT INTO hidden_weights (uid, block, reveal_block, version_key, row) VALUES (?, ?, ?, ?, ?)",
            (uid, block, reveal_block, version_key, json.dumps(weights)),
        )

    def take_due_weights(self, block: int) -> list[tuple[int, int, int, dict[int, int]]]:
        """Remove the weights to reveal in `block` or before, the oldest first.

        Returns (validator uid, block of setting, version key, weights by uid) of each.
        """
        rows = self._db.execute(
            "SELECT uid, block, version_key, row FROM hidden_weights WHERE reveal_block <= ? ORDER BY id",
            (block,),
        ).fetchall()
        self._db.execute("DELETE FROM hidden_weights WHERE reveal_block <= ?", (block,))
        return [(uid, made, key, _weights(text)) for uid, made, key, text in rows]

    def put_commitment(self, hotkey: str, block: int, data: bytes) -> None:
        """Record a commitment; earlier ones stay."""
        self._db.execute("INSERT INTO commitments VALUES (?, ?, ?)", (hotkey, block, data))

    def commitment(self, hotkey: str, at_block: int) -> tuple[int, bytes] | None:
        """(block, data) of the last commitment in block `at_block` or before."""
        row = self._db.execute(
            "SELECT block, data FROM commitments WHERE hotkey = ? AND block <= ? ORDER BY block DESC LIMIT 1",
            (hotkey, at_block),
        ).fetchone()
        return None if row is None else (int(row[0]), bytes(row[1]))


def _axon(ip: str | None, port: int | None) -> Endpoint | None:
    return None if ip is None or port is None else Endpoint(ip, port)


def _weights(text: str) -> dict[int, int]:
    return {int(uid): int(value) for uid, value in json.loads(text).items()}
