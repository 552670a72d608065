"""The only module that reads environment variables and `.env`; also makes those of child processes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from iota.settings.declaration import Settings, settings_of
from iota.settings.roles import ROLES

ENV_FILE = ".env"
"""In the folder that a command is started in."""
PREFIX = "IOTA_"
_SECRET = ("SECRET", "PASSWORD", "PASSWD", "TOKEN", "KEY", "CREDENTIALS", "MNEMONIC", "SEED")
"""Ends of the words of a variable's name that say that its value is secret."""


def from_variables(kind: type[Settings]) -> dict[str, str]:
    """The text of each setting that a variable sets, by the setting's name.

    The environment has priority over `.env`, and within each the first of a setting's variables that is not
    empty. Upper and lower case are the same.
    """
    written = dotenv_values(ENV_FILE) if Path(ENV_FILE).is_file() else {}
    places = [_upper(os.environ), _upper(written)]
    found = {}
    for s in settings_of(kind):
        texts = [place[name] for place in places for name in s.variables if name in place]
        if texts:
            found[s.name] = texts[0]
    return found


def known_names() -> set[str]:
    """All variables of all roles."""
    return {name for role in ROLES for s in settings_of(role) for name in s.variables}


def check_names() -> None:
    """Refuse unknown `IOTA_*` variables in the environment and in `.env`: the default would apply unnoticed.

    Raises:
        ValueError: an unknown variable, with its place and the nearest known name; or a line of `.env` that
            sets nothing.
    """
    known = known_names()
    for place, names in (("the environment", list(os.environ)), (ENV_FILE, _written_names())):
        for name in sorted(names):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
                raise ValueError(f"{place} sets {name}, which is no setting: did you mean {near[0]}?")


def secret_variables() -> dict[str, str]:
    """The variables, of the environment and of `.env`, whose names say that their values are secret."""
    written = dotenv_values(ENV_FILE) if Path(ENV_FILE).is_file() else {}
    places = {**_upper(written), **_upper(os.environ)}
    return {name: text for name, text in places.items() if _is_secret(name)}


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a child process: this process's, with limits for `threads` compute threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # Two malloc arenas instead of eight per core: the others would only hold freed tensors.
    limits = {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2"}
    return {**os.environ, **dict.fromkeys(names, str(threads)), **limits}


def _upper(place: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that are not empty, by their names in upper case."""
    return {name.upper(): text for name, text in place.items() if text}


def _is_secret(name: str) -> bool:
    return any(word.endswith(_SECRET) for word in name.split("_"))


def _written_names() -> list[str]:
    """The names that `.env` sets. Raises ValueError for a line that sets nothing."""
    if not Path(ENV_FILE).is_file():
        return []
    names = []
    with open(ENV_FILE, encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error or (binding.key is not None and binding.value is None):
                raise ValueError(f"line {binding.original.line} of {ENV_FILE} sets nothing: write NAME=value")
            if binding.key is not None:
                names.append(binding.key)
    return names
