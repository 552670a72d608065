"""The signed verdicts of one epoch, as bytes.

A verdict is 450 bytes of JSON. Packed it is about 100, most of which is its signature: at 3,000 miners, 16
validators and 4 verdicts on each miner 20 MB an epoch, so 180 MB for a window of 8 epochs and the open one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from iota.protocol.messages import Verdict
from iota.protocol.verdicts import PAGE, FiledVerdict


@dataclass(slots=True)
class VerdictLog:
    """Verdicts with their authors, in the order of filing; whole pages are compressed."""

    count: int = 0
    _packs: tuple[bytes, ...] = ()
    _fresh: bytearray = field(default_factory=bytearray)
    """The newest, up to a page: JSON lines."""

    def append(self, validator: str, verdict: Verdict) -> None:
        """Add a verdict."""
        self._fresh += FiledVerdict(validator=validator, verdict=verdict).model_dump_json().encode() + b"\n"
        self.count += 1
        if self.count % PAGE == 0:
            self._packs, self._fresh = (*self._packs, zlib.compress(self._fresh)), bytearray()

    def page(self, number: int) -> list[bytes]:
        """The verdicts of page `number`, from 0, each as JSON. Empty after the last page."""
        if number < len(self._packs):
            return zlib.decompress(self._packs[number]).splitlines()
        return bytes(self._fresh).splitlines() if number == len(self._packs) else []


@dataclass(frozen=True, slots=True)
class PublicVerdicts:
    """What `GET /v1/epochs/{e}/verdicts` answers from."""

    epoch: int
    closed: bool
    links: dict[str, str]
    """validator -> its revealed link."""
    log: VerdictLog
