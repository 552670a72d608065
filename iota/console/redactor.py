"""Removes every kind of secret from text that leaves this machine: known values, and what looks like one.

Removing too much costs a reader little; `iota.console.redaction` cleans single URLs in messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from iota.console.redaction import without_secrets

REMOVED: Final = "[removed]"
_MIN_KNOWN: Final = 6
"""Shorter values are no secrets, and would remove parts of words."""
_PATTERNS: Final = (
    # "name": "value" and name=value, where the name says that the value is secret.
    re.compile(
        r"""(["']?\b(?:[\w.-]*(?:secret|passw(?:or)?d|phrase|mnemonic|private_?key|api_?key|access_?key|token)"""
        r"""|[\w.-]+seed)(?:phrase|seed|key)?["']?\s*[:=]\s*)("[^"\n]*"|'[^'\n]*'|(?!\d+\b)[^\s,;}]+)""",
        re.IGNORECASE,
    ),
    re.compile(r"(\bauthorization\b['\"]?\s*[:=]\s*)([^\n]+)", re.IGNORECASE),
    re.compile(r"(\b(?:bearer|basic)\s+)([\w.+/=-]{8,})", re.IGNORECASE),
    # User and password in a URL of any scheme.
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^\s/@'\"]+)(?=@)", re.IGNORECASE),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)([^-]+)"),
    # Keys of cloud services and of the Hub.
    re.compile(r"()(\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\b(?:hf|ghp|gho|sk)_[A-Za-z0-9]{16,})"),
    # Seeds and private keys as hex, signatures.
    re.compile(r"()(\b0x[0-9a-fA-F]{64,}\b|\b[0-9a-fA-F]{128,}\b)"),
    # A mnemonic: 12 or more short lower-case words and nothing between them.
    re.compile(r"()\b((?:[a-z]{3,8} ){11,23}[a-z]{3,8})\b"),
)
_HTTP_PATH: Final = re.compile(r"(https?://[^\s'\"]+)", re.IGNORECASE)
_KEY_IN_PATH: Final = re.compile(r"(?<=/)(?![0-9a-f]{64}(?:/|$))(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}")
"""A part of a path that looks like an access key; ids of runs and digests are 64 hex digits."""


class Redactor:
    """Removes secrets from texts."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        """`known` are secret values, removed wherever they stand."""
        self._known = sorted({text for text in known if len(text) >= _MIN_KNOWN}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self._known:
            text = text.replace(secret, REMOVED)
        text = _HTTP_PATH.sub(lambda url: _KEY_IN_PATH.sub(REMOVED, url[1]), without_secrets(text))
        for pattern in _PATTERNS:
            text = pattern.sub(lambda found: found[1] + REMOVED, text)
        return text
