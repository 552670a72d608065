"""What a person at a terminal sees when a command fails: one sentence, and an exit code.

0 done   1 the work failed   2 something that the user can put right   130 interrupted
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from iota.console.redaction import one_line

USER_ERROR = 2
INTERRUPTED = 130
_PASSING_STATUSES = (408, 429)
_REMEDIES = {errno.EADDRINUSE: ": stop the process that listens there, or give another --port"}


class WorkFailed(Exception):
    """The command was right, and its work failed all the same: exit code 1."""


def run_command(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit: every console command of this project starts here."""
    command = typer.main.get_command(app)
    sys.exit(_guarded(lambda: command.main(args=list(arguments) if arguments is not None else None)))


def start_logging(level: str) -> None:
    """Logs go to stderr from `level` on: for processes that run, and commands that a person waits for."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _guarded(call: Callable[[], object]) -> int:
    try:
        call()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        return _say("interrupted", code) if code == INTERRUPTED else code
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except WorkFailed as error:
        return _say(f"error: {error}", 1)
    except Exception as error:
        found = known_error(error)
        if found is None:
            raise
        return _say(f"error: {_sentence(found)}", 1 if _may_pass(found) else USER_ERROR)
    return 0


def known_error(error: BaseException) -> Exception | None:
    """The error that a user can put right, also when task groups have wrapped it; None for a bug."""
    if isinstance(error, BaseExceptionGroup):
        found = [known_error(inner) for inner in error.exceptions]
        return found[0] if found and all(found) else None
    return error if isinstance(error, _known_types()) else None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "")
        return f"{where}{error.strerror}{remedy}"
    return one_line(str(error)) or type(error).__name__


def _known_types() -> tuple[type[Exception], ...]:
    known = (
        ("iota.chain.errors", "ChainError"),
        ("iota.data.manifest", "DataError"),
        ("iota.client.orchestrator", "UntrustedAnswer"),
        ("iota.protocol.problems", "Problem"),
        ("iota.store.store", "StoreError"),
    )
    return (ValueError, OSError, *_loaded(known), *_passing_types())


def _may_pass(error: Exception) -> bool:
    """Whether all may be well again later, so that it is worth starting the same command once more."""
    if isinstance(error, _loaded((("iota.protocol.problems", "Problem"),))):
        status: int = getattr(error, "status", 0)
        return status in _PASSING_STATUSES or status >= 500
    return isinstance(error, _passing_types())


def _passing_types() -> tuple[type[Exception], ...]:
    passing = (
        ("iota.chain.errors", "Unavailable"),
        ("iota.client.orchestrator", "OrchestratorUnreachable"),
        ("iota.store.store", "StoreUnavailable"),
    )
    return _loaded(passing)


def _loaded(named: tuple[tuple[str, str], ...]) -> tuple[type[Exception], ...]:
    """The types whose modules this command has loaded: no other one can have been raised."""
    return tuple(getattr(sys.modules[module], name) for module, name in named if module in sys.modules)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code
