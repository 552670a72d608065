"""`.env.example` says exactly what `iota.settings` understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iota.settings import ROLES, environment_names, known_names
from iota.settings.env_example import env_example

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def test_the_example_file_is_the_one_that_the_settings_give() -> None:
    assert EXAMPLE.read_text() == env_example(), "run: python -m iota.settings.env_example > .env.example"


def test_every_iota_name_stands_in_the_example_once() -> None:
    found = re.findall(r"^#(IOTA_[A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(found) == sorted(n for n in known_names() if n.startswith("IOTA_"))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.__name__)
def test_every_setting_is_explained(role: type) -> None:
    for name, info in role.model_fields.items():  # type: ignore[attr-defined]
        assert info.description, f"{role.__name__}.{name} has no docstring"
        assert environment_names(info)[0].startswith("IOTA_")


def test_an_uncommented_example_loads_with_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = [role.load() for role in ROLES]
    lines = re.sub(r"^#(IOTA_)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(lines)
    monkeypatch.chdir(tmp_path)
    assert [role.load() for role in ROLES] == defaults
