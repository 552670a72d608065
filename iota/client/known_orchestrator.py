"""The hotkey of a node's orchestrator, as its data directory remembers it: who signed first must sign on."""

from __future__ import annotations

import logging
from pathlib import Path

from iota.files import write_whole
from iota.identity.signatures import is_address

log = logging.getLogger(__name__)
_MAX_BYTES = 64
"""Of a file: an ss58 address has 48 characters."""


class OtherSigner(Exception):
    """Another hotkey than the remembered one speaks for a run."""


class KnownOrchestrator:
    """A file with the address of the hotkey that this node trusts, for whatever run it orchestrates."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._told: set[tuple[str, str]] = set()

    def check(self, run: str, hotkey: str, *, given: bool) -> None:
        """Remember `hotkey`, which has signed for `run`, and log why it is trusted.

        `given` says that the operator named it, which replaces one that is remembered.

        Raises:
            OtherSigner: another one is remembered; the text says what to do.
            OSError: the file cannot be read or written.
        """
        known = self._read()
        if not given and known not in (None, hotkey):
            raise OtherSigner(
                f"run {run[:12]} is signed by {hotkey}, and this node knows {known} ({self._file}): if the"
                f" owner says that it is right, start this node with --orchestrator-hotkey {hotkey}"
            )
        if known != hotkey:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, hotkey.encode(), durable=True)
        if (run, hotkey) not in self._told:
            self._told.add((run, hotkey))
            log.info("run %s of orchestrator %s, %s", run[:12], hotkey, _why(known, given=given))

    def _read(self) -> str | None:
        """The address in the file; None where there is none, or the file is damaged."""
        try:
            with self._file.open("rb") as file:
                text = file.read(_MAX_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        if is_address(text):
            return text
        log.warning("%s is damaged: the orchestrator that answers now is remembered anew", self._file)
        return None


def _why(known: str | None, *, given: bool) -> str:
    if given:
        return "as --orchestrator-hotkey demands"
    if known is not None:
        return "as before"
    return "the first that signs here: --orchestrator-hotkey says beforehand who must"
