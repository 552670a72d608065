"""Hotkeys: the standard layout on disk, signatures, and that nothing secret comes out."""

import copy
import json
import logging
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import bittensor_core  # type: ignore[import-untyped, unused-ignore]
import pytest

from iota.identity import keys, signatures
from iota.identity.keys import Hotkey, create_hotkey, load_hotkey
from iota.identity.signatures import signing_bytes, verify

HOTKEY = Hotkey.from_seed(b"\x01" * 32)
OTHER = Hotkey.from_seed(b"\x02" * 32)
MESSAGE = signing_bytes("receipt/1", b"payload")
SIGNATURE = HOTKEY.sign(MESSAGE)


def test_a_created_hotkey_loads_again_and_signs(tmp_path: Path) -> None:
    created = create_hotkey("w", "h", tmp_path)
    loaded = load_hotkey("w", "h", tmp_path)
    assert loaded.ss58 == created.ss58
    assert verify(MESSAGE, loaded.sign(MESSAGE), created.ss58)


def test_the_sdk_reads_the_wallet_that_we_create(tmp_path: Path) -> None:
    import bittensor

    created = create_hotkey("w", "h", tmp_path)
    wallet = bittensor.Wallet("w", "h", str(tmp_path))
    assert wallet.hotkey.ss58_address == created.ss58
    assert wallet.hotkeypub.ss58_address == created.ss58
    assert verify(MESSAGE, wallet.hotkey.sign(MESSAGE), created.ss58)


def test_we_read_the_wallet_that_the_sdk_creates(tmp_path: Path) -> None:
    import bittensor

    wallet = bittensor.Wallet("w", "h", str(tmp_path))
    wallet.create_new_hotkey(use_password=False, suppress=True)
    assert load_hotkey("w", "h", tmp_path).ss58 == wallet.hotkey.ss58_address


def test_key_file_and_folders_are_the_owners_alone(tmp_path: Path) -> None:
    create_hotkey("w", "h", tmp_path / "new" / "wallets")
    path = keys.hotkey_path("w", "h", tmp_path / "new" / "wallets")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(p.name for p in path.parent.iterdir()) == ["h", "hpub.txt"]


def test_a_hotkey_is_never_overwritten(tmp_path: Path) -> None:
    created = create_hotkey("w", "h", tmp_path)
    with pytest.raises(keys.WalletExists, match="never overwritten"):
        create_hotkey("w", "h", tmp_path)
    assert load_hotkey("w", "h", tmp_path).ss58 == created.ss58


def test_a_missing_wallet_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(keys.WalletMissing, match=r"iota wallet new --wallet.name w --wallet.hotkey h"):
        load_hotkey("w", "h", tmp_path)


def test_a_damaged_file_is_refused_without_quoting_it(tmp_path: Path) -> None:
    create_hotkey("w", "h", tmp_path)
    path = keys.hotkey_path("w", "h", tmp_path)
    secret = json.loads(path.read_text())["secretSeed"]
    path.write_text(path.read_text().replace("{", "[", 1))
    with pytest.raises(keys.WalletUnreadable) as caught:
        load_hotkey("w", "h", tmp_path)
    assert secret not in str(caught.value)


def test_a_public_only_file_is_no_hotkey(tmp_path: Path) -> None:
    create_hotkey("w", "h", tmp_path)
    path = keys.hotkey_path("w", "h", tmp_path)
    path.write_bytes(path.with_name("hpub.txt").read_bytes())
    with pytest.raises(keys.WalletUnreadable, match="no sr25519 private key"):
        load_hotkey("w", "h", tmp_path)


def test_an_ed25519_key_is_no_hotkey(tmp_path: Path) -> None:
    import bittensor

    wallet = bittensor.Wallet("w", "h", str(tmp_path))
    wallet.create_new_hotkey(use_password=False, suppress=True, crypto_type=bittensor_core.CRYPTO_ED25519)
    with pytest.raises(keys.WalletUnreadable):
        load_hotkey("w", "h", tmp_path)


def test_an_encrypted_hotkey_opens_with_its_password_only(tmp_path: Path) -> None:
    created = create_hotkey("w", "h", tmp_path)
    path = keys.hotkey_path("w", "h", tmp_path)
    path.write_bytes(bittensor_core.encrypt_keyfile_data(path.read_bytes(), "correct"))
    with pytest.raises(keys.WalletLocked, match="cannot ask"):
        load_hotkey("w", "h", tmp_path)
    with pytest.raises(keys.WalletLocked, match="does not open"):
        load_hotkey("w", "h", tmp_path, password="wrong")
    assert load_hotkey("w", "h", tmp_path, password="correct").ss58 == created.ss58


def test_loading_never_opens_the_coldkey(tmp_path: Path) -> None:
    create_hotkey("w", "h", tmp_path)
    (tmp_path / "w" / "coldkey").write_text("secret")
    # An audit hook cannot be taken out again, so it lives in a process of its own.
    code = (
        "import sys; from iota.identity.keys import load_hotkey; opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        f"load_hotkey('w', 'h', {str(tmp_path)!r}); print(*opened)"
    )
    opened = subprocess.run(
        [sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True
    ).stdout
    assert "hotkeys/h" in opened
    assert "coldkey" not in opened


def test_a_file_open_to_others_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_hotkey("w", "h", tmp_path)
    keys.hotkey_path("w", "h", tmp_path).chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_hotkey("w", "h", tmp_path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a\\b", "a\0b", ".hidden"])
def test_names_cannot_leave_the_wallets_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        load_hotkey(name, "h", tmp_path)
    with pytest.raises(ValueError, match="cannot name"):
        create_hotkey("w", name, tmp_path)


def test_text_forms_show_the_address_and_nothing_secret(tmp_path: Path) -> None:
    created = create_hotkey("w", "h", tmp_path)
    stored = json.loads(keys.hotkey_path("w", "h", tmp_path).read_text())
    text = f"{created!r} {created} {created.keypair!r}"
    assert created.ss58 in text
    for field in ("secretPhrase", "secretSeed", "privateKey"):
        assert stored[field].removeprefix("0x") not in text


def test_a_hotkey_can_be_neither_pickled_nor_copied() -> None:
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(HOTKEY)
    with pytest.raises(TypeError, match="copied"):
        copy.deepcopy(HOTKEY)


def test_a_signature_holds_for_its_message_and_key_only() -> None:
    assert len(SIGNATURE) == signatures.SIGNATURE_BYTES
    assert verify(MESSAGE, SIGNATURE, HOTKEY.ss58)
    assert not verify(MESSAGE + b".", SIGNATURE, HOTKEY.ss58)
    assert not verify(MESSAGE, SIGNATURE, OTHER.ss58)


def test_an_empty_signature_is_refused() -> None:
    assert not verify(MESSAGE, b"", HOTKEY.ss58)


@pytest.mark.parametrize(
    ("signature", "address"),
    [
        (SIGNATURE[:-1], HOTKEY.ss58),
        (SIGNATURE + b"\0", HOTKEY.ss58),
        (bytes(64), HOTKEY.ss58),
        ("00" * 32, HOTKEY.ss58),
        (None, HOTKEY.ss58),
        (SIGNATURE, ""),
        (SIGNATURE, "5"),
        (SIGNATURE, HOTKEY.ss58[:-1]),
        (SIGNATURE, HOTKEY.ss58 + " "),
        (SIGNATURE, "é" * 48),
        (SIGNATURE, "1" * 100_000),
        (SIGNATURE, None),
    ],
    ids=range(12),  # a signature differs from run to run, and a test's name may not
)
def test_malformed_input_is_false_and_raises_nothing(signature: bytes, address: str) -> None:
    assert verify(MESSAGE, signature, address) is False


def test_one_key_has_one_spelling() -> None:
    polkadot = bittensor_core.ss58_encode(HOTKEY.keypair.public_key, 0)
    assert bittensor_core.verify(MESSAGE, SIGNATURE, polkadot, bittensor_core.CRYPTO_SR25519)
    assert not verify(MESSAGE, SIGNATURE, polkadot)


def test_kinds_and_versions_are_separate_domains() -> None:
    assert signing_bytes("receipt/1", b"x") == b"iota/receipt/1\nx"
    for other in ("verdict/1", "receipt/2"):
        assert not verify(signing_bytes(other, b"payload"), SIGNATURE, HOTKEY.ss58)


@pytest.mark.parametrize(
    "domain",
    ["", "receipt", "receipt/", "receipt/0", "/1", "Receipt/1", "a/b", "a/1/1", "a\nb/1", "a/1\n", "é/1"],
)
def test_a_domain_is_one_kind_and_one_version(domain: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        signing_bytes(domain, b"")


def test_checking_signatures_does_not_import_the_whole_sdk() -> None:
    code = "import sys, iota.identity.keys; sys.exit('bittensor' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
