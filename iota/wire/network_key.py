"""The network key of a miner: 32 random bytes in its data directory, which identify its iroh endpoint.

It is derived from nothing, so that nobody can compute it from what is public. Its public half is certified by
standing in the member's contact, which the hotkey signs.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from iota.files import write_whole

FILE_NAME: Final = "network_key"

_FORM: Final = re.compile(r"[0-9a-f]{64}\n?")


def load_or_create(folder: Path) -> bytes:
    """The key in `folder`, which exists; made where there is none (mode 600). 64 hexadecimal digits on disk.

    Raises:
        ValueError: the file holds no key; the message says what to do.
        OSError: it cannot be read or written.
    """
    path = folder / FILE_NAME
    if not path.exists():
        with suppress(FileExistsError):
            write_whole(path, f"{secrets.token_hex(32)}\n".encode(), durable=True, mode=0o600, replace=False)
    with path.open("rb") as file:
        text = file.read(80).decode("ascii", "replace")
    if not _FORM.fullmatch(text):
        raise ValueError(
            f"{path} holds no network key (64 hexadecimal digits): remove it, and a new one is made"
            " (peers then learn it from this miner's next contact)"
        )
    return bytes.fromhex(text)
