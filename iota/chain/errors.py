"""Errors of every chain backend."""

from __future__ import annotations


class ChainError(Exception):
    """Anything that a chain backend raises.

    `fate_unknown` says that a write may have left: look up whether it took effect before you repeat it.
    """

    def __init__(self, message: str, *, fate_unknown: bool = False) -> None:
        super().__init__(message)
        self.fate_unknown = fate_unknown


class Unavailable(ChainError):
    """No answer in time, or no usable one; may be repeated."""


class Rejected(ChainError):
    """The chain refuses this write; repeating it unchanged will not help."""


class RateLimited(Rejected):
    """Too soon after the last write of its kind; the message says how many blocks to wait."""


class NotRegistered(Rejected):
    """The hotkey has no uid on this subnet."""


class KeyUnavailable(ChainError):
    """A write without a key, or with a key that cannot be used."""


class Incompatible(ChainError):
    """We and the other side have drifted apart; the message names both versions."""


class BadInput(ChainError, ValueError):
    """The caller's mistake: no such subnet, a block that has not come, data that is too long."""
