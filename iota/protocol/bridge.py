"""The Bridge's messages: variables that a run's members share, what writes them, and what readers get. Pure.

A name is a path. A variable's `version` is the number of the write that set its value last, and those numbers
only grow: one that was deleted and made again has another version. docs/bridge.md has the rules.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal, Self, cast

from pydantic import Field, JsonValue, field_validator, model_validator

from iota.protocol.fields import Hotkey
from iota.spec import Count, Frozen, Positive, canonical_json

MAX_NAME: Final = 200
"""Characters of a name."""
MAX_DEPTH: Final = 8
"""Parts of a name."""
MAX_VALUE_BYTES: Final = 4096
"""Of a value's canonical JSON."""
MAX_NESTED: Final = 16
"""Lists and objects inside one another in a value."""
MAX_OPS: Final = 32
"""Operations of one write."""
MAX_PAGE: Final = 256
"""Variables or changes in one answer."""
MIN_TTL_S: Final = 1.0
MAX_TTL_S: Final = 366 * 86_400.0
MAX_LEASE_S: Final = 86_400.0
MAX_WAIT_S: Final = 60.0
"""Longest wait of a watch that a request may ask for; a server may wait less."""
KNOWN_S: Final = 900.0
"""How long a write is known when it comes again; it is tried no longer than two thirds of that."""
RUN: Final = "run"
"""In the place of an owner's hotkey: the run's operator made the variable, or the run itself."""
PAUSED: Final = "run/paused"
"""Whether the run plans no further steps; set by the operator."""
LR_FACTOR: Final = "run/lr-factor"
"""Factor on the spec's learning rate for the steps that are planned from now on; set by the operator."""
MIN_LR_FACTOR: Final = 1e-3
"""With less, fp32 weights may stay as they are: a STEP would look like one that was not made."""
MAX_LR_FACTOR: Final = 1.0
"""The spec's rate is the largest, so that every bound that follows from it holds (`iota.outer.bounds`)."""
BEST_HELDOUT: Final = "run/best-heldout"
"""The lowest held-out loss of a base so far; the run sets it."""

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
Name = Annotated[str, Field(max_length=MAX_NAME, pattern=rf"^{_PART}(/{_PART}){{0,{MAX_DEPTH - 1}}}$")]
"""Parts of letters, digits, `_`, `.` and `-`, with `/` between them."""
Prefix = Annotated[str, Field(max_length=MAX_NAME, pattern=rf"^({_PART}(/{_PART}){{0,{MAX_DEPTH - 1}}})?$")]
"""The first parts of names, whole: `run` is a prefix of `run` and `run/paused`. Empty: of all."""
RequestId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""128 random bits: a write that comes again is known by it."""
Ttl = Annotated[float, Field(ge=MIN_TTL_S, le=MAX_TTL_S)]
LeaseTime = Annotated[float, Field(ge=MIN_TTL_S, le=MAX_LEASE_S)]


class ValueKind(StrEnum):
    """The type of a variable's value, which stays the same as long as the variable is there."""

    INT = "int"
    FLOAT = "float"
    STR = "str"
    BOOL = "bool"
    JSON = "json"

    @classmethod
    def of(cls, value: JsonValue) -> ValueKind:
        """The type that a new variable gets where the write names none; 1.0 is an integer, as JSON has it."""
        return next(kind for kind in (cls.BOOL, cls.INT, cls.FLOAT, cls.STR, cls.JSON) if kind.fits(value))

    def fits(self, value: JsonValue) -> bool:
        """Whether a value is of this type; an integer is a float too."""
        match self:
            case ValueKind.INT:
                return ValueKind.FLOAT.fits(value) and value == int(cast("float", value))
            case ValueKind.FLOAT:
                return isinstance(value, int | float) and not isinstance(value, bool)
            case ValueKind.STR:
                return isinstance(value, str)
            case ValueKind.BOOL:
                return isinstance(value, bool)
            case ValueKind.JSON:
                return True


class WriteRule(StrEnum):
    """Which writes a variable takes from those who may write it."""

    LWW = "lww"
    """Any: the last one wins."""
    CAS = "cas"
    """Those that name the version that they saw."""
    LOCK = "lock"
    """Those of the lease's holder."""


class _OnName(Frozen):
    name: Name


class Set(_OnName):
    """Give a variable a value, or make it; it then lives for `ttl_s`, or until it is deleted."""

    op: Literal["set"] = "set"
    value: JsonValue
    kind: ValueKind | None = None
    """None: that of the variable; of a new one `ValueKind.of` the value."""
    rule: WriteRule | None = None
    """None: that of the variable; of a new one `lww`."""
    expected: Count | None = None
    """The version that the variable must have; 0: it must not be there."""
    lease: Count | None = None
    """The number of the writer's lease."""
    ttl_s: Ttl | None = None

    @field_validator("value")
    @classmethod
    def _bounded(cls, value: JsonValue) -> JsonValue:
        value_text(value)
        return value


class Delete(_OnName):
    """Delete a variable; it must be there."""

    op: Literal["delete"] = "delete"
    expected: Positive | None = None
    lease: Count | None = None


class Check(_OnName):
    """Change nothing, and let the write fail unless the variable has this version; 0: it is not there."""

    op: Literal["check"] = "check"
    expected: Count


class Lock(_OnName):
    """Take the lease of a variable with rule `lock`, which is made (as null) where there is none.

    The lease's number is the revision of this write.
    """

    op: Literal["lock"] = "lock"
    lease_s: LeaseTime


class Renew(_OnName):
    """Let the writer's lease run for `lease_s` from now; its number stays."""

    op: Literal["renew"] = "renew"
    lease: Positive
    lease_s: LeaseTime


class Unlock(_OnName):
    """Give the writer's lease back."""

    op: Literal["unlock"] = "unlock"
    lease: Positive


Op = Annotated[Set | Delete | Check | Lock | Renew | Unlock, Field(discriminator="op")]


class WriteRequest(Frozen):
    """POST /v1/bridge/write: operations on different variables that happen together, or not at all."""

    request: RequestId
    """A repeated request is answered as the first one, and changes nothing again."""
    ops: tuple[Op, ...] = Field(min_length=1, max_length=MAX_OPS)

    @model_validator(mode="after")
    def _different(self) -> Self:
        if len({each.name for each in self.ops}) < len(self.ops):
            raise ValueError("two operations are on one variable: a write has one for each")
        if all(isinstance(each, Check) for each in self.ops):
            raise ValueError("the write only checks: it must change something")
        return self


class WriteReply(Frozen):
    """The write is stored. What it set has this number as its version, what it locked as its lease."""

    revision: Positive


class LeaseView(Frozen):
    """Who may write a variable with rule `lock`."""

    holder: Hotkey
    number: Positive
    """Of a later lease it is higher: whoever checks it refuses what an earlier holder still sends."""
    until: float
    """Unix seconds of the server's clock."""


class VariableView(Frozen):
    """A variable as readers get it."""

    name: Name
    kind: ValueKind
    rule: WriteRule
    value: JsonValue
    version: Positive
    owner: Hotkey | Literal["run"]
    """Who made it."""
    expires: float | None
    """Unix seconds of the server's clock; None: never."""
    lease: LeaseView | None


class ChangeKind(StrEnum):
    """What happened to a variable."""

    SET = "set"
    """It has a new value, or another lease or time to live."""
    DELETED = "deleted"
    EXPIRED = "expired"


class ChangeView(Frozen):
    """One change, or in a snapshot one variable."""

    revision: Positive
    kind: ChangeKind
    name: Name
    variable: VariableView | None
    """As it was then; None where it is gone."""


class GetRequest(_OnName):
    """POST /v1/bridge/get."""


class GetReply(Frozen):
    """A variable at a revision; None where there is none."""

    revision: Count
    variable: VariableView | None


class ListRequest(Frozen):
    """POST /v1/bridge/list: a page of the variables under a prefix that the caller may read, by name."""

    prefix: Prefix = ""
    after: Prefix = ""
    """The last name of the page before."""


class ListReply(Frozen):
    """A page of variables."""

    revision: Count
    """Of this page: who lists several may watch from the first one's."""
    variables: tuple[VariableView, ...] = Field(max_length=MAX_PAGE)
    more: bool
    """Whether there are further pages."""


class WatchRequest(Frozen):
    """POST /v1/bridge/watch: the changes under a prefix after a revision."""

    prefix: Prefix = ""
    revision: Count | None = None
    """None: begin with a snapshot."""
    wait_s: float = Field(0.0, ge=0, le=MAX_WAIT_S)
    """How long the answer may wait for the first change."""


class WatchReply(Frozen):
    """Changes in order, or a snapshot.

    The changes are all that the caller may read with revisions above the asked one, up to `revision`.
    """

    revision: Count
    """To watch from next."""
    snapshot: bool
    """The changes since the asked revision are not kept any more, or none was asked: these are the variables
    as they are, the first page of them."""
    more: bool
    """Of a snapshot: further variables are listed after the last one. Else: further changes are there."""
    changes: tuple[ChangeView, ...]

    def with_page(self, page: ListReply) -> Self:
        """A snapshot with its next page. What changed meanwhile comes again after its revision."""
        listed = (
            ChangeView(revision=v.version, kind=ChangeKind.SET, name=v.name, variable=v)
            for v in page.variables
        )
        more = page.more and bool(page.variables)
        return self.model_copy(update={"more": more, "changes": (*self.changes, *listed)})


def value_text(value: JsonValue) -> str:
    """The canonical JSON of a value. Raises ValueError where it is larger or deeper than a value may be."""
    if _depth(value) > MAX_NESTED:
        raise ValueError(f"the value has more than {MAX_NESTED} lists and objects inside one another")
    text = canonical_json(value)
    if len(text) > MAX_VALUE_BYTES:
        raise ValueError(f"the value has {len(text)} bytes as JSON, and may have {MAX_VALUE_BYTES}")
    return text.decode()


def _depth(value: JsonValue) -> int:
    """Lists and objects inside one another, counted no further than one beyond what is allowed."""
    level: list[JsonValue] = [value]
    for depth in range(MAX_NESTED + 1):
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in [None, *(each.values() if isinstance(each, dict) else each)]
        ]
        if not level:
            return depth
    return MAX_NESTED + 1


def is_under(name: str, prefix: str) -> bool:
    """Whether a name begins with the parts of a prefix."""
    return not prefix or name == prefix or name.startswith(prefix + "/")
