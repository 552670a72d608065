"""The import rules of `.importlinter`: every module has a layer, and no rule can be walked around."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("iota", "miner", "validator", "orchestrator")
HOLES = {
    "iota/doctor/finding.py": "import miner.core.schedule, boto3\n",
    "iota/settings/env_example.py": "import miner.core.schedule\n",
    "orchestrator/intake/validation.py": "import time\n",
    "miner/core/epoch.py": "import asyncio\n",
    "iota/simulator/__init__.py": "import bittensor\n",
}
"""Imports that must not pass, by the file that they are added to."""


def _layers() -> set[str]:
    """The modules that a layer names."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    return set(re.split(r"[|:\s]+", config["importlinter:contract:layers"]["layers"].strip()))


def _without_layer(root: Path) -> set[str]:
    """Root packages and children of `iota` below `root` that no layer names."""
    children = {p for p in (root / "iota").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    found = {f"iota.{p.stem}" for p in children if p.stem != "__init__"}
    return (found | set(PACKAGES[1:])) - _layers()


@pytest.fixture(scope="module")
def pierced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with every hole in it."""
    root = tmp_path_factory.mktemp("pierced")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", root)
    for name, line in HOLES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        text = path.read_text() if path.exists() else ""
        path.write_text(text.replace("from __future__ import annotations\n", "", 1) + line)
    return root


@pytest.fixture(scope="module")
def report(pierced: Path) -> str:
    """What the linter says of the copy, in one line."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--config", ".importlinter", "--no-cache"]
    done = subprocess.run(command, cwd=pierced, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return " ".join(done.stdout.split())


def test_the_orchestrator_and_the_codecs_load_no_torch() -> None:
    program = (
        "import importlib, pkgutil, sys, iota.codec, iota.model.layout, iota.objects, orchestrator\n"
        "for package in (iota.codec, orchestrator):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_module_has_a_layer() -> None:
    assert _without_layer(ROOT) == set()


def test_a_new_folder_without_a_layer_is_found(pierced: Path) -> None:
    assert _without_layer(pierced) == {"iota.simulator"}


@pytest.mark.parametrize(
    "forbidden",
    [
        "iota.doctor.finding -> miner.core.schedule",
        "iota.doctor.finding -> boto3",
        "iota.settings.env_example -> miner.core.schedule",
        "orchestrator.intake.validation -> time",
        "miner.core.epoch -> asyncio",
        "iota.simulator -> bittensor",
    ],
)
def test_a_forbidden_import_is_found(report: str, forbidden: str) -> None:
    assert f"- {forbidden} (l." in report
