"""Makes `.env.example`: `python -m iota.settings.env_example > .env.example`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping

from iota.settings import ROLES, Settings, own_settings

_HEAD = """\
# What one machine sets. Copy this to `.env` in the folder that you start commands from, and take
# the `#` from the lines that you change. Flags win over the environment, the environment over
# `.env`, and `.env` over the defaults that stand here. An IOTA_ name that is not here is an error.
"""


def env_example(roles: Mapping[type[Settings], str] = ROLES) -> str:
    """Every setting of `roles` once, with its meaning, variables and default."""
    parts = [_HEAD]
    for role, title in roles.items():
        parts.append(f"\n# ---- {title} ".ljust(99, "-") + "\n")
        for s in own_settings(role):
            name, *others = s.variables
            text = s.help
            if not s.default and s.unset != "none":
                text += f" If not set: {s.unset}."
            if others:
                text += f" Also {', '.join(others)}."
            parts += ["\n", textwrap.fill(text, 97, initial_indent="# ", subsequent_indent="# "), "\n"]
            parts.append(f"#{name}={s.default}\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(env_example())
