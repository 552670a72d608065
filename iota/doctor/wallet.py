"""Facts about the key files of a node."""

from __future__ import annotations

from iota.doctor.facts import HotkeyState, WalletFiles
from iota.identity.coldkey import coldkey_address, coldkey_path
from iota.identity.keys import WalletLocked, WalletMissing, WalletUnreadable, hotkey_path, load_hotkey
from iota.settings import ChainSettings


def wallet_files(settings: ChainSettings) -> WalletFiles:
    """The key files of the settings' wallet; the coldkey's private file is not opened."""
    name, folder = settings.wallet_name, settings.wallet_path
    path = hotkey_path(name, settings.wallet_hotkey, folder)
    hotkey, state, complaint = None, HotkeyState.USABLE, ""
    try:
        hotkey = load_hotkey(name, settings.wallet_hotkey, folder).ss58
    except WalletMissing as error:
        state, complaint = HotkeyState.MISSING, str(error)
    except WalletLocked as error:
        state, complaint = HotkeyState.ENCRYPTED, str(error)
    except WalletUnreadable as error:
        state, complaint = HotkeyState.UNREADABLE, str(error)
    try:
        coldkey = coldkey_address(name, folder)
    except WalletUnreadable:
        coldkey = None  # the doctor needs it for the balance alone
    private = coldkey_path(name, folder)
    return WalletFiles(
        hotkey_path=path,
        state=state,
        complaint=complaint,
        hotkey=hotkey,
        mode=path.stat().st_mode & 0o777 if state is not HotkeyState.MISSING else 0,
        coldkey_path=private,
        coldkey_is_here=private.exists(),
        coldkey=coldkey,
    )
