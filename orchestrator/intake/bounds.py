"""Parses request bodies within bounds: lists that are too long are refused before any model is built."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from iota.protocol.contacts import MAX_CONTACTS
from iota.protocol.messages import MAX_FRAMES, MAX_PARTS, MAX_REPLICAS, MAX_REPORTS, MAX_WEIGHTS
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import MAX_RECEIPTS

_MAX_CONTAINERS: Final = 65_536
"""Most objects and lists in one body; the largest valid exchange has fewer than half as many."""
_MAX_LENGTHS: Final = {
    "frames": MAX_FRAMES,
    "left_out": MAX_REPLICAS,
    "parts": MAX_PARTS,
    "receipts": MAX_RECEIPTS,
    "reports": MAX_REPORTS,
    "wanted": MAX_CONTACTS,
    "weights": MAX_WEIGHTS,
}
"""Most entries of a list or object, by its field's name."""
_MAX_LENGTH: Final = 64
"""Most entries of every other list or object."""
_MAX_LISTED: Final = 10
"""Errors that a refusal lists."""
_MAX_DESCRIBED: Final = 1000
"""With more errors than this only their number is reported: describing them takes too long."""
_Model = TypeVar("_Model", bound=BaseModel)


def parse(model: type[_Model], body: bytes) -> _Model:
    """Parse a request's body. Raises Problem (MALFORMED_BODY) that lists the fields with errors."""
    _check_lengths(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        count = error.error_count()
        if count > _MAX_DESCRIBED:
            raise _malformed([{"field": "", "error": f"{count} fields do not fit"}]) from None
        found = error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_LISTED]
        named = [{"field": ".".join(map(str, e["loc"]))[:200], "error": e["msg"][:200]} for e in found]
        raise _malformed(named) from None


def _check_lengths(body: bytes) -> None:
    """Raise Problem for a body with more entries than its models allow.

    pydantic uses kilobytes for each error, so a body must not be able to cause very many.
    """
    if body.count(b"{") + body.count(b"[") > _MAX_CONTAINERS:
        raise _malformed([{"field": "", "error": f"more than {_MAX_CONTAINERS} objects and lists"}])
    try:
        left = [("", from_json(body))]
    except ValueError:
        return  # the model's parser reports where the JSON is invalid
    while left:
        name, value = left.pop()
        if isinstance(value, dict | list):
            limit = _MAX_LENGTHS.get(name, _MAX_LENGTH)
            if len(value) > limit:
                raise _malformed([{"field": name[:200], "error": f"{len(value)} entries, at most {limit}"}])
            inner = value.items() if isinstance(value, dict) else ((name, item) for item in value)
            left += [(key, item) for key, item in inner if isinstance(item, dict | list)]


def _malformed(errors: list[dict[str, str]]) -> Problem:
    first = f"{errors[0]['field'] or 'body'}: {errors[0]['error']}"
    return Problem(ProblemType.MALFORMED_BODY, first, extra={"errors": errors})
