"""Every format with a version: its samples, how they are written and how they are read back."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, eq
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from iota.data.manifest import MANIFEST_VERSION, Manifest, manifest_id, parse_manifest
from iota.identity.http_auth import RESPONSE_VERSION, sign_response
from iota.outer.base import base_digest, base_parts, read_base
from iota.outer.nesterov import OuterState
from iota.protocol.events import Event
from iota.protocol.messages import PROTOCOL_VERSION, Report
from iota.protocol.receipts import RECEIPT_VERSION
from iota.spec import SPEC_VERSION, Frozen, RunSpec
from iota.wire.frame import FRAME_VERSION
from miner.receipt_file import RECEIPT_LOG_VERSION, parse_line, write_line
from orchestrator.coordinator import Entry
from orchestrator.journal.sqlite import JOURNAL_VERSION, SqliteJournal
from tests.support import sample_specs, samples
from validator.audits.verdicts import VERDICT_VERSION
from validator.bundles.form import BUNDLE_VERSION
from validator.database import DATABASE_NAME, DATABASE_VERSION, Database

Parts = Sequence[bytes]


@dataclass(frozen=True)
class Format:
    """One format. Its fixture is `tests/fixtures/<name>.json`."""

    name: str
    constant: str
    """Where its version stands."""
    version: int
    values: Mapping[str, Any]
    write: Callable[[Any], Parts]
    read: Callable[[Any, Parts], Any]
    """`read(sample, parts)`: the value that the parts hold; the sample says of which kind."""
    digest: Callable[[Any], str] | None = None
    """The digest that names a value."""
    same: Callable[[Any, Any], bool] = eq
    binary: bool = False


def _canonical(value: Frozen) -> Parts:
    return [value.canonical()]


def _same_kind(sample: Frozen, parts: Parts) -> Any:
    return type(sample).model_validate_json(parts[0])


def _any_of(kinds: Any) -> Callable[[Any, Parts], Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(kinds)
    return lambda sample, parts: adapter.validate_json(parts[0])


def _by_kind(values: Sequence[Any]) -> dict[str, Any]:
    return {value.kind.value: value for value in values}


def _read_manifest(sample: Manifest, parts: Parts) -> Manifest:
    return parse_manifest(parts[0], manifest_id(sample))


def _same_vectors(a: OuterState, b: OuterState) -> bool:
    return np.array_equal(a.weights, b.weights) and np.array_equal(a.momentum, b.momentum)


def _tables(spec: RunSpec) -> Parts:
    """The tables and indices of a new journal, in SQL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        SqliteJournal(path, spec, samples.SERVER.ss58).close()
        db = sqlite3.connect(path)
        made = [row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")]
        db.close()
    return [statement.encode() for statement in made]


def _validator_tables(spec: RunSpec) -> Parts:
    """The tables of a new validator database, in SQL."""
    with tempfile.TemporaryDirectory() as folder:
        Database(Path(folder), spec.id, samples.VALIDATOR.ss58).close()
        db = sqlite3.connect(Path(folder) / DATABASE_NAME)
        made = [row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")]
        db.close()
    return [statement.encode() for statement in made]


def _signed_answer(body: bytes) -> Parts:
    signature = sign_response(samples.SERVER, 1_753_000_000_000_000_001, 200, body, request_signature="ab")
    return [body, bytes.fromhex(signature)]


FORMATS = (
    Format(
        "spec", "SPEC_VERSION in iota/spec/run_spec.py", SPEC_VERSION,
        sample_specs.SPECS, _canonical, _same_kind, digest=attrgetter("id"),
    ),
    Format(
        "manifest", "MANIFEST_VERSION in iota/data/manifest.py", MANIFEST_VERSION,
        {"manifest": samples.MANIFEST}, _canonical, _read_manifest, digest=manifest_id,
    ),
    Format(
        "receipts", "RECEIPT_VERSION in iota/protocol/receipts.py", RECEIPT_VERSION,
        samples.RECEIPTS | {"batch": samples.BATCH}, _canonical, _same_kind, digest=Frozen.content_digest,
    ),
    Format(
        "frames", "FRAME_VERSION in iota/wire/frame.py", FRAME_VERSION,
        samples.FRAMES,
        lambda frame: [samples.frame_bytes(frame)],
        lambda sample, parts: samples.read_frame(parts[0], sample.header.dtype),
        binary=True,
    ),
    Format(
        "events", "PROTOCOL_VERSION in iota/protocol/messages.py", PROTOCOL_VERSION,
        _by_kind(samples.EVENTS), _canonical, _any_of(Event),
    ),
    Format(
        "reports", "PROTOCOL_VERSION in iota/protocol/messages.py", PROTOCOL_VERSION,
        _by_kind(samples.REPORTS), _canonical, _any_of(Report),
    ),
    Format(
        "messages", "PROTOCOL_VERSION in iota/protocol/messages.py", PROTOCOL_VERSION,
        samples.MESSAGES, _canonical, _same_kind,
    ),
    Format(
        "bases", "PROTOCOL_VERSION in iota/protocol/messages.py", PROTOCOL_VERSION,
        {"momentum": samples.sample_base()},
        lambda base: base_parts(sample_specs.tiny_spec(), base),
        lambda sample, parts: read_base(sample_specs.tiny_spec(), 0, parts),
        digest=lambda base: base_digest(sample_specs.tiny_spec(), base),
        same=_same_vectors,
        binary=True,
    ),
    Format(
        "verdicts", "VERDICT_VERSION in validator/audits/verdicts.py", VERDICT_VERSION,
        {"op": samples.VERDICT}, _canonical, _same_kind,
    ),
    Format(
        "bundles", "BUNDLE_VERSION in validator/bundles/form.py", BUNDLE_VERSION,
        {"manifest": samples.BUNDLE}, _canonical, _same_kind,
    ),
    Format(
        "journal", "JOURNAL_VERSION in orchestrator/journal/sqlite.py", JOURNAL_VERSION,
        _by_kind(samples.ENTRIES), _canonical, _any_of(Entry),
    ),
    Format(
        "journal_tables", "JOURNAL_VERSION in orchestrator/journal/sqlite.py", JOURNAL_VERSION,
        {"tables": sample_specs.tiny_spec()}, _tables, lambda sample, parts: sample,
    ),
    Format(
        "validator_tables", "DATABASE_VERSION in validator/database.py", DATABASE_VERSION,
        {"tables": sample_specs.tiny_spec()}, _validator_tables, lambda sample, parts: sample,
    ),
    Format(
        "receipt_log", "RECEIPT_LOG_VERSION in miner/receipt_file.py", RECEIPT_LOG_VERSION,
        samples.RECEIPT_LOG,
        lambda value: [write_line(value)],
        lambda sample, parts: parse_line(type(sample), parts[0])[0],
    ),
    Format(
        "responses", "RESPONSE_VERSION in iota/identity/http_auth.py", RESPONSE_VERSION,
        {"ok": b"{}"}, _signed_answer, lambda sample, parts: parts[0], binary=True,
    ),
)  # fmt: skip
