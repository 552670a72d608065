"""The hotkey that orchestrates a run, as this node's folder remembers it: who signed first must sign on."""

from __future__ import annotations

import logging
from pathlib import Path

from iota.files import write_whole
from iota.identity.signatures import is_address

log = logging.getLogger(__name__)
_MAX_BYTES = 64
"""Of a file: an ss58 address has 48 characters."""


class OtherSigner(Exception):
    """Another hotkey than the remembered one speaks for the run."""


class KnownOrchestrators:
    """A folder with a file for each run, which holds the address of its orchestrator's hotkey."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: set[tuple[str, str]] = set()

    def check(self, run: str, hotkey: str, *, given: bool) -> None:
        """Remember `hotkey`, which has signed for `run`, and log why it is trusted.

        `given` says that the operator named it, which replaces one that is remembered.

        Raises:
            OtherSigner: another one is remembered; the text says what to do.
            OSError: the file cannot be read or written.
        """
        file = self._folder / run
        known = self._read(file)
        if not given and known not in (None, hotkey):
            raise OtherSigner(
                f"run {run[:12]} is signed by {hotkey} and was by {known} before ({file}): if its owner says"
                f" that it changed, start this node with --orchestrator-hotkey {hotkey}"
            )
        if known != hotkey:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, hotkey.encode(), durable=True)
        if (run, hotkey) not in self._told:
            self._told.add((run, hotkey))
            log.info("run %s of orchestrator %s, %s", run[:12], hotkey, _why(known, given=given))

    def _read(self, file: Path) -> str | None:
        """The address in the file; None where there is none, or the file is damaged."""
        try:
            with file.open("rb") as opened:
                text = opened.read(_MAX_BYTES).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        if is_address(text):
            return text
        log.warning("%s is damaged: the orchestrator that answers now is remembered anew", file)
        return None


def _why(known: str | None, *, given: bool) -> str:
    if given:
        return "as --orchestrator-hotkey demands"
    if known is not None:
        return "as before"
    return "which is the first to sign for it here: --orchestrator-hotkey says beforehand who must"
