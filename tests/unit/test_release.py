"""`scripts/release` refuses what is no release, says why, and changes nothing in a dry run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATED = "# Changelog\n\n## 1.2.3 (2026-01-31)\n\n- New.\n"
STEPS = ["ensure_environment", ".ci/run", "build", "compare", "checksums", "deliver", "git tag"]


def git(checkout: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.invalid"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout


def release(checkout: Path, *arguments: str) -> tuple[int, str]:
    """Exit code, and what was said."""
    command = [checkout / "scripts" / "release", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose one commit can be released."""
    (tmp_path / "scripts").mkdir()
    for name in ("release", "environment.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "iota"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(DATED)
    (tmp_path / ".gitignore").write_text("/dist/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "All of it")
    return tmp_path


def test_a_dry_run_names_every_step_and_takes_none(checkout: Path) -> None:
    code, said = release(checkout, "--dry-run")
    assert code == 0, said
    steps = [line.removeprefix("+ ") for line in said.splitlines()]
    assert len(steps) == len(STEPS)
    assert all(step.startswith(name) for step, name in zip(steps, STEPS, strict=True))
    assert git(checkout, "tag", "--list") == ""
    assert not (checkout / "dist").exists()
    assert not (checkout / ".venv").exists()


def test_a_changed_tree_is_refused(checkout: Path) -> None:
    (checkout / "new.py").touch()
    assert release(checkout) == (2, "error: the tree has changes: commit them, or put them away\n")


@pytest.mark.parametrize(
    "changelog",
    [
        DATED.replace("2026-01-31", "unreleased"),
        DATED.replace("1.2.3", "1.2.2"),
        DATED.replace("1.2.3", "1x2x3"),
    ],
)
def test_a_version_without_a_dated_section_of_the_changelog_is_refused(
    checkout: Path, changelog: str
) -> None:
    (checkout / "CHANGELOG.md").write_text(changelog)
    git(checkout, "commit", "--all", "--quiet", "--message", "Another changelog")
    code, said = release(checkout)
    assert (code, said.partition(":")[0]) == (2, "error")
    assert "## 1.2.3 (YYYY-MM-DD)" in said


def test_a_version_that_has_a_tag_is_refused(checkout: Path) -> None:
    git(checkout, "tag", "v1.2.3")
    assert release(checkout) == (2, "error: the tag v1.2.3 exists: raise the version\n")


def test_an_earlier_build_is_not_overwritten(checkout: Path) -> None:
    (checkout / "dist").mkdir()
    (checkout / "dist" / "old.whl").touch()
    assert release(checkout) == (2, "error: dist/ is not empty: move an earlier build away\n")


def test_an_argument_that_there_is_not_is_refused(checkout: Path) -> None:
    assert release(checkout, "--dryrun") == (2, "error: usage: scripts/release [--dry-run]\n")
