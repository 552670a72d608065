"""How an S3 service wants to be used: what it lacks has another way. `iota.store.s3_probe` finds out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_EXPIRY_S: Final = 7 * 24 * 3600
"""SigV4's bound on the life of a URL."""


class CreateOnce(StrEnum):
    """What keeps an object from being overwritten."""

    CONDITION = "condition"
    """`If-None-Match: *`, which is signed into the URL of a PUT."""
    COPY = "copy"
    """A URL leads to a key of its own, below `.incoming/`; who has credentials copies from there, once."""


class Deletes(StrEnum):
    """How many objects are deleted."""

    BATCH = "batch delete"
    BATCH_MD5 = "batch delete with MD5"
    ONE_BY_ONE = "one by one"


class Parts(StrEnum):
    """How an object that is stored in parts is kept from overwriting another when it is completed."""

    CONDITION = "condition"
    """`If-None-Match: *` at its completion, after a look."""
    LOOK = "look"
    """A look alone: who has credentials completes, and nobody else can write to such a key by then."""
    NONE = "none"
    """No object is stored in parts."""


@dataclass(frozen=True)
class S3Modes:
    """The way that one service is used. The defaults are those of AWS."""

    create_once: CreateOnce = CreateOnce.CONDITION
    deletes: Deletes = Deletes.BATCH
    max_expiry_s: int = MAX_EXPIRY_S
    """Longest life of a URL that the service takes, in seconds."""
    parts: Parts = Parts.CONDITION


AWS: Final = S3Modes()
