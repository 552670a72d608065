"""The file of a worker: its private key and its certificate, as JSON with mode 600.

It stands in for a wallet on the machine that works: the owner's hotkey need not be there.
"""

from __future__ import annotations

import logging
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from iota.console.command_flags import command_line
from iota.files import write_whole
from iota.identity.certificates import certificate_fault, certify
from iota.identity.keys import Hotkey
from iota.protocol.workers import Certificate
from iota.spec import Frozen

_MAX_BYTES: Final = 4096
"""A file has about 700."""
_log = logging.getLogger(__name__)


class _WorkerFile(Frozen):
    version: Literal[1] = 1
    worker_seed: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$", repr=False)]
    """The private key. Name and form are such that `iota bugreport` removes it."""
    certificate: Certificate


class WorkerFileError(ValueError):
    """A worker file cannot be written, read or used; the message says what to do, after its last colon."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's key, and the certificate that names its owner."""

    key: Hotkey
    certificate: Certificate


def make_worker(path: Path, owner: Hotkey, run: str, serial: int) -> Worker:
    """Make a key, have `owner` certify it for `run`, and write both to `path`, durably and with mode 600.

    Raises WorkerFileError for a path that exists, since keys are never overwritten, or cannot be written.
    """
    seed = secrets.token_bytes(32)
    worker = Worker(key := Hotkey.from_seed(seed), certify(owner, key, run, serial))
    text = _WorkerFile(worker_seed=f"0x{seed.hex()}", certificate=worker.certificate).model_dump_json()
    try:
        write_whole(path, text.encode() + b"\n", durable=True, mode=0o600, replace=False)
    except FileExistsError:
        raise WorkerFileError(
            f"{path} exists already, and keys are never overwritten: give another --out"
        ) from None
    except OSError as error:
        raise WorkerFileError(
            f"the worker file {path} cannot be written ({error.strerror}): give another --out"
        ) from None
    return worker


def load_worker(path: Path) -> Worker:
    """Read a worker file and check its certificate, but for the run, which `refuse_other_run` checks.

    Raises WorkerFileError for a file that is missing, unreadable, damaged, or without a certificate of its
    key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        mode = path.stat().st_mode
    except OSError as error:
        raise WorkerFileError(
            f"the worker file {path} cannot be read ({error.strerror}): `iota-miner certify` makes one"
        ) from None
    try:
        document = _WorkerFile.model_validate_json(data)
    except ValidationError:
        # Without the cause, which may quote the key.
        raise WorkerFileError(f"{path} is no worker file: `iota-miner certify` makes one") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning(
            "the worker file %s can be opened by others: run `%s`", path, command_line("chmod 600", path)
        )
    key, certificate = Hotkey.from_seed(bytes.fromhex(document.worker_seed[2:])), document.certificate
    if fault := certificate_fault(certificate, certificate.run, key.ss58):
        raise WorkerFileError(
            f"{path} cannot be used, its certificate {fault}: make another with `iota-miner certify`"
        )
    return Worker(key, certificate)


def refuse_other_run(certificate: Certificate, run: str) -> None:
    """Raise WorkerFileError where the certificate is not of this run."""
    if fault := certificate_fault(certificate, run, certificate.worker):
        raise WorkerFileError(
            f"the worker {certificate.worker} of {certificate.owner} cannot join: its certificate {fault}"
        )
