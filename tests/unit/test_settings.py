"""Where a setting comes from, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iota.settings import Activations, MinerSettings, OrchestratorSettings, ValidatorSettings, WalletSettings
from iota.settings.environment import child_environment


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("IOTA_", "BT_")):
            monkeypatch.delenv(name)


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_NETUID", "11")
    assert MinerSettings.load(netuid=12).netuid == 12


def test_a_flag_that_was_not_given_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_NETUID", "11")
    assert MinerSettings.load(netuid=None).netuid == 11


def test_the_environment_wins_over_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("IOTA_NETUID=13\nIOTA_DEVICE=cuda:1\n")
    monkeypatch.setenv("IOTA_NETUID", "11")
    settings = MinerSettings.load()
    assert (settings.netuid, settings.device) == (11, "cuda:1")


def test_an_empty_variable_is_as_if_it_were_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_NETUID", "")
    assert MinerSettings.load().netuid == 9


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("BT_WALLET", "wallet_name"),
        ("BT_WALLET_HOTKEY", "wallet_hotkey"),
        ("BT_NETWORK", "network"),
        ("BT_CHAIN_ENDPOINT", "chain_endpoint"),
    ],
)
def test_operators_names_are_taken_and_iota_names_win(
    monkeypatch: pytest.MonkeyPatch, name: str, field: str
) -> None:
    monkeypatch.setenv(name, "theirs")
    assert getattr(MinerSettings.load(), field) == "theirs"
    monkeypatch.setenv(f"IOTA_{field.upper()}", "ours")
    assert getattr(MinerSettings.load(), field) == "ours"
    assert getattr(MinerSettings.load(**{field: "flag"}), field) == "flag"


def test_the_environment_wins_over_the_env_file_by_whichever_name(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("IOTA_WALLET_NAME=written\n")
    monkeypatch.setenv("BT_WALLET", "set")
    assert MinerSettings.load().wallet_name == "set"


def test_a_variable_is_the_same_in_upper_and_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("iota_netuid", "11")
    assert MinerSettings.load().netuid == 11


def test_only_the_variables_of_a_setting_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts set PORT and shells HOST: neither is a setting."""
    monkeypatch.setenv("PORT", "1234")
    monkeypatch.setenv("HOST", "elsewhere")
    settings = OrchestratorSettings.load()
    assert (settings.host, settings.port) == ("0.0.0.0", 8400)


def test_a_path_of_a_default_or_a_variable_is_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("IOTA_DATA_DIR", "~/data")
    settings = MinerSettings.load()
    assert settings.wallet_path == Path("/home/me/.bittensor/wallets")
    assert settings.data_dir == Path("/home/me/data")


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BT_WALLET_PASSWORD", "hidden words")
    settings = WalletSettings.load()
    assert settings.wallet_password == "hidden words"
    assert "hidden words" not in repr(settings)


def test_the_endpoint_goes_before_the_network() -> None:
    assert MinerSettings.load(network="test").chain == "test"
    assert MinerSettings.load(network="test", chain_endpoint="ws://127.0.0.1:9").chain == "ws://127.0.0.1:9"


def test_an_unknown_name_in_the_environment_is_refused_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IOTA_TREADS", "2")
    with pytest.raises(ValueError, match=r"the environment sets IOTA_TREADS.*did you mean IOTA_THREADS"):
        ValidatorSettings.load()


def test_an_unknown_name_in_the_env_file_is_refused() -> None:
    Path(".env").write_text("IOTA_MINER_DEVICES=cpu\n")
    with pytest.raises(ValueError, match=r"\.env sets IOTA_MINER_DEVICES"):
        OrchestratorSettings.load()


def test_the_scripts_variable_is_known_in_the_environment_and_refused_where_nothing_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IOTA_TORCH", "cu130")
    ValidatorSettings.load()
    Path(".env").write_text("IOTA_TORCH=cu130\n")
    with pytest.raises(
        ValueError, match=r"\.env sets IOTA_TORCH, which scripts/up reads from the environment alone"
    ):
        ValidatorSettings.load()


@pytest.mark.parametrize("line", ["IOTA_NETWORK", "=test", 'IOTA_NETWORK="test'])
def test_a_line_of_the_env_file_that_sets_nothing_is_refused(line: str) -> None:
    """Else the default would take its place: the main network."""
    Path(".env").write_text(f"# mine\n\n{line}\n")
    with pytest.raises(ValueError, match=r"line \d of \.env sets nothing: write NAME=value"):
        MinerSettings.load()


def test_another_roles_name_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_VALIDATOR_COMPUTE_SHARE", "0.5")
    MinerSettings.load()
    assert ValidatorSettings.load().compute_share == 0.5


def test_a_value_that_does_not_fit_names_flag_variable_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_VALIDATOR_COMPUTE_SHARE", "2")
    with pytest.raises(ValueError, match=r"--compute-share \(IOTA_VALIDATOR_COMPUTE_SHARE\).*'2'.*at most 1"):
        ValidatorSettings.load()


@pytest.mark.parametrize(("text", "size"), [("4GiB", 4 << 30), ("1.5 gb", 1_500_000_000), ("4096", 4096)])
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert MinerSettings.load(snapshot_bytes=text).snapshot_bytes == size


def test_an_activation_policy_is_chosen_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MinerSettings.load().activations is Activations.AUTO
    monkeypatch.setenv("IOTA_MINER_ACTIVATIONS", "offload")
    assert MinerSettings.load().activations is Activations.OFFLOAD
    with pytest.raises(ValueError, match=r"--activations .*'never'"):
        MinerSettings.load(activations="never")


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--snapshot-bytes .* write 500MB, 4GiB"):
        MinerSettings.load(snapshot_bytes="plenty")


def test_a_public_address_has_a_port() -> None:
    assert MinerSettings.load(listen="[::]:0").listen == "[::]:0"
    assert MinerSettings.load(public_address="[2001:db8::1]:8760").public_address == "[2001:db8::1]:8760"
    with pytest.raises(ValueError, match=r"--public-address .*its port is 0"):
        MinerSettings.load(public_address="203.0.113.7:0")
    with pytest.raises(ValueError, match=r"--public-address .*its port is missing"):
        MinerSettings.load(public_address="203.0.113.7")


@pytest.mark.parametrize("address", ["0.0.0.0:8760", "[::]:8760"])
def test_a_public_address_is_somewhere(address: str) -> None:
    with pytest.raises(ValueError, match=r"--public-address .*nobody is reached at"):
        MinerSettings.load(public_address=address)


@pytest.mark.parametrize("address", ["localhost:8760", "my.host:8760"])
def test_a_miner_listens_at_an_ip_address(address: str) -> None:
    with pytest.raises(ValueError, match=r"--listen .*no IP address"):
        MinerSettings.load(listen=address)


def test_a_childs_environment_bounds_its_threads() -> None:
    assert child_environment(3)["OMP_NUM_THREADS"] == "3"
    assert child_environment(3).items() >= {"PATH": os.environ["PATH"]}.items()


def test_settings_load_neither_torch_nor_the_chain() -> None:
    code = (
        "import sys; from iota.settings import MinerSettings; MinerSettings.load();"
        "print([m for m in ('torch', 'bittensor', 'boto3') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
