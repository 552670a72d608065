"""What a person at a terminal sees when a command fails: one sentence, and an exit code.

0 done   1 the work failed   2 something that the user can put right   130 interrupted
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

USER_ERROR = 2
INTERRUPTED = 130


class WorkFailed(Exception):
    """The command was right, and its work failed all the same: exit code 1."""


def run_command(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit: the outermost edge of every console command of this project."""
    command = typer.main.get_command(app)
    sys.exit(_guarded(lambda: command.main(args=list(arguments) if arguments is not None else None)))


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
        return _say(f"error: {one_line(found)}", 1 if isinstance(found, _passing_types()) else USER_ERROR)
    return 0


def known_error(error: BaseException) -> Exception | None:
    """The error that a user can put right, also when task groups have wrapped it; None for a bug."""
    if isinstance(error, BaseExceptionGroup):
        found = [known_error(inner) for inner in error.exceptions]
        return found[0] if found and all(found) else None
    return error if isinstance(error, _known_types()) else None


def one_line(error: BaseException) -> str:
    """An error's text as one sentence."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _known_types() -> tuple[type[Exception], ...]:
    # Imported only when something has gone wrong, so that a command pays for none of it.
    from iota.chain.errors import ChainError
    from iota.data.manifest import DataError
    from iota.protocol.client import UntrustedAnswer
    from iota.protocol.problems import Problem
    from iota.store.store import StoreError

    known = (ValueError, OSError, ChainError, DataError, Problem, StoreError, UntrustedAnswer)
    return (*known, *_passing_types())


def _passing_types() -> tuple[type[Exception], ...]:
    """What may be well again later, so that it is worth starting the same command once more."""
    from iota.chain.errors import Unavailable
    from iota.protocol.client import OrchestratorUnreachable
    from iota.store.store import StoreUnavailable

    return (Unavailable, OrchestratorUnreachable, StoreUnavailable)


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code
