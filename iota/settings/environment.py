"""The only reader of environment variables and of `.env`, and what a child process gets of them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from iota.settings.declaration import Settings, settings_of
from iota.settings.models import ROLES

ENV_FILE = ".env"
"""Read from the folder that a command is started in."""
PREFIX = "IOTA_"


def from_variables(kind: type[Settings]) -> dict[str, str]:
    """The text of each setting that a variable sets, by the setting's name.

    The environment goes before `.env`, and in each the first of a setting's variables that is there and not
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
    """Every variable that any role understands."""
    return {name for role in ROLES for s in settings_of(role) for name in s.variables}


def check_names() -> None:
    """Refuses `IOTA_*` variables that mean nothing, in the environment and in `.env`.

    Raises:
        ValueError: naming the variable, where it stands and the nearest name there is; or a line of `.env`
            that sets nothing, where a default would take its place unnoticed.
    """
    known = known_names()
    for place, names in (("the environment", list(os.environ)), (ENV_FILE, _written_names())):
        for name in sorted(names):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
                raise ValueError(f"{place} sets {name}, which is no setting: did you mean {near[0]}?")


def child_environment(threads: int) -> dict[str, str]:
    """This process's environment for a child that computes with `threads` threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # Two malloc arenas instead of eight a core: the rest would only hold freed tensors.
    calm = {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2"}
    return {**os.environ, **dict.fromkeys(names, str(threads)), **calm}


def _upper(place: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that are set to something, by their names in upper case."""
    return {name.upper(): text for name, text in place.items() if text}


def _written_names() -> list[str]:
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
