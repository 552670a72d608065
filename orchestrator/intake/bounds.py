"""Parses a request's body within bounds: what is too long is refused before a model is built from it."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from iota.protocol.messages import MAX_FRAMES, MAX_PARTS, MAX_REPORTS, MAX_WEIGHTS
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import MAX_RECEIPTS

_MAX_CONTAINERS: Final = 65_536
"""Objects and lists in one body: a full exchange has fewer than half."""
_MAX_LENGTHS: Final = {
    "frames": MAX_FRAMES,
    "parts": MAX_PARTS,
    "receipts": MAX_RECEIPTS,
    "reports": MAX_REPORTS,
    "weights": MAX_WEIGHTS,
}
_MAX_LENGTH: Final = 64
"""Entries of every other list or object."""
_MAX_TOLD: Final = 10
_MAX_DETAILED: Final = 1000
"""Errors beyond which none is described: describing them costs more than finding them."""
_Model = TypeVar("_Model", bound=BaseModel)


def parse(model: type[_Model], body: bytes) -> _Model:
    """A request's body as its model.

    Raises:
        Problem: MALFORMED_BODY, with the fields that do not fit.
    """
    _check_lengths(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        count = error.error_count()
        if count > _MAX_DETAILED:
            raise _malformed([{"field": "", "error": f"{count} fields do not fit"}]) from None
        found = error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_TOLD]
        named = [{"field": ".".join(map(str, e["loc"]))[:200], "error": e["msg"][:200]} for e in found]
        raise _malformed(named) from None


def _check_lengths(body: bytes) -> None:
    """Each error of a validation costs kilobytes, so a body may not have room for many."""
    if body.count(b"{") + body.count(b"[") > _MAX_CONTAINERS:
        raise _malformed([{"field": "", "error": f"more than {_MAX_CONTAINERS} objects and lists"}])
    try:
        left = [("", from_json(body))]
    except ValueError:
        return  # the model names the place where it is no JSON
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
