"""Certificates of workers, their revocations, and the file that a worker's key travels in."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from iota.console.redactor import Redactor
from iota.identity.certificates import certificate_fault, is_signed, revoke
from iota.identity.worker_file import Worker, load_worker, make_worker, refuse_other_run
from iota.protocol.workers import Certificate
from tests.support.workers import OWNER, RIVAL, certificate, key

RUN, OTHER_RUN = "ab" * 32, "cd" * 32
WORKER = key(1)


def test_a_certificate_binds_a_worker_to_its_owner_in_one_run() -> None:
    assert certificate_fault(certificate(RUN, WORKER), RUN, WORKER.ss58) is None


def test_a_certificate_of_another_run_is_refused_with_the_remedy() -> None:
    fault = certificate_fault(certificate(OTHER_RUN, WORKER), RUN, WORKER.ss58)
    assert fault is not None
    assert fault == (
        f"is of run {OTHER_RUN[:12]}, and this is run {RUN[:12]}: make one for this run with"
        " `iota-miner certify`"
    )


def test_a_certificate_for_another_key_is_refused() -> None:
    assert "is that of the key" in str(certificate_fault(certificate(RUN, key(2)), RUN, WORKER.ss58))


@pytest.mark.parametrize("field", ["run", "owner", "worker", "serial", "signature", "consent"])
def test_a_certificate_with_any_field_changed_is_refused(field: str) -> None:
    changed = {
        "run": OTHER_RUN,
        "owner": RIVAL.ss58,
        "worker": key(2).ss58,
        "serial": 2,
        "signature": "00" * 64,
        "consent": "00" * 64,
    }[field]
    forged = certificate(RUN, WORKER).model_copy(update={field: changed})
    # The reader asks for what the forged one names, so that the signatures alone speak against it.
    assert "is not signed by" in str(certificate_fault(forged, forged.run, forged.worker))


def test_an_owner_cannot_claim_a_key_that_did_not_consent() -> None:
    own = certificate(RUN, WORKER, RIVAL)
    claimed = certificate(RUN, WORKER).model_copy(update={"consent": own.consent})
    assert "is not signed by the worker" in str(certificate_fault(claimed, RUN, WORKER.ss58))
    turned = certificate(RUN, WORKER)
    turned = turned.model_copy(update={"signature": turned.consent, "consent": turned.signature})
    assert "as the owner" in str(certificate_fault(turned, RUN, WORKER.ss58))


def test_a_hotkey_cannot_be_its_own_worker_by_certificate() -> None:
    assert "needs no certificate" in str(certificate_fault(certificate(RUN, OWNER), RUN, OWNER.ss58))


@pytest.mark.parametrize("field", ["run", "owner", "worker"])
def test_a_revocation_with_any_field_changed_is_not_signed(field: str) -> None:
    true = revoke(OWNER, WORKER.ss58, RUN)
    assert is_signed(true)
    other = {"run": OTHER_RUN, "owner": RIVAL.ss58, "worker": key(2).ss58}[field]
    assert not is_signed(true.model_copy(update={field: other}))


def test_a_certificate_is_no_revocation_and_neither_is_taken_with_a_field_more() -> None:
    made = certificate(RUN, WORKER, serial=0)
    as_revocation = revoke(OWNER, WORKER.ss58, RUN).model_copy(update={"signature": made.signature})
    assert not is_signed(as_revocation)
    with pytest.raises(ValidationError):
        Certificate.model_validate({**made.model_dump(), "until": 1})


# ---- the file ----------------------------------------------------------------------------------


def made(folder: Path) -> tuple[Path, Worker]:
    path = folder / "worker.json"
    return path, make_worker(path, OWNER, RUN, 1)


def test_a_worker_file_holds_the_key_and_its_certificate_for_its_user_alone(tmp_path: Path) -> None:
    path, worker = made(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = load_worker(path)
    assert (found.key.ss58, found.certificate) == (worker.key.ss58, worker.certificate)
    assert found.certificate.owner == OWNER.ss58
    refuse_other_run(found.certificate, RUN)


def test_a_worker_file_is_never_overwritten(tmp_path: Path) -> None:
    path, worker = made(tmp_path)
    with pytest.raises(ValueError, match="never overwritten"):
        make_worker(path, OWNER, RUN, 2)
    assert load_worker(path).key.ss58 == worker.key.ss58


def test_a_worker_file_of_another_run_says_so_in_one_sentence(tmp_path: Path) -> None:
    _, worker = made(tmp_path)
    with pytest.raises(ValueError, match=f"cannot join: its certificate is of run {RUN[:12]}, and this is"):
        refuse_other_run(worker.certificate, OTHER_RUN)


def test_a_file_with_the_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    path, _ = made(tmp_path)
    document = json.loads(path.read_text())
    document["certificate"] = json.loads(certificate(RUN, key(2)).model_dump_json())
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="its certificate is that of the key"):
        load_worker(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 5000, None])
def test_what_is_no_worker_file_is_refused_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "worker.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"worker\.json .*`iota-miner certify` makes one"):
        load_worker(path)


def test_a_damaged_file_is_refused_without_its_key(tmp_path: Path) -> None:
    path, _ = made(tmp_path)
    seed = json.loads(path.read_text())["worker_seed"]
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(ValueError, match="is no worker file") as caught:
        load_worker(path)
    assert seed[2:] not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_worker_file_that_others_can_open_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, _ = made(tmp_path)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_worker(path)
    assert "chmod 600" in caplog.text


def test_neither_a_bug_report_nor_a_repr_has_the_key(tmp_path: Path) -> None:
    path, worker = made(tmp_path)
    seed = json.loads(path.read_text())["worker_seed"]
    assert seed[2:] not in Redactor()(path.read_text())
    assert seed[2:] not in repr(worker)
