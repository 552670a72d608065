"""A built wheel would hold every file of the four packages, and the version stands in one place."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS: dict[str, Any] = PROJECT["tool"]["setuptools"]
PACKAGES = sorted(pattern.rstrip("*") for pattern in SETUPTOOLS["packages"]["find"]["include"])


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_would_be_in_a_wheel(package: str) -> None:
    data: list[str] = SETUPTOOLS["package-data"]["*"]
    for path in (ROOT / package).rglob("*"):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        assert path.suffix == ".py" or any(fnmatch.fnmatch(path.name, p) for p in data), path
        assert (path.parent / "__init__.py").exists(), (
            f"{path.parent} is no package: setuptools leaves it out"
        )


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_are_told_that_a_package_has_types(package: str) -> None:
    assert (ROOT / package / "py.typed").read_bytes() == b""


def test_the_license_that_is_named_is_the_one_that_is_there() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    (name,) = PROJECT["project"]["license-files"]
    assert (ROOT / name).read_text().startswith("MIT License\n")


@pytest.mark.parametrize("name", ["deploy/compose.yml", "deploy/Dockerfile"])
def test_an_image_has_the_projects_version(name: str) -> None:
    tags = re.findall(r"\biota:(\d[\w.]*)", (ROOT / name).read_text())
    assert tags == [PROJECT["project"]["version"]]
