"""A process that imports torch and the model's code once, and forks every node of the swarm.

Each node would otherwise pay seconds of CPU for the imports, and hold its own copy of the pages. Orders are
JSON lines on stdin, `{"name", "entry", "arguments", "log"}`. Answers are JSON lines on stdout:
`{"ready": true}`, `{"started": name, "pid": n}`, `{"ended": name, "pid": n, "code": c}`. The process ends
when its stdin closes, and its children end with it.

On Linux alone (`iota.system.processes.CAN_FORK`). Forking is safe because this process has one thread:
imports start none, and torch starts its own at the first parallel operation, which only children run.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import sys
from typing import Any, NoReturn

from iota.swarm.child import run_entry
from iota.system.processes import exit_with_parent, name_process


def main() -> None:
    """Import the modules that are the arguments, then fork a child for each order."""
    # Stdout carries answers alone: what an import prints goes to the log, as stderr does.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    # Moves all objects out of the collector's reach, whose writes would copy the shared pages in each child.
    gc.collect()
    gc.freeze()
    _answer(answers, {"ready": True})
    children: dict[int, str] = {}
    buffered = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == wake_read:
                    os.read(wake_read, 4096)
                    continue
                chunk = os.read(0, 65536)
                if not chunk:
                    return
                *lines, buffered = (buffered + chunk).split(b"\n")
                for line in lines:
                    order = json.loads(line)
                    pid = _fork(order, (wake_read, wake_write, answers.fileno()))
                    children[pid] = order["name"]
                    _answer(answers, {"started": order["name"], "pid": pid})
            for pid, code in _ended(children):
                _answer(answers, {"ended": children.pop(pid), "pid": pid, "code": code})


def _answer(answers: Any, message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")


def _ended(children: dict[int, str]) -> list[tuple[int, int]]:
    """(pid, exit code) of the children that ended since the last call; code -n for signal n."""
    found = []
    for pid in children:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


def _fork(order: dict[str, Any], pipes: tuple[int, ...]) -> int:
    """Start the ordered command in a child without this process's `pipes`; returns its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    _run_child(order, parent, pipes)


def _run_child(order: dict[str, Any], parent: int, pipes: tuple[int, ...]) -> NoReturn:
    """The child: takes its own session and log, runs the command, and exits; never returns."""
    code = 1
    try:
        os.setsid()
        exit_with_parent(parent)
        name_process(order["name"])
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        for pipe in (*pipes, log, null):
            os.close(pipe)
        run_entry(order["entry"], order["arguments"])
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:  # noqa: BLE001 - the process ends here, and its log must say why
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
