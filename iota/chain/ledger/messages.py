"""Requests and answers of the ledger's HTTP interface, as strict JSON."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from iota.chain.chain import Block, EpochStatus, Subnet, TxResult, WeightsRow
from iota.protocol.messages import Role

LEDGER_VERSION: Final = "ledger/1"
MAX_BODY_BYTES: Final = 256 * 1024
"""Well above the largest request: weights for 4096 uids."""
MAX_WAIT_S: Final = 20.0
"""Longest that the ledger holds a request that waits for an epoch."""
Uid = Annotated[int, Field(ge=0, le=65535)]


class Message(BaseModel):
    """Base of the requests: a strict, frozen JSON object without unknown fields."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class RegisterRequest(Message):
    """Body of `POST /v1/register`."""

    netuid: Uid
    role: Role


class ServeRequest(Message):
    """Body of `POST /v1/serve`."""

    netuid: Uid
    ip: Annotated[str, Field(max_length=45)]
    port: Annotated[int, Field(ge=0, le=65535)]


class CommitRequest(Message):
    """Body of `POST /v1/commit`."""

    netuid: Uid
    data: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){0,1024}$")]
    """Hex."""


class WeightsRequest(Message):
    """Body of `POST /v1/weights`."""

    netuid: Uid
    weights: Annotated[dict[Annotated[int, Field(strict=False, ge=0, le=65535)], Uid], Field(max_length=4096)]
    version_key: Annotated[int, Field(ge=0, lt=2**63)]


class CommitmentAnswer(Message):
    """Answer to `GET /v1/subnets/N/commitments/HOTKEY`."""

    found: bool
    block: int = 0
    data: str = ""
    """Hex."""


class LedgerInfo(Message):
    """Answer to `GET /v1/info`, a client's first request: version, key and clock of the ledger."""

    version: str
    hotkey: str
    """The ledger's own key, to which every write is addressed."""
    genesis: str
    block_time_s: float
    netuid: int


BLOCK: Final = TypeAdapter(Block)
SUBNET: Final = TypeAdapter(Subnet)
EPOCH: Final = TypeAdapter(EpochStatus)
WEIGHTS: Final = TypeAdapter(tuple[WeightsRow, ...])
RESULT: Final = TypeAdapter(TxResult)
