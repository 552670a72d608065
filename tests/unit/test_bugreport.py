"""`iota bugreport`: one file with what a helper needs, and not one secret in it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from iota.cli.main import main
from iota.console.redactor import REMOVED, Redactor
from iota.identity.keys import create_hotkey
from iota.swarm.run_dir import write_json

MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"
SECRETS = {
    "store's secret": "5ec7e7" * 10 + "abcd",
    "mnemonic": MNEMONIC,
    "seed": "0x" + "9f" * 32,
    "signature": "e" * 128,
    "presigned embedded": "sig=0a1b2c3d4e5f",
    "presigned S3": "X-Amz-Signature=deadbeefdeadbeef",
    "S3 credential": "AKIAIOSFODNN7EXAMPLE",
    "password in a URL": "hunter2hunter2",
    "token in a query": "tok-1234567890",
    "token in a path": "Zx81kQ9aPq7RtY3mNb5vLw2s",
    "key of a chain node": "node-key-4711",
    "Hub token": "hf_abcdefghijklmnopqrstuv",
    "bearer": "eyJhbGciOiJIUzI1NiJ9.e30.abc",
    "variable": "correct-horse-battery",
    "aws secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
}
LOG = f"""\
2026-01-01 INFO miner.run: started with {MNEMONIC}
GET http://store:8701/run/frames/0?{SECRETS["presigned embedded"]}&expires=9
PUT https://bucket.s3.amazonaws.com/run/x?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2Fx&{SECRETS["presigned S3"]}
aws_secret_access_key = {SECRETS["aws secret"]}
wss://user:{SECRETS["password in a URL"]}@node.example:443/{SECRETS["key of a chain node"]}
http://api.example/v1?token={SECRETS["token in a query"]} https://rpc.example/v2/{SECRETS["token in a path"]}/
Authorization: Bearer {SECRETS["bearer"]}
HF_TOKEN={SECRETS["Hub token"]} seed {SECRETS["seed"]} X-Iota-Signature {SECRETS["signature"]}
the store signs with {SECRETS["store's secret"]} and the variable was {SECRETS["variable"]}
RuntimeError: CUDA error: no such device
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder whose logs hold everything that no log should."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BT_WALLET_PASSWORD", SECRETS["variable"])
    root = tmp_path / "run"
    hotkey = create_hotkey("swarm", "miner-00", root / "wallets")
    key = json.loads((root / "wallets/swarm/hotkeys/miner-00").read_text())
    (root / "logs").mkdir()
    told = " ".join(str(value) for name, value in key.items() if name.startswith(("secret", "private")))
    (root / "logs" / "miner-00.log").write_text(f"{LOG}my key: {told}\n")
    (root / "secret").write_text(SECRETS["store's secret"])
    write_json(root / "run.json", {
        "url": "http://127.0.0.1:1", "ledger": "http://127.0.0.1:1", "hotkeys": {"miner-00": hotkey.ss58},
        "run": "ab" * 32,
    })  # fmt: skip
    return root


def written(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["bugreport", "--out", "r.tar.gz", *map(str, arguments)])
    assert ended.value.code == 0, capsys.readouterr().err
    assert Path("r.tar.gz").stat().st_mode & 0o777 == 0o600
    with tarfile.open(fileobj=io.BytesIO(Path("r.tar.gz").read_bytes())) as tar:
        return {
            member.name.removeprefix("iota-bugreport/"): file.read().decode()
            for member in tar
            if (file := tar.extractfile(member)) is not None
        }


def test_a_report_holds_what_helps_and_no_secret(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    texts = written(capsys, "--run-dir", run)
    whole = "\n".join(texts.values())
    for name, secret in SECRETS.items():
        assert secret not in whole, name
    key = json.loads((run / "wallets/swarm/hotkeys/miner-00").read_text())
    for name, value in key.items():
        if name.startswith(("secret", "private")):
            assert str(value).removeprefix("0x") not in whole, name
    for kept in ("torch", "wallet_hotkey: miner-00", "RuntimeError: CUDA error: no such device", "ab" * 32,
                 "problem  orchestrator", "hotkey"):  # fmt: skip
        assert kept in whole
    said = capsys.readouterr().out
    assert "run/logs/miner-00.log" in said
    assert "Nothing was sent" in said


def test_without_a_run_s_folder_it_says_how_to_add_a_service_s_log(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    node = ["--orchestrator", "http://127.0.0.1:1", "--network", "http://127.0.0.1:1"]
    wallet = ["--wallet.path", str(run / "wallets"), "--wallet.name", "swarm", "--wallet.hotkey", "miner-00"]
    written(capsys, *node, *wallet)
    assert "journalctl -u iota-miner" in capsys.readouterr().out
    Path("r.tar.gz").unlink()
    texts = written(capsys, *node, *wallet, "--log", run / "logs" / "miner-00.log")
    assert "CUDA error" in texts["logs/0-miner-00.log"]


def test_a_report_overwrites_nothing(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    Path("r.tar.gz").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["bugreport", "--out", "r.tar.gz", "--run-dir", str(run)])
    assert ended.value.code == 2
    assert Path("r.tar.gz").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "epoch 1 step 4/20, stage 2: loss 3.0000, 2,000 tokens/s, waiting 20%",
        '{"tokens": 6144, "tokens_per_second": 733.0, "seed": 0}',
        f"http://127.0.0.1:8701/{'ab' * 32}/frames/0/3/1.0/1.f",
        "made from the seed: the base of epoch 0 is on disk",
        "5FpiJkXR9ysMRvtt3mZE41ox5sbS5L9x4pfK5jg3gzfigUKo is lost: it was silent for too long",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor()(text) == text
    assert REMOVED not in Redactor(["abc"])("abc")


@pytest.mark.parametrize(
    "text",
    [
        "ALL_PROXY=socks5://me:hunter2hunter2@proxy:1080",
        "--store s3://KEY:hunter2hunter2@bucket/prefix",
        "-----BEGIN PRIVATE KEY-----\nhunter2hunter2\n-----END PRIVATE KEY-----",
    ],
)
def test_passwords_of_any_url_and_keys_in_pem_are_removed(text: str) -> None:
    assert "hunter2" not in Redactor()(text)
