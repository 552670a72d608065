"""The boundary of audits: an error that nobody foresaw ends one audit, and never the validator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from validator.core.effects import Effect, InternalError
from validator.core.facts import Expired
from validator.core.jobs import Script

INTERNAL: Final = "internal error"
"""How the reason of a verdict begins whose audit met an error of this program."""
_MAX_CHARS: Final = 300
"""Length to which the reason is cut: the error's text may be a stranger's."""
_T = TypeVar("_T")


def contained(
    script: Script[_T], epoch: int, what: str, otherwise: Callable[[str], _T], emit: Callable[[Effect], None]
) -> Script[_T]:
    """Run `script`. If an error ends it that it does not handle, count that and return `otherwise(reason)`.

    What an audit reads is made by strangers. Parsers refuse it by name, and those errors are results of
    audits; an error that arrives here is a fault of this program. It must cost the one audit: a validator
    that ended by it would meet the same evidence at its next start. This is the only place of the validator
    that catches every exception. Conditions of the machine never arrive: the shell raises them
    (`validator.membership`), so that the node waits and audits again.

    Args:
        what: names the script among those of its epoch, for the log and the count.
    """
    try:
        return (yield from script)
    except (Expired, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - the outermost edge of what strangers can reach: see above
        emit(InternalError(epoch, what, error))
        return otherwise(f"{INTERNAL}: {type(error).__name__}: {error}"[:_MAX_CHARS])
