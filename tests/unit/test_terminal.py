"""How a command ends: its exit code, and what it says."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import typer

from iota.chain.errors import Unavailable
from iota.cli.main import COMMANDS, main
from iota.client.orchestrator import OrchestratorUnreachable, UntrustedAnswer
from iota.console.command import WorkFailed, run_command
from iota.console.redaction import without_secrets
from iota.protocol.problems import Problem, ProblemType
from iota.store.store import StoreError, StoreFull


def ending(call: Callable[[], None]) -> int:
    app = typer.Typer()
    app.command()(call)
    with pytest.raises(SystemExit) as ended:
        run_command(app, [])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("give more"), 2),
        (StoreFull("no room"), 1),
        (StoreError("other credentials"), 2),
        (UntrustedAnswer("a portal"), 1),
        (OrchestratorUnreachable("refused"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (socket.gaierror(-3, "Temporary failure in name resolution"), 1),
        (PermissionError(13, "Permission denied", "/root/x"), 2),
        (OSError(errno.EADDRINUSE, "address already in use"), 2),
        (ExceptionGroup("tasks", [ValueError("give more")]), 2),
        (Unavailable("no ledger answers"), 1),
        (Problem(ProblemType.NOT_A_MEMBER, "register first"), 1),
        (Problem(ProblemType.UNAVAILABLE, "come back"), 1),
        (ExceptionGroup("tasks", [Problem(ProblemType.RATE_LIMITED, "too often")]), 1),
        (WorkFailed("it broke"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_known_errors_become_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def fail() -> None:
        raise error

    assert ending(fail) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "no answer at wss://me:pw@node.example:443/v1/KEY,?a=b again",
            "no answer at wss://node.example:443 again",
        ),
        ("http://me@host/runs/1?X-Signature=s,t)u gone", "http://host/runs/1 gone"),
        ("(https://host/a)", "(https://host/a)"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_no_secret_of_a_url_is_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_port_in_use_is_said_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(errno.EADDRINUSE, "address already in use")

    ending(fail)
    assert "or give another --port" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("x"), ExceptionGroup("tasks", [ValueError("a"), KeyError("b")])])
def test_a_bug_keeps_its_trace(error: Exception) -> None:
    def fail() -> None:
        raise error

    app = typer.Typer()
    app.command()(fail)
    with pytest.raises(type(error)):
        run_command(app, [])


def test_help_is_quick_and_loads_neither_torch_nor_the_chain() -> None:
    code = (
        "import sys, iota.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: print({'torch', 'transformers', 'bittensor_core', 'aiohttp'} & set(sys.modules))"
    )
    best = float("inf")
    for _ in range(3):  # the machine may be busy with something else
        started = time.perf_counter()
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - started)
    assert shown.stdout.rstrip().endswith("set()")
    assert best < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f" {name} " in capsys.readouterr().out


HOSTILE = "cuda/\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\n2026-01-01 ERROR root: forged"


def test_no_text_of_others_commands_the_terminal_or_forges_a_line_of_a_log() -> None:
    code = (
        "import logging; from iota.console.command import start_logging; start_logging('INFO');"
        f"logging.info('%s joined', {HOSTILE!r})\n"
        f"try: raise RuntimeError({HOSTILE!r})\n"
        "except RuntimeError: logging.exception('it failed')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert all(line.isprintable() for line in lines)
    assert sum("forged" in line for line in lines[:1]) == 1
    assert not any(line.startswith("2026-01-01 ERROR root: forged") for line in lines[:2])


@pytest.mark.parametrize("error", [ValueError(HOSTILE), OSError(2, "none", HOSTILE), WorkFailed(HOSTILE)])
def test_no_error_commands_the_terminal(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    def fail() -> None:
        raise error

    ending(fail)
    assert all(line.isprintable() for line in capsys.readouterr().err.split("\n"))
