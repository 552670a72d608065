"""Makes the page docs/settings.md: `python -m iota.settings.docs_page > docs/settings.md`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from iota.settings import ROLES, Setting, Settings, own_settings

_HEAD = """\
# Settings

This page is made from `iota/settings/roles.py`. A value comes from its flag; else from the environment, by
the first name that is set; else, by the same names, from `.env` in the folder that the command is started in;
else it is the default. An `IOTA_` variable that is not here is an error; those that Kubernetes sets
for a service (names with `_SERVICE_HOST`, `_PORT=tcp://...` and so on) are ignored. An empty variable counts
as not set. Begin with a copy of `.env.example`.

`IOTA_TORCH` is no setting of a command: `scripts/environment.sh` reads it, from the environment alone, and
installs that PyTorch ([miner.md](miner.md#pytorch-for-the-gpu)).
"""
_COLUMNS = "| flag | variable | default | meaning |\n|---|---|---|---|\n"


def docs_page(roles: Mapping[type[Settings], str] = ROLES) -> str:
    """A table of settings for each class in `roles`, by title; inherited settings are in the base's table."""
    tables = (
        f"\n## {title}\n\n{_COLUMNS}{''.join(map(_row, own_settings(role)))}" for role, title in roles.items()
    )
    return _HEAD + "".join(tables)


def _row(s: Setting) -> str:
    default = f"`{s.default}`" if s.default else s.unset
    cells = (_code(s.flags) or "none", _code(s.variables), default, s.help)
    return f"| {' | '.join(cells)} |\n"


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.stdout.write(docs_page())
