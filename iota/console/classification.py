"""Tells which passing condition an error is."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from typing import Any, Final

from iota.console.conditions import Condition

_BY_TYPE: Final[Mapping[tuple[str, str], Condition | None]] = {
    ("iota.chain.errors", "BadInput"): None,
    ("iota.chain.errors", "Unavailable"): Condition.CHAIN_AWAY,
    ("iota.chain.errors", "RateLimited"): Condition.CHAIN_AWAY,
    ("iota.chain.errors", "Incompatible"): Condition.CHAIN_ODD,
    ("validator.chain", "NotCommitted"): Condition.CHAIN_REFUSES,
    ("iota.client.orchestrator", "UntrustedAnswer"): Condition.STRANGER,
    ("iota.client.orchestrator", "OtherRun"): Condition.OTHER_RUN,
    ("iota.client.run_objects", "ObjectDiffers"): Condition.DATA,
    ("iota.hub.asking", "HubAway"): Condition.HUB,
    ("iota.store.files", "RootInUse"): None,
    ("iota.store.store", "ObjectMissing"): Condition.DATA,
    ("iota.store.store", "StoreUnavailable"): Condition.STORE_AWAY,
    ("iota.store.store", "StoreFull"): Condition.STORE_FULL,
    ("iota.store.store", "StoreError"): Condition.STORE_REFUSES,
    ("iota.wire.transport", "Unreachable"): Condition.STORE_AWAY,
    ("iota.wire.transport", "TransportError"): Condition.STORE_REFUSES,
    ("iota.outer.partition", "PartError"): Condition.DATA,
    ("iota.data.manifest", "DataError"): Condition.DATA,
    ("torch", "OutOfMemoryError"): Condition.MEMORY,
    ("miner.op_records", "StateLost"): Condition.STATE_LOST,
}
"""By (module, name), the special before the general; None is a mistake of the user, which does not pass.

Only modules that are imported can have raised the error, and importing the others here would be slow.
"""
_STANDINGS: Final = {
    "not-registered": Condition.NOT_REGISTERED,
    "no-permit": Condition.NO_PERMIT,
    "not-listed": Condition.NOT_LISTED,
}
_PROBLEMS: Final = {
    "replayed": Condition.BUSY,  # of a busy machine, whose requests come late and twice
    "stale": Condition.CLOCK,
    "version-mismatch": Condition.VERSIONS,
    "wrong-receiver": Condition.STRANGER,
}
_BUSY: Final = (408, 429)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_SETTINGS: Final = (
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EINVAL, errno.EROFS, errno.EADDRINUSE, errno.EADDRNOTAVAIL,
)  # fmt: skip
"""Errors of a path, address or port that the operator gave: they do not pass."""
_NO_MEMORY: Final = (
    "can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip
"""Torch's allocators for the CPU, pinned memory and Apple's GPUs, and libraries of CUDA, raise a plain
RuntimeError with one of these in it."""
_SQLITE: Final = {5: Condition.MACHINE, 10: Condition.MACHINE, 13: Condition.DISK_FULL}
"""By primary result code: SQLITE_BUSY, SQLITE_IOERR, SQLITE_FULL. Importing sqlite3 for them takes time."""


def passing(error: BaseException) -> tuple[Condition, Exception] | None:
    """The condition that an error is, with the error that says so; None for a mistake or a bug.

    An ExceptionGroup is a condition if all its errors are; the first one is given.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [passing(inner) for inner in error.exceptions]
        return found[0] if all(found) else None
    if not isinstance(error, Exception):
        return None
    condition = _condition_of(error)
    return None if condition is None else (condition, error)


def _condition_of(error: Exception) -> Condition | None:
    name = type(error).__module__, type(error).__qualname__
    if name == ("iota.protocol.problems", "Problem"):
        return _of_problem(error)
    if _is(error, "iota.client.orchestrator", "OrchestratorUnreachable"):
        return Condition.CERTIFICATE if _caused_by(error, "ssl", "SSLError") else Condition.AWAY
    if _is(error, "orchestrator.journal.journal", "JournalUnavailable"):
        return (
            isinstance(error.__cause__, Exception) and _condition_of(error.__cause__)
        ) or Condition.MACHINE
    if _is(error, "sqlite3", "Error"):
        return _SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if type(error).__name__ == "SafetensorError":  # it has the system's error only as text
        return Condition.DISK_FULL if f"os error {errno.ENOSPC}" in str(error) else None
    for (module, kind), condition in _BY_TYPE.items():
        if _is(error, module, kind):
            return condition
    short = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    if short or isinstance(error, MemoryError):
        return Condition.MEMORY
    return _of_system(error) if isinstance(error, OSError) else None


def _of_problem(problem: Any) -> Condition | None:
    """The condition of a `Problem`; None where the same key can have no part in the run.

    That is after its end, in another role than before, with a certificate that is wrong or revoked, or where
    only the operator can change what is `final`.
    """
    kind, status = str(problem.type), int(problem.status)
    if kind in ("run-ended", "bad-certificate") or problem.extra.keys() & {"member_as", "final"}:
        return None
    if kind == "not-a-member":
        if problem.extra.get("standing") == "revoked":
            return None
        return _STANDINGS.get(str(problem.extra.get("standing")), Condition.NOT_REGISTERED)
    if status >= 500 or status in _BUSY:
        return Condition.BUSY
    # A 4xx that is no problem document is another server's.
    return Condition.STRANGER if kind == "internal" else _PROBLEMS.get(kind, Condition.REFUSED)


def _of_system(error: OSError) -> Condition | None:
    if error.errno in _FULL:
        return Condition.DISK_FULL
    return None if error.errno is None or error.errno in _SETTINGS else Condition.MACHINE


def _is(error: BaseException | None, module: str, name: str) -> bool:
    """Whether the error is of a type in a module that is imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)


def _caused_by(error: BaseException | None, module: str, name: str) -> bool:
    """Whether the error, or one that it was raised from, is of that type."""
    while error is not None:
        if _is(error, module, name):
            return True
        error = error.__cause__
    return False
