"""`.env.example` and docs/settings.md say exactly what `iota.settings` understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iota.settings import ROLES, Settings, settings_of
from iota.settings.docs_page import docs_page
from iota.settings.env_example import env_example
from iota.settings.environment import known_names

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"


def test_the_example_file_is_the_one_that_the_settings_give() -> None:
    assert EXAMPLE.read_text() == env_example(), "run: python -m iota.settings.env_example > .env.example"


def test_the_page_of_settings_is_the_one_that_the_settings_give() -> None:
    page = ROOT / "docs" / "settings.md"
    assert page.read_text() == docs_page(), "run: python -m iota.settings.docs_page > docs/settings.md"


def test_every_iota_name_stands_in_the_example_once() -> None:
    found = re.findall(r"^#(IOTA_[A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(found) == sorted(n for n in known_names() if n.startswith("IOTA_"))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.__name__)
def test_every_setting_is_explained(role: type[Settings]) -> None:
    for s in settings_of(role):
        assert s.help, f"{role.__name__}.{s.name} has no help"
        assert s.variables[0].startswith("IOTA_")


def test_an_uncommented_example_loads_with_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = [role.load() for role in ROLES]
    lines = re.sub(r"^#(IOTA_)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(lines)
    monkeypatch.chdir(tmp_path)
    assert [role.load() for role in ROLES] == defaults
