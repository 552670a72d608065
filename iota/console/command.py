"""Runs console commands: a failure is one sentence on stderr and an exit code.

0 done   1 the work failed   2 a mistake of the user   130 interrupted
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer

from iota.console.classification import passing
from iota.console.conditions import Condition
from iota.console.redaction import one_line, printable

USER_ERROR = 2
"""As for typer's own errors; a supervisor should not restart such a command (deploy/, `iota.swarm`)."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
_REMEDIES = {errno.EADDRINUSE: ": stop the process that listens there, or give another --port"}

_KNOWN = (
    ("iota.chain.errors", "ChainError"),
    ("iota.data.manifest", "DataError"),
    ("iota.client.orchestrator", "UntrustedAnswer"),
    ("iota.client.orchestrator", "OrchestratorUnreachable"),
    ("iota.protocol.problems", "Problem"),
    ("iota.store.store", "StoreError"),
)
"""Errors that are no bugs of this project, as (module, name): importing the modules here would be slow."""
_GIVEN = (Condition.DATA, Condition.STORE_REFUSES)
"""In a command these are about the folder, store or credentials that the user gave; nodes wait for them."""


class WorkFailed(Exception):
    """The work of a correct command failed: exit code 1."""


class Stopped(Exception):
    """A signal stopped the work of a command; the message says how to go on. Exit code 130."""


def run_command(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (by default that of the process) and exit. Every console command starts here."""
    _open_standard_streams()
    command = typer.main.get_command(app)
    sys.exit(_exit_code(lambda: command.main(args=list(arguments) if arguments is not None else None)))


def _open_standard_streams() -> None:
    """Open /dev/null in place of closed standard streams.

    Otherwise Python has None for them, and the next file or socket would get their numbers.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the process's life


class _Lines(logging.Formatter):
    """One printable line for each message, since messages quote texts of others; tracebacks keep theirs."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return _printable_lines(super().formatException(ei))


def start_logging(level: str) -> None:
    """Log messages of `level` and above to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _exit_code(call: Callable[[], object]) -> int:
    """Call, print a known error, and return the exit code."""
    try:
        call()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        return _fail("interrupted", code) if code == INTERRUPTED else code
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Stopped as stop:
        return _fail(str(stop), INTERRUPTED)
    except Exception as error:
        found = known_error(error)
        if found is None:
            raise
        return _fail(f"error: {_sentence(found)}", _code(found))
    return 0


def known_error(error: BaseException) -> Exception | None:
    """The error to report in a sentence, also from inside an ExceptionGroup; None for a bug."""
    if isinstance(error, BaseExceptionGroup):
        found = [known_error(inner) for inner in error.exceptions]
        return found[0] if found and all(found) else None
    known: tuple[type[Exception], ...] = (ValueError, OSError, WorkFailed, *_loaded(_KNOWN))
    return error if isinstance(error, known) or (isinstance(error, Exception) and passing(error)) else None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "")
        return printable(f"{where}{error.strerror}{remedy}")
    if isinstance(error, WorkFailed):
        return _printable_lines(str(error))  # may quote the lines of a log
    return one_line(str(error)) or type(error).__name__


def _code(error: Exception) -> int:
    """1 if the same command may succeed later, so that a supervisor should restart it; else `USER_ERROR`."""
    if isinstance(error, WorkFailed):
        return 1
    found = passing(error)
    return USER_ERROR if found is None or found[0] in _GIVEN else 1


def _loaded(named: tuple[tuple[str, str], ...]) -> tuple[type[Exception], ...]:
    """The types in modules that are imported; the others cannot have been raised, and are slow to import."""
    return tuple(getattr(sys.modules[module], name) for module, name in named if module in sys.modules)


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code
