"""What people and other programs write is taken whole, or refused in one sentence that says what to write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from iota.chain.ledger.client import LedgerChain
from iota.console.command_flags import command_line
from iota.identity.keys import WalletMissing, load_hotkey
from iota.settings import MinerSettings, NodeSettings, OrchestratorSettings, StoreSettings, WalletSettings
from iota.settings.spec_file import read_spec
from iota.store import open_store
from iota.swarm.command import run_up
from iota.swarm.options import UpOptions

KUBERNETES = {
    "IOTA_STORE_SERVICE_HOST": "10.0.0.1",
    "IOTA_STORE_SERVICE_PORT": "9000",
    "IOTA_STORE_SERVICE_PORT_HTTP": "9000",
    "IOTA_STORE_PORT": "tcp://10.0.0.1:9000",
    "IOTA_STORE_PORT_9000_TCP": "tcp://10.0.0.1:9000",
    "IOTA_STORE_PORT_9000_TCP_PROTO": "tcp",
    "IOTA_STORE_PORT_9000_TCP_PORT": "9000",
    "IOTA_STORE_PORT_9000_TCP_ADDR": "10.0.0.1",
    "IOTA_ORCHESTRATOR_PORT": "tcp://10.0.0.2:8400",
    "IOTA_LEDGER_PORT_9944_UDP_ADDR": "10.0.0.3",
    "IOTA_PORT": "tcp://10.0.0.4:1",
    "IOTA_SERVICE_HOST": "10.0.0.4",
}


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("IOTA_", "BT_")):
            monkeypatch.delenv(name)


# ---- variables --------------------------------------------------------------------------------------


def test_the_variables_of_kubernetes_services_are_nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert StoreSettings.load().port == 8701
    assert OrchestratorSettings.load().port == 8400


def test_a_port_of_our_own_still_counts_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_STORE_PORT", "9001")
    monkeypatch.setenv("IOTA_STORE_SERVICE_HOST", "10.0.0.1")
    assert StoreSettings.load().port == 9001


@pytest.mark.parametrize("name", ["IOTA_STORE_PROT", "IOTA_STORE_SERVICE", "IOTA_STORE_PORT_NUMBER"])
def test_a_name_that_only_looks_like_theirs_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ValueError, match=f"{name}.* did you mean IOTA_"):
        StoreSettings.load()


@pytest.mark.parametrize("text", ["", "   ", "\r"])
def test_a_variable_of_nothing_but_white_space_is_not_set(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_NETUID", text)
    assert MinerSettings.load().netuid == 9


def test_white_space_around_a_value_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTA_WALLET_NAME", "my wallet \r")
    monkeypatch.setenv("IOTA_WALLET_PASSWORD", " of words ")
    settings = WalletSettings.load()
    assert (settings.wallet_name, settings.wallet_password) == ("my wallet", " of words ")


@pytest.mark.parametrize(
    "content",
    [
        b"IOTA_NETUID=11\r\nIOTA_WALLET_NAME=mine\r\n",
        b"\xef\xbb\xbfIOTA_NETUID=11\nIOTA_WALLET_NAME=mine\n",
        b"export IOTA_NETUID=\"11\"\nexport IOTA_WALLET_NAME='mine'\n",
    ],
    ids=["CRLF", "BOM", "shell"],
)
def test_a_file_of_variables_is_read_as_people_save_it(content: bytes) -> None:
    Path(".env").write_bytes(content)
    settings = MinerSettings.load()
    assert (settings.netuid, settings.wallet_name) == (11, "mine")


def test_a_file_of_variables_in_another_encoding_is_said() -> None:
    Path(".env").write_bytes("IOTA_NETUID=11\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"\.env is not UTF-8"):
        MinerSettings.load()


# ---- URLs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://10.0.0.1:8400 ", "http://10.0.0.1:8400"),
        ("\n https://run.example/\n", "https://run.example"),
        ("HTTP://Run.Example:8400", "http://run.example:8400"),
        ("http://[::1]:8400", "http://[::1]:8400"),
        ("https://run.example/a/b/", "https://run.example/a/b"),
    ],
)
def test_a_url_is_taken_as_people_paste_it(text: str, url: str) -> None:
    assert NodeSettings.of(orchestrator=text).orchestrator == url
    assert OrchestratorSettings.of(store_public_url=text).store_public_url == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.1:8400", "scheme"),
        ("run.example", "no scheme"),
        ("ftp://run.example", "none of http, https"),
        ("http://me:secret@run.example", "user or password"),
        ("http://run.example?x=1", r"'\?' or '#'"),
        ("http://run.example:0", "port"),
        ("http://run.example:99999", "port"),
        ("http://run.example:port", "port"),
        ("http://[::1", "host or port"),
        ("http://[1:2]:80", "host or port"),
        ("http://", "host or port"),
        ("http://run example", "white space"),
        ("", "no scheme"),
    ],
)
def test_a_url_that_is_none_is_refused_with_what_to_write(text: str, why: str) -> None:
    with pytest.raises(
        ValueError, match=rf"--orchestrator \(IOTA_ORCHESTRATOR\).*{why}.*give http://HOST:PORT"
    ):
        NodeSettings.of(orchestrator=text)


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        (" finney\n", "finney"),
        ("WSS://node.example/v1/Key ", "wss://node.example/v1/Key"),
        ("http://127.0.0.1:9944/", "http://127.0.0.1:9944/"),
    ],
)
def test_a_chain_is_a_name_or_a_url(text: str, chain: str) -> None:
    assert NodeSettings.of(network=text).chain == chain
    assert NodeSettings.of(chain_endpoint=text).chain == chain


@pytest.mark.parametrize("text", ["127.0.0.1:9944", "wss//node.example", "ws://node.example:0"])
def test_a_chain_that_looks_like_a_url_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--network .*give finney"):
        NodeSettings.of(network=text)


def test_a_store_is_an_embedded_one_or_a_bucket() -> None:
    assert OrchestratorSettings.of(store=" S3://bucket/a?region=b ").store == "s3://bucket/a?region=b"
    with pytest.raises(ValueError, match=r"--store .*s3://BUCKET/PREFIX"):
        OrchestratorSettings.of(store="bucket/prefix")


# ---- numbers and paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MinerSettings, UpOptions])
def test_more_threads_than_cores_can_carry_are_refused_with_the_number_of_cores(kind: type) -> None:
    with pytest.raises(ValueError, match=f"--threads.* has {os.cpu_count()} cores"):
        kind.of(threads=1000)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"--threads.*at least 1"):
        kind.of(threads=-1)  # type: ignore[attr-defined]


def test_a_data_folder_that_is_a_file_is_refused_by_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"--data-dir \(IOTA_DATA_DIR\) cannot be '/.* is a file"):
            MinerSettings.of(data_dir=place)
    with pytest.raises(ValueError, match=r"--root .*give a folder"):
        StoreSettings.of(root=tmp_path / "file")


def test_a_summary_that_could_not_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    command = UpOptions.of(run_dir=tmp_path / "run", summary=tmp_path / "nowhere" / "summary.json")
    with pytest.raises(ValueError, match=r"--summary .*nowhere does not exist"):
        run_up(command, {})
    assert not (tmp_path / "run").exists()


def test_a_path_with_a_tilde_is_below_home_in_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert OrchestratorSettings.of(spec="~/spec.json").spec == Path("/home/me/spec.json")
    assert StoreSettings.of(root="~/objects").root == Path("/home/me/objects")


# ---- sentences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "it is not JSON"),
        ('{"version": 6}', "it is missing"),
        ("[1]", r"it must be a group of fields, not \[1\]"),
    ],
)
def test_a_wrong_file_is_said_in_words(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        read_spec(tmp_path / "spec.json")
    for word in ("the whole", "Input should", "Field required", "Invalid JSON"):
        assert word not in str(caught.value)


def test_a_missing_secret_names_its_flag() -> None:
    with pytest.raises(ValueError, match="--store-secret-file"):
        open_store("http://127.0.0.1:8701")


# ---- suggested commands ---------------------------------------------------------------------------------


def test_a_suggested_command_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "my wallets"
    with pytest.raises(WalletMissing) as caught:
        load_hotkey("my wallet", "it's", folder)
    command = str(caught.value).split("`")[1]
    done = subprocess.run(
        ["sh", "-c", command.replace("iota wallet", f"{sys.executable} -m iota.cli.main wallet", 1)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_hotkey("my wallet", "it's", folder).ss58 == done.stdout.strip()


def test_what_needs_no_quotes_has_none() -> None:
    assert command_line("iota up --run-dir", Path("runs/1")) == "iota up --run-dir runs/1"
    assert command_line("iota up --run-dir", Path("my runs")) == "iota up --run-dir 'my runs'"


# ---- systemd-like surroundings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["iota.cli.main", "wallet", "new", "--wallet.path", "keys"], 0),
        (["iota.cli.main", "wallet", "new"], 2),
        (["miner.cli", "start"], 2),
        (["iota.cli.main", "spec", "--help"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_commands_work_or_say_a_sentence_without_a_home_and_with_closed_streams(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "USERPROFILE")}
    # Stands for a user that the machine's list of users does not have, as in a container.
    script = (
        "import pwd, runpy, sys; pwd.getpwuid = {}.__getitem__; sys.argv = sys.argv[1:];"
        "runpy.run_module(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>error', "sh", sys.executable, "-c", script, *arguments],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    said = (tmp_path / "error").read_text()
    assert done.returncode == code, said
    assert "Traceback" not in said
    if code == 2:
        assert "no home folder" in said


def test_a_failure_with_every_stream_closed_is_an_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "iota.cli.main", "wallet", "show",
         "--wallet.path", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, cwd=tmp_path, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2


def test_a_ledgers_url_may_have_a_slash_at_its_end() -> None:
    LedgerChain(NodeSettings.of(network=" http://127.0.0.1:9944/ ").chain)
