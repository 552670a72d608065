"""Field types that messages share: addresses of keys, signatures."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Hotkey = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{46,48}$")]
"""An ss58 address; the pattern bounds it, and the signature check proves it."""
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
"""An sr25519 signature in hex."""
