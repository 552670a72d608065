"""Echoes of the orchestrator, by which a node measures its line: round trip, down and up."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from iota.spec import Frozen

MAX_ECHO: Final = 1 << 20
"""Bytes of filler in one direction."""
Filler = Annotated[str, Field(max_length=MAX_ECHO, pattern=r"^[0]*$")]
"""Zeros: neither side compresses."""


class EchoRequest(Frozen):
    """POST /v1/echo: `filler` goes up, and `answer` zeros come down."""

    answer: Annotated[int, Field(ge=0, le=MAX_ECHO)] = 0
    filler: Filler = ""


class EchoReply(Frozen):
    """The address that the request came from, as the orchestrator sees it, and the filler."""

    address: Annotated[str, Field(max_length=100)]
    """An IP address without a port. Behind a reverse proxy it is the proxy's."""
    filler: Filler
