"""What the orchestrator puts its signature to: plans, closes of steps, seals, and stored receipts."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.protocol.events import Acknowledgement, EpochClose, Event, Plan, StepClose
from iota.protocol.plans import PLAN_DOMAIN, signed_root
from iota.protocol.receipts import counted_digest
from iota.protocol.seals import (
    ACKNOWLEDGEMENT_DOMAIN,
    SEAL_DOMAIN,
    STEP_DOMAIN,
    signed_acknowledgement,
    signed_close,
    signed_seal,
)

_MAX_KEPT: Final = 64
"""Signatures of plans and seals that are kept: all members get the same one."""


class Statements:
    """Signs the statements of one orchestrator about one run. A signature takes some 30 µs."""

    def __init__(self, run: str, hotkey: Hotkey) -> None:
        self._run, self._hotkey = run, hotkey
        self._kept: LRUCache[bytes, str] = LRUCache(_MAX_KEPT)

    def of(self, hotkey: str, event: Event) -> str | None:
        """The signature (hex) of an event to `hotkey`; None for one that is not signed."""
        match event:
            case Plan(share=share, proof=proof):
                return self._same_for_all(PLAN_DOMAIN, signed_root(self._run, share.epoch, share.step, proof))
            case EpochClose():
                return self.seal(event)
            case StepClose():
                counted = counted_digest(event.counted)
                return self._sign(
                    STEP_DOMAIN,
                    signed_close(self._run, hotkey, event.epoch, event.step, counted, event.learning_rate),
                )
            case _:
                return None

    def seal(self, seal: EpochClose) -> str:
        """The signature (hex) of a seal."""
        return self._same_for_all(SEAL_DOMAIN, signed_seal(self._run, seal))

    def acknowledge(self, hotkey: str, receipts: int, head: str, sealed: int) -> Acknowledgement:
        """The signed word that so many receipts of `hotkey` are stored, while so many epochs are sealed."""
        payload = signed_acknowledgement(self._run, hotkey, receipts, head, sealed)
        signature = self._sign(ACKNOWLEDGEMENT_DOMAIN, payload)
        return Acknowledgement(receipts=receipts, head=head, sealed=sealed, signature=signature)

    def _same_for_all(self, domain: str, payload: bytes) -> str:
        if payload not in self._kept:
            self._kept[payload] = self._sign(domain, payload)
        return self._kept[payload]

    def _sign(self, domain: str, payload: bytes) -> str:
        return self._hotkey.sign(signing_bytes(domain, payload)).hex()
