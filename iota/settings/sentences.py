"""Says in a sentence what pydantic found wrong with a value; the only place that words its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

_MAX_SHOWN: Final = 80
"""Characters of a wrong value that are shown."""
_MAX_FAULTS: Final = 1000
_WORDS: Final[Mapping[str, str]] = {
    "json_invalid": "it is not JSON ({error})",
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "string_pattern_mismatch": "it does not have the form {pattern}",
    "string_type": "it must be text",
    "string_too_short": "it must have at least {min_length} characters",
    "string_too_long": "it must have at most {max_length} characters",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "float_parsing": "it must be a number",
    "finite_number": "it must be a finite number",
    "bool_type": "it must be yes or no",
    "bool_parsing": "it must be yes or no",
    "enum": "it must be {expected}",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be above {gt:g}",
    "greater_than_equal": "it must be at least {ge:g}",
    "less_than": "it must be below {lt:g}",
    "less_than_equal": "it must be at most {le:g}",
    "too_short": "it must have at least {min_length} entries",
    "too_long": "it must have at most {max_length} entries",
    "model_type": "it must be a group of fields",
    "dict_type": "it must be a group of fields",
    "tuple_type": "it must be a list",
    "list_type": "it must be a list",
    "value_error": "{error}",
}
"""By pydantic's type of error, with its context. Others get pydantic's own words."""


def sentence(error: ValidationError, *, under: str = "") -> str:
    """The first fault, such as `layout.cuts.0: it must be a whole number, not 'a'`.

    `under` is the path of what was checked, where that is a part of something.
    """
    count = error.error_count()
    if count > _MAX_FAULTS:  # pydantic's list of them could be many times as long as a hostile input
        return f"{count} fields do not fit"
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, [under, *first["loc"]] if under else first["loc"]))
    if first["type"] in ("missing", "value_error", "json_invalid", "extra_forbidden"):
        said = reason(first)
    else:
        said = f"{reason(first)}, not {shown(first['input'])}"
    # Our own validators name the fields that they compare by their whole paths.
    return said if said.startswith(place) else f"{place}: {said}"


def reason(first: Mapping[str, Any]) -> str:
    """What is wrong, by one of `ValidationError.errors()`, without the place and the value."""
    words = _WORDS.get(str(first["type"]))
    if words is None:
        return str(first["msg"]).replace("Input should be", "it must be")
    return words.format_map(dict(first.get("ctx", {})))


def shown(value: object) -> str:
    """A wrong value in quotes, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
