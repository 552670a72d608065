"""Bytes of every format, held against stored ones: a form changes with its version or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from iota.identity.http_auth import verify_response
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.events import EventKind
from iota.protocol.messages import ReportKind
from iota.protocol.receipts import RECEIPTS_DOMAIN, OpKind, signed_payload
from orchestrator.coordinator.entries import EntryKind
from orchestrator.journal import Record, SqliteJournal
from tests.support import sample_specs, samples
from tests.support.fixtures import COMMAND, Unraised, changed, check, fixture_of, load, replace, stored_parts
from tests.support.formats import FORMATS, Format
from validator.audits.verdicts import verify_verdict

BY_NAME = {form.name: form for form in FORMATS}
each_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


@each_format
def test_todays_bytes_and_digests_are_those_that_are_stored(form: Format) -> None:
    check(form)


@each_format
def test_the_fixture_is_of_todays_version_and_holds_every_sample(form: Format) -> None:
    fixture = load(form)
    todays = (fixture["version"], fixture["values"].keys()) == (form.version, form.values.keys())
    assert todays, f"the fixture of {form.name} is an older one: run `{COMMAND}`"


@each_format
def test_the_stored_bytes_read_back_to_an_equal_value(form: Format) -> None:
    for name, stored in load(form)["values"].items():
        sample = form.values[name]
        found = form.read(sample, stored_parts(stored, form))
        assert form.same(found, sample), name


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("events", EventKind),
        ("reports", ReportKind),
        ("journal", EntryKind),
        ("receipts", set(OpKind) - {OpKind.MERGE} | {"batch"}),  # a merge is checked without a receipt
    ],
)
def test_there_is_a_sample_of_every_kind(name: str, kinds: Any) -> None:
    assert BY_NAME[name].values.keys() == {str(kind) for kind in kinds}


def test_a_journal_stores_these_bytes(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j", sample_specs.tiny_spec(), samples.SERVER.ss58)
    journal.append([Record(entry) for entry in samples.ENTRIES], 0)
    stored = [text for (text,) in journal._db.execute("SELECT json FROM entries ORDER BY seq")]
    assert stored == [load(BY_NAME["journal"])["values"][e.kind]["parts"][0] for e in samples.ENTRIES]
    assert tuple(journal.replay()) == samples.ENTRIES
    journal.close()


def test_the_stored_signatures_are_their_signers() -> None:
    batch, verdict = samples.BATCH, samples.VERDICT
    payload = signed_payload(samples.DIGEST, samples.MINER.ss58, batch.receipts[-1].content_digest())
    message = signing_bytes(RECEIPTS_DOMAIN, payload)
    assert verify(message, bytes.fromhex(batch.signature), samples.MINER.ss58)
    assert verify_verdict(samples.DIGEST, verdict, samples.VALIDATOR.ss58)
    body, signature = stored_parts(load(BY_NAME["responses"])["values"]["ok"], BY_NAME["responses"])
    nonce = 1_753_000_000_000_000_001
    assert verify_response(samples.SERVER.ss58, nonce, 200, body, signature.hex(), request_signature="ab")


# ---- the fixtures themselves ---------------------------------------------------------------------


@pytest.fixture
def form(tmp_path: Path) -> Format:
    """A format with a stored fixture in `tmp_path`."""
    made = Format("plain", "PLAIN_VERSION", 1, {"a": b"1"}, lambda v: [v], lambda _, parts: parts[0])
    replace(made, tmp_path)
    return made


def test_changed_bytes_of_one_version_are_refused_and_the_fixture_stays(form: Format, tmp_path: Path) -> None:
    other = dataclasses.replace(form, write=lambda v: [v + b" "])
    with pytest.raises(Unraised, match=r"other bytes of a\..*raise PLAIN_VERSION \(now 1\), then run"):
        replace(other, tmp_path)
    assert load(form, tmp_path) == fixture_of(form)


def test_a_sample_that_is_gone_is_a_change(form: Format, tmp_path: Path) -> None:
    assert changed(dataclasses.replace(form, values={}), load(form, tmp_path)) == ["a"]


def test_a_raised_version_replaces_the_fixture(form: Format, tmp_path: Path) -> None:
    other = dataclasses.replace(form, write=lambda v: [v + b" "], version=2)
    replace(other, tmp_path)
    assert load(form, tmp_path) == fixture_of(other)


def test_a_new_sample_needs_no_new_version(form: Format, tmp_path: Path) -> None:
    more = dataclasses.replace(form, values={"a": b"1", "b": b"2"})
    replace(more, tmp_path)
    assert load(form, tmp_path)["values"].keys() == {"a", "b"}
