"""Our modules as another system would import them: without what is POSIX's alone, under its name.

    python -m tests.support.other_system win32

First all are imported once, so that libraries are there, which choose by the true system. Then they are
imported anew with `sys.platform` changed, POSIX's modules gone, and the functions and signals that Windows
lacks deleted from `os` and `signal`. Prints the number of modules.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from typing import Any

PACKAGES = ("iota", "miner", "validator", "orchestrator")
_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
_OF_OS = (
    *("fork", "forkpty", "setsid", "killpg", "getpgid", "getpgrp", "setpgid", "nice", "wait", "WNOHANG"),
    *("getuid", "geteuid", "getgid", "getgroups", "setuid", "chown", "fchown", "fchmod", "chroot", "mkfifo"),
    *("pread", "preadv", "pwrite", "sendfile", "statvfs", "fstatvfs", "major", "minor", "makedev"),
    *("sched_getaffinity", "sched_setaffinity", "getloadavg", "sysconf", "uname", "openpty", "O_NONBLOCK"),
)
_SIGNALS = ("SIGKILL", "SIGHUP", "SIGCHLD", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGQUIT")


def modules() -> list[str]:
    """All modules of our packages, but for entry points and what only an export's folder can import."""
    found = []
    for name in PACKAGES:
        package = importlib.import_module(name)
        found += [name, *(m.name for m in pkgutil.walk_packages(package.__path__, f"{name}."))]
    return [n for n in found if not n.endswith(("__main__", ".modeling_iota"))]


def become(system: str) -> None:
    """Give this process another system's name, and take what Windows lacks where it is that."""
    sys.platform = system
    if system != "win32":
        return
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
    for module, names in ((os, _OF_OS), (signal, _SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def main() -> None:
    names = modules()
    for name in names:
        importlib.import_module(name)
    kept: dict[str, Any] = {}
    for name in [n for n in sys.modules if n.split(".")[0] in PACKAGES]:
        kept[name] = sys.modules.pop(name)  # references, so that nothing is finalised half-way
    become(sys.argv[1])
    for name in names:
        importlib.import_module(name)
    print(len(names))


if __name__ == "__main__":
    main()
