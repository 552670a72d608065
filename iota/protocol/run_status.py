"""The public state of a run, as a reader takes it from an orchestrator: bounded, and of the right types.

A status has every field, a delta those that changed (`iota.protocol.status_delta`). Fields that are not known
are left out. Texts may hold any character: whoever shows them makes them printable.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes that of `typing` from Python 3.12 on

from iota.protocol.messages import MAX_ADDRESSES, MAX_WEIGHTS, Address, AuditKind, Hotkey, Outcome, Role
from iota.protocol.status_delta import Status, merged
from iota.settings.sentences import sentence
from iota.spec import Count, Fraction, Hex32, Positive, Small

MAX_LOSSES: Final = 10_000
"""Losses in one answer: 200 kB. Who has fewer asks for the rest by number."""
MAX_MEMBERS: Final = 1 << 16
"""Members of a run, those included that left it."""
_MAX_EPOCHS: Final = 1 << 20
_MAX_RECENT: Final = 1000
_MAX_DESCRIBED: Final = 300
_Text = Annotated[str, Field(max_length=65_536)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Stage = Annotated[int, Field(ge=-1, lt=2**31)]
"""Or an epoch; -1 is none."""
_Epoch = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_ByEpoch = Annotated[dict[_Epoch, _Finite], Field(max_length=_MAX_EPOCHS)]


class MalformedStatus(ValueError):
    """What came is no status of a run."""


class MemberStatus(TypedDict):
    """A member, as the orchestrator has it on record."""

    hotkey: Hotkey
    owner: Hotkey
    revoked: bool
    order: Count
    role: Role
    stage: _Stage
    live: bool
    stalled: bool
    base: _Stage
    tokens: Count
    receipts: Count
    seconds_per_microbatch: _Amount
    withdrawn: Count
    audits: dict[Outcome, Count]
    device: _Text
    addresses: Annotated[list[Address], Field(max_length=MAX_ADDRESSES)]


class ReportedStatus(TypedDict):
    """What a node says of itself."""

    state: _Text
    tokens_per_second: _Amount
    seconds: Annotated[dict[Annotated[str, Field(max_length=32)], _Amount], Field(max_length=32)]
    memory: Count


class VerdictStatus(TypedDict):
    """A verdict, and the validator that filed it."""

    validator: Hotkey
    kind: _Text
    epoch: Small
    miner: Hotkey
    audit: AuditKind
    outcome: Outcome
    seq: Count
    profile: _Text
    expected: _Text
    found: _Text
    reason: _Text


class AuditCounts(TypedDict):
    """Verdicts of the whole run, and the epochs whose audits are closed."""

    passed: Count
    failed: Count
    undelivered: Count
    inconclusive: Count
    closed_epochs: Count


class BaseStatus(TypedDict):
    """The newest stored base of a stage; `/v1/bases` has its parts."""

    epoch: Small
    stage: Small
    digest: Hex32


class RunStatus(TypedDict, total=False):
    """A status, or what changed of one."""

    run: Hex32
    name: _Text
    phase: Annotated[str, Field(max_length=32)]
    waiting: _Text | None
    epoch: Small
    merging: Small | None
    epochs: Positive
    step: Small
    steps: Positive
    open_microbatches: Count
    merges: Annotated[list[Count], Field(max_length=_MAX_EPOCHS)]
    heldout: _ByEpoch
    heldout_error: Annotated[dict[_Epoch, _Finite | None], Field(max_length=_MAX_EPOCHS)]
    heldout_tokens: Annotated[dict[_Epoch, Count], Field(max_length=_MAX_EPOCHS)]
    tokens: Count
    settled: Count
    dropped: Count
    rerouted: Count
    unfit: Count
    receipts: Count
    audits: AuditCounts
    verdicts: Annotated[list[VerdictStatus], Field(max_length=_MAX_RECENT)]
    weights: Annotated[
        dict[Hotkey, Annotated[dict[Hotkey, Fraction], Field(max_length=MAX_WEIGHTS)]],
        Field(max_length=MAX_WEIGHTS),
    ]
    validator_compute_share: Annotated[dict[Hotkey, _Amount], Field(max_length=MAX_WEIGHTS)]
    named: Annotated[list[_Text], Field(max_length=_MAX_RECENT)]
    internal_errors: Annotated[list[_Text], Field(max_length=_MAX_RECENT)]
    bases: Annotated[list[BaseStatus], Field(max_length=MAX_MEMBERS)]
    members: Annotated[list[MemberStatus], Field(max_length=MAX_MEMBERS, fail_fast=True)]
    nodes: Annotated[dict[Hotkey, ReportedStatus], Field(max_length=MAX_MEMBERS)]
    finished: bool
    block: Count
    losses_total: Count
    losses_from: Count
    losses: Annotated[list[_Finite], Field(max_length=MAX_LOSSES, fail_fast=True)]


_STATUS: Final = TypeAdapter(RunStatus)
_LOSSES: Final = ("losses_from", "losses_total", "losses")


def take_status(before: Status | None, body: bytes) -> Status:
    """`before` with the status or delta in `body`, which came from a network; a whole status in any case.

    Raises:
        MalformedStatus: what came is none; one sentence of bounded length.
    """
    try:
        changed: Status = dict(_STATUS.validate_json(body))
    except ValidationError as error:
        raise MalformedStatus(sentence(error)[:_MAX_DESCRIBED]) from None
    new = before is None or changed.get("run", before["run"]) != before["run"]
    needed = RunStatus.__annotations__.keys() if new else _LOSSES if "losses" in changed else ()
    if missing := [name for name in needed if name not in changed]:
        raise MalformedStatus(f"{missing[0]}: it is missing")
    found = merged(before, changed)
    if max(len(found["members"]), len(found["nodes"])) > MAX_MEMBERS:
        raise MalformedStatus(f"members: there are more than {MAX_MEMBERS}")
    return found
