"""The settings as the text of `.env.example`: `python -m iota.settings.env_example > .env.example`."""

from __future__ import annotations

import sys
import textwrap
from enum import Enum

from iota.settings import (
    ChainSettings,
    MinerSettings,
    NodeSettings,
    OrchestratorSettings,
    StoreSettings,
    ValidatorSettings,
    WalletSettings,
    environment_names,
)

_HEAD = """\
# What one machine sets. Copy this to `.env` in the folder that you start commands from, and take
# the `#` from the lines that you change. Flags win over the environment, the environment over
# `.env`, and `.env` over the defaults that stand here. An IOTA_ name that is not here is an error.
"""
_SECTIONS = (
    ("every role", ChainSettings),
    ("iota wallet, iota-miner register, iota-validator register", WalletSettings),
    ("miners and validators", NodeSettings),
    ("iota-miner", MinerSettings),
    ("iota-validator", ValidatorSettings),
    ("iota-orchestrator", OrchestratorSettings),
    ("iota store serve", StoreSettings),
)


def env_example() -> str:
    """Every setting once: what it means, the names it goes by, and its default."""
    parts, seen = [_HEAD], set[str]()
    for title, role in _SECTIONS:
        parts.append(f"\n# ---- {title} ".ljust(99, "-") + "\n")
        for field, info in role.model_fields.items():
            if field in seen and field in ChainSettings.model_fields | NodeSettings.model_fields:
                continue
            seen.add(field)
            name, *others = environment_names(info)
            text = info.description or ""
            if others:
                text += f" Also {', '.join(others)}."
            parts += ["\n", textwrap.fill(text, 97, initial_indent="# ", subsequent_indent="# "), "\n"]
            parts.append(f"#{name}={_shown(info.default)}\n")
    return "".join(parts)


def _shown(default: object) -> str:
    if default is None:
        return ""
    return str(default.value if isinstance(default, Enum) else default)


if __name__ == "__main__":
    sys.stdout.write(env_example())
