"""Errors of every chain backend."""

from __future__ import annotations


class ChainError(Exception):
    """Base of all errors of a chain backend.

    With `fate_unknown` a write may have reached the chain: look up whether it took effect before a retry.
    """

    def __init__(self, message: str, *, fate_unknown: bool = False) -> None:
        super().__init__(message)
        self.fate_unknown = fate_unknown


class Unavailable(ChainError):
    """No answer in time, or no usable one; the call may be repeated."""


class Rejected(ChainError):
    """The chain refuses this write, and would refuse it again."""


class RateLimited(Rejected):
    """Too soon after the last write of this kind; the message says how many blocks to wait."""


class NotRegistered(Rejected):
    """The hotkey has no uid on this subnet."""


class KeyUnavailable(ChainError):
    """A write on a connection without the key that signs it."""


class Incompatible(ChainError):
    """The versions of this program and the other side do not fit; the message names both."""


class BadInput(ChainError, ValueError):
    """A mistake of the caller: an unknown subnet, a future block, data that is too long."""
