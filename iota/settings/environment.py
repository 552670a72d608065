"""The only module that reads environment variables and `.env`; also makes those of child processes."""

from __future__ import annotations

import difflib
import os
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from iota.settings.declaration import Settings, settings_of
from iota.settings.kubernetes import is_service_variable
from iota.settings.roles import ROLES

ENV_FILE = ".env"
"""In the folder that a command is started in."""
PREFIX = "IOTA_"
SCRIPTS_VARIABLE = "IOTA_TORCH"
"""Read by `scripts/environment.sh` alone, from the environment: which PyTorch it installs."""
_SECRET = ("SECRET", "PASSWORD", "PASSWD", "TOKEN", "KEY", "CREDENTIALS", "MNEMONIC", "SEED")
"""Ends of the words of a variable's name that say that its value is secret."""


def from_variables(kind: type[Settings]) -> dict[str, str]:
    """The text of each setting that a variable sets, by the setting's name.

    The environment has priority over `.env`, and within each the first of a setting's variables that is not
    empty. Upper and lower case are the same; white space around a value does not count, but in a secret.
    """
    places = [_environment(), _written()]
    found = {}
    for s in settings_of(kind):
        texts = [place[name] for place in places for name in s.variables if place.get(name, "").strip()]
        if texts:
            found[s.name] = texts[0] if s.secret else texts[0].strip()
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
    if SCRIPTS_VARIABLE in _written():
        raise ValueError(
            f"{ENV_FILE} sets {SCRIPTS_VARIABLE}, which scripts/up reads from the environment alone"
        )
    for place, names in (("the environment", _environment()), (ENV_FILE, _written())):
        for name in sorted(names):
            if name.startswith(PREFIX) and name not in known | {SCRIPTS_VARIABLE}:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
                raise ValueError(f"{place} sets {name}, which is no setting: did you mean {near[0]}?")


def secret_variables() -> dict[str, str]:
    """The variables, of the environment and of `.env`, whose names say that their values are secret."""
    places = _written() | {name.upper(): text for name, text in os.environ.items()}
    return {name: text for name, text in places.items() if text and _is_secret(name)}


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a child process: this process's, with limits for `threads` compute threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # Two malloc arenas instead of eight per core: the others would only hold freed tensors.
    limits = {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2"}
    return {**os.environ, **dict.fromkeys(names, str(threads)), **limits}


def _environment() -> dict[str, str]:
    """The environment by names in upper case, without the variables of Kubernetes' services."""
    found = {name.upper(): text for name, text in os.environ.items()}
    return {name: text for name, text in found.items() if not is_service_variable(name, text)}


def _is_secret(name: str) -> bool:
    return any(word.endswith(_SECRET) for word in name.split("_"))


def _written() -> dict[str, str]:
    """What `.env` sets, by names in upper case.

    Raises:
        ValueError: the file is not UTF-8, or has a line that sets nothing.
    """
    if not Path(ENV_FILE).is_file():
        return {}
    try:
        text = Path(ENV_FILE).read_text(encoding="utf-8-sig")  # some editors put a byte order mark first
    except UnicodeDecodeError:
        raise ValueError(f"{ENV_FILE} is not UTF-8: save it as such") from None
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ValueError(f"line {binding.original.line} of {ENV_FILE} sets nothing: write NAME=value")
    values = dotenv_values(stream=StringIO(text))
    return {name.upper(): value for name, value in values.items() if value is not None}
