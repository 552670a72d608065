"""What `deploy/` starts exists: every command line, setting, path and health check is one of ours."""

from __future__ import annotations

import asyncio
import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from dotenv import dotenv_values

from iota.console.command import USER_ERROR
from iota.settings import (
    ChainSettings,
    MinerSettings,
    OrchestratorSettings,
    Settings,
    StoreSettings,
    ValidatorSettings,
    settings_of,
)
from iota.settings.environment import PREFIX, SCRIPTS_VARIABLE, known_names
from iota.store.embedded_server import make_app
from tests.support.command_lines import reached
from tests.support.orchestrators import orchestrator
from tests.support.store_servers import SECRET, serving

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SETTINGS: dict[str, type[Settings]] = {
    "miner": MinerSettings,
    "validator": ValidatorSettings,
    "orchestrator": OrchestratorSettings,
    "store": StoreSettings,
}
ROLES = sorted(SETTINGS)
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())


class Unit(configparser.RawConfigParser):
    """A systemd unit, whose names may repeat and keep their case."""

    def __init__(self, role: str) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#", ";"))
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.read(DEPLOY / "systemd" / f"iota-{role}.service")


def environment(role: str) -> dict[str, str]:
    return {k: v or "" for k, v in dotenv_values(DEPLOY / "env" / f"{role}.env").items()}


@pytest.fixture
def only_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's settings."""
    for name in known_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "line",
    [["iota-miner", "start", "--datadir", "x"], ["iota-miner", "strat"], ["iota", "store", "serves"]],
    ids=" ".join,
)
def test_a_command_line_that_is_none_of_ours_reaches_nothing(line: list[str]) -> None:
    assert reached(line) is None


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_starts_one_of_our_commands(role: str) -> None:
    program, *arguments = Unit(role)["Service"]["ExecStart"].split()
    folder, _, name = program.rpartition("/")
    assert folder == "/opt/iota/.venv/bin"
    assert reached([name, *arguments]) == " ".join(COMPOSE["services"][role]["command"])


@pytest.mark.parametrize("role", ROLES)
def test_a_service_starts_one_of_our_commands(role: str) -> None:
    command = COMPOSE["services"][role]["command"]
    assert reached(command) == " ".join(command)


def test_there_is_a_unit_a_service_and_a_file_of_settings_for_each_role() -> None:
    assert sorted(COMPOSE["services"]) == ROLES
    assert sorted(p.stem for p in (DEPLOY / "env").iterdir()) == ROLES
    assert sorted(p.stem.removeprefix("iota-") for p in (DEPLOY / "systemd").iterdir()) == ROLES


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.usefixtures("only_the_file")
def test_a_file_of_settings_is_understood_whole(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = environment(role)
    own = {name for s in settings_of(SETTINGS[role]) for name in s.variables}
    assert written
    assert {name for name in written if name not in own} == set(), "a setting of another role"
    for name, value in written.items():
        monkeypatch.setenv(name, value)
    loaded = SETTINGS[role].load()
    if isinstance(loaded, ChainSettings):
        assert loaded.network == "finney"
    assert "~" not in str(loaded), "systemd and Docker start a node with another home folder"


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_and_a_service_set_no_name_that_we_do_not_know(role: str) -> None:
    inline = [
        line.partition("=")[0] for line in re.findall(r"^Environment=(.*)$", unit_text(role), re.MULTILINE)
    ]
    for name in [*inline, *COMPOSE["services"][role].get("environment", {})]:
        assert not name.startswith(PREFIX) or name in known_names()


def unit_text(role: str) -> str:
    return (DEPLOY / "systemd" / f"iota-{role}.service").read_text()


def test_every_setting_that_the_docs_name_exists() -> None:
    for page in [
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "README.md",
        *sorted((DEPLOY / "env").iterdir()),
    ]:
        named = set(re.findall(r"\bIOTA_[A-Z_]+[A-Z]\b", page.read_text())) - {SCRIPTS_VARIABLE}
        assert named - known_names() == set(), page.name


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_may_write_its_own_folder_and_no_other(role: str) -> None:
    service = Unit(role)["Service"]
    folder = f"/var/lib/iota/{role}"
    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == folder
    assert service["EnvironmentFile"] == f"/etc/iota/{role}/.env"
    assert service["WorkingDirectory"] == f"/etc/iota/{role}"
    for name in ("IOTA_DATA_DIR", "IOTA_ORCHESTRATOR_JOURNAL", "IOTA_STORE_ROOT"):
        if name in environment(role):
            assert environment(role)[name].startswith(folder)
    if "BITTENSOR" in unit_text(role):
        assert f"BITTENSOR_RUNTIME_CACHE_DIR={folder}/" in service["Environment"]


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_tries_again_at_a_bounded_rate_and_stops_in_order(role: str) -> None:
    unit = Unit(role)
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["RestartSec"]) >= 30
    assert int(unit["Unit"]["StartLimitBurst"]) > 0
    assert unit["Unit"]["StartLimitIntervalSec"] == "1d"
    assert unit["Service"]["RestartPreventExitStatus"] == str(USER_ERROR)
    for name in ("Wants", "After"):
        assert {"network-online.target", "time-sync.target"} <= set(unit["Unit"][name].split())
    assert "KillSignal" not in unit["Service"], "SIGTERM is what our commands stop by"


def test_the_gpu_is_hidden_from_no_miner() -> None:
    miner = Unit("miner")["Service"]
    for name in ("PrivateDevices", "DevicePolicy", "MemoryDenyWriteExecute", "SystemCallFilter"):
        assert name not in miner
    (device,) = COMPOSE["services"]["miner"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@pytest.mark.parametrize("role", ROLES)
def test_a_container_gets_its_hotkey_file_alone_and_cannot_write_it(role: str) -> None:
    service, written = COMPOSE["services"][role], environment(role)
    mounts = {mount["source"]: mount for mount in service["volumes"]}
    assert all(mount["source"] == mount["target"] for mount in mounts.values())
    wallets = {source for source in mounts if "wallets" in source}
    if role == "store":
        assert wallets == set()
    else:
        path, name = written["IOTA_WALLET_PATH"], written["IOTA_WALLET_NAME"]
        assert wallets == {f"{path}/{name}/hotkeys/{written['IOTA_WALLET_HOTKEY']}"}
    writable = {source for source, mount in mounts.items() if not mount.get("read_only")}
    assert writable == {f"/var/lib/iota/{role}"}
    assert service["env_file"] == f"/etc/iota/{role}/.env"


@pytest.mark.parametrize("role", ROLES)
def test_every_path_in_the_settings_is_in_the_container(role: str) -> None:
    mounted = [mount["target"] for mount in COMPOSE["services"][role]["volumes"]]
    for name, value in environment(role).items():
        if value.startswith("/") and name != "IOTA_WALLET_PATH":
            assert any(value == target or value.startswith(f"{target}/") for target in mounted), name


@pytest.mark.parametrize("role", ROLES)
def test_no_container_runs_as_root_or_can_become_it(role: str) -> None:
    service = COMPOSE["services"][role]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"USER {service['user']}\n" in dockerfile
    assert f"--uid {service['user'].partition(':')[0]} " in dockerfile


async def test_the_stores_health_check_tells_a_store_that_answers_from_none(tmp_path: Path) -> None:
    async with serving(make_app(tmp_path, SECRET)) as url:
        assert await health("store", url) == 0
    assert await health("store", url) != 0


async def test_the_orchestrators_health_check_tells_one_that_answers_from_none(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "journal.db") as running:
        assert await health("orchestrator", running.url) == 0
    assert await health("orchestrator", running.url) != 0


async def health(role: str, url: str) -> int:
    """The exit code of a service's health check, asked of the server at `url`."""
    kind, program, *arguments = COMPOSE["services"][role]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    port = environment(role)[f"IOTA_{role.upper()}_PORT"]
    asked = [argument.replace(f"http://127.0.0.1:{port}", url) for argument in arguments]
    assert asked != arguments, "it asks the port that the settings give"
    process = await asyncio.create_subprocess_exec(sys.executable, *asked, stderr=subprocess.DEVNULL)
    return await process.wait()


def test_the_image_holds_what_is_pinned_and_nothing_else() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    (torch,) = re.findall(r"pip install (torch==\S+)\+\$\{IOTA_TORCH\} --constraint", dockerfile)
    assert torch in pins
    (build,) = re.findall(r"^ARG IOTA_TORCH=(\S+)$", dockerfile, re.MULTILINE)
    assert COMPOSE["x-node"]["build"]["args"] == {"IOTA_TORCH": f"${{IOTA_TORCH:-{build}}}"}
    assert dockerfile.index(torch) < dockerfile.index("pip install . --constraint")
    copied = {
        name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()
    }
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert allowed[0] == "*"
    assert {line[1:] for line in allowed if line.startswith("!")} == copied
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert {name.rstrip("*") for name in packages["include"]} < copied
    assert all((ROOT / name).exists() for name in copied)


def test_min_compute_has_every_row_for_each_role() -> None:
    found = yaml.safe_load((ROOT / "min_compute.yml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert found["version"] == version
    assert set(found["compute_spec"]) == {"miner", "validator", "orchestrator"}
    for role, rows in found["compute_spec"].items():
        assert set(rows) == {"cpu", "gpu", "memory", "storage", "os"}, role
        assert rows["cpu"]["recommended_cores"] >= rows["cpu"]["min_cores"] > 0
        assert rows["memory"]["recommended_ram"] >= rows["memory"]["min_ram"] > 0
        assert rows["storage"]["recommended_space"] >= rows["storage"]["min_space"] > 0
        assert isinstance(rows["gpu"]["required"], bool)
    assert set(found["network_spec"]["bandwidth"]) == {"download", "upload"}
