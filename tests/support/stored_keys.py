"""A hotkey whose signatures are kept in a file: sr25519 signs differently each time, fixtures may not."""

from __future__ import annotations

import json
from pathlib import Path

from blake3 import blake3

from iota.identity.keys import Hotkey

FOLDER = Path(__file__).parents[1] / "fixtures"
_FILE = FOLDER / "signatures.json"
_stored: dict[str, str] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
_used: dict[str, str] = {}


class StoredKey(Hotkey):
    """Gives the stored signature of a message, and signs a message that has none."""

    __slots__ = ()

    def sign(self, message: bytes) -> bytes:
        name = blake3(self.ss58.encode() + b"\n" + message).hexdigest()
        _used[name] = _stored.get(name) or _used.get(name) or super().sign(message).hex()
        return bytes.fromhex(_used[name])


def save_signatures() -> None:
    """Keep the signatures that this process gave, and no others."""
    _FILE.write_text(json.dumps(_used, indent=1, sort_keys=True) + "\n")
