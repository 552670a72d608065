"""Runs console commands: a failure is one sentence on stderr and an exit code.

0 done   1 the work failed   2 a mistake of the user   130 interrupted
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
"""As for typer's own errors; a supervisor should not restart such a command (deploy/, `iota.swarm`)."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
_TRANSIENT_STATUSES = (408, 429)
_REMEDIES = {errno.EADDRINUSE: ": stop the process that listens there, or give another --port"}

_TRANSIENT = (
    ("iota.chain.errors", "Unavailable"),
    ("iota.client.orchestrator", "OrchestratorUnreachable"),
    ("iota.store.store", "StoreUnavailable"),
)
"""Errors after which the same command may succeed."""
_PROBLEM = ("iota.protocol.problems", "Problem")
_KNOWN = (
    ("iota.chain.errors", "ChainError"),
    ("iota.data.manifest", "DataError"),
    ("iota.client.orchestrator", "UntrustedAnswer"),
    _PROBLEM,
    ("iota.store.store", "StoreError"),
    *_TRANSIENT,
)
"""Errors that are no bugs of this project, as (module, name): importing the modules here would be slow."""


class WorkFailed(Exception):
    """The work of a correct command failed: exit code 1."""


class Stopped(Exception):
    """A signal stopped the work of a command; the message says how to go on. Exit code 130."""


def run_command(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (by default that of the process) and exit. Every console command starts here."""
    command = typer.main.get_command(app)
    sys.exit(_exit_code(lambda: command.main(args=list(arguments) if arguments is not None else None)))


def start_logging(level: str) -> None:
    """Log messages of `level` and above to stderr."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


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
    except WorkFailed as error:
        return _fail(f"error: {error}", 1)
    except Exception as error:
        found = known_error(error)
        if found is None:
            raise
        return _fail(f"error: {_sentence(found)}", 1 if _is_transient(found) else USER_ERROR)
    return 0


def known_error(error: BaseException) -> Exception | None:
    """The error to report in a sentence, also from inside an ExceptionGroup; None for a bug."""
    if isinstance(error, BaseExceptionGroup):
        found = [known_error(inner) for inner in error.exceptions]
        return found[0] if found and all(found) else None
    known: tuple[type[Exception], ...] = (ValueError, OSError, *_loaded(_KNOWN))
    return error if isinstance(error, known) else None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "")
        return f"{where}{error.strerror}{remedy}"
    return one_line(str(error)) or type(error).__name__


def _is_transient(error: Exception) -> bool:
    """Whether the same command may succeed later, so that a supervisor should restart it."""
    if isinstance(error, _loaded((_PROBLEM,))):
        status: int = getattr(error, "status", 0)
        return status in _TRANSIENT_STATUSES or status >= 500
    return isinstance(error, _loaded(_TRANSIENT))


def _loaded(named: tuple[tuple[str, str], ...]) -> tuple[type[Exception], ...]:
    """The types in modules that are imported; the others cannot have been raised, and are slow to import."""
    return tuple(getattr(sys.modules[module], name) for module, name in named if module in sys.modules)


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code
