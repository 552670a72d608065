"""The content of `iota bugreport`: texts by name, and the archive that is made of them without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import psutil

from iota.console.redactor import Redactor
from iota.console.version import versions
from iota.planning import existing, usable_cores
from iota.settings import Settings, settings_of

LOG_BYTES: Final = 200_000
"""The end of each log that goes into the report."""
MAX_LOGS: Final = 64
"""Logs of a run's folder, by name, that go into the report."""
_DOCUMENTS: Final = ("run.json", "options.json", "spec.json", "summary.json")
_MAX_DOCUMENT: Final = 1_000_000
_MAX_KEY_FILE: Final = 65_536


def machine_text(folder: Path) -> str:
    """Facts about the machine. `folder` is where the node keeps its data."""
    there = existing(folder)
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(there)
    facts = {
        **versions(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": f"{usable_cores()} of {os.cpu_count()}",
        "memory": f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB available",
        "disk": f"{disk.total / 1e9:.1f} GB, {disk.free / 1e9:.1f} GB free at {there}",
        "boot": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(psutil.boot_time())),
        "now": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    return "".join(f"{name}: {value}\n" for name, value in facts.items())


def settings_text(settings: Settings) -> str:
    """Each setting with its value; of those that `repr` omits only whether they are set."""
    hidden = {f.name for f in fields(settings) if not f.repr}
    lines = []
    for s in settings_of(type(settings)):
        value = getattr(settings, s.name)
        lines.append(f"{s.name}: {('set' if value else 'not set') if s.name in hidden else value}\n")
    return "".join(lines)


def run_texts(root: Path) -> dict[str, str]:
    """The documents and the ends of the logs in a run's folder, by name."""
    found = {}
    for name in _DOCUMENTS:
        path = root / name
        if path.is_file() and path.stat().st_size <= _MAX_DOCUMENT:
            found[f"run/{name}"] = path.read_text(errors="replace")
    for path in sorted((root / "logs").glob("*.log"))[:MAX_LOGS]:
        found[f"run/logs/{path.name}"] = log_end(path)
    return found


def log_end(path: Path) -> str:
    """The last `LOG_BYTES` of a log. Raises OSError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        return file.read().decode(errors="replace")


def known_secrets(root: Path | None, wallets: Path) -> Iterator[str]:
    """Secret values in the files of a run's folder and of a folder of wallets.

    Hotkeys are read; a coldkey's private file is not opened, since nothing of it is in any log.
    """
    if root is not None:
        yield from _secrets_in(root / "secret")
        for path in root.rglob("links.seed"):
            yield path.read_bytes().hex()
    for folder in (wallets, *(() if root is None else (root / "wallets",))):
        for path in folder.glob("*/hotkeys/*"):
            yield from _secrets_in(path)


def archive(texts: Mapping[str, str], redactor: Redactor) -> bytes:
    """A tar.gz of `texts`, each without secrets, in a folder of its own."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, text in texts.items():
            data = redactor(text).encode()
            entry = tarfile.TarInfo(f"iota-bugreport/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def _secrets_in(path: Path) -> Iterator[str]:
    """The secret texts of a key file (JSON), or all of another file; nothing of one that is unreadable."""
    if not path.is_file() or path.stat().st_size > _MAX_KEY_FILE or not os.access(path, os.R_OK):
        return
    text = path.read_text(errors="replace").strip()
    if path.suffix == ".txt":
        return
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        yield text
        return
    for name, value in found.items():
        if isinstance(value, str) and name.lower().startswith(("secret", "private")):
            yield value
            yield value.removeprefix("0x")
