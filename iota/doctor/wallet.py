"""Facts about the key files of a node."""

from __future__ import annotations

from iota.doctor.facts import HotkeyState, WalletFiles
from iota.identity.coldkey import coldkey_address, coldkey_path
from iota.identity.keys import WalletLocked, WalletMissing, WalletUnreadable, hotkey_path, load_hotkey
from iota.identity.worker_file import WorkerFileError, load_worker
from iota.settings import ChainSettings, MinerSettings


def wallet_files(settings: ChainSettings) -> WalletFiles:
    """The key files of the settings' wallet; the coldkey's private file is not opened."""
    name, folder = settings.wallet_name, settings.wallet_path
    worker = settings.worker if isinstance(settings, MinerSettings) else None
    path = worker or hotkey_path(name, settings.wallet_hotkey, folder)
    hotkey, certificate, state, complaint = None, None, HotkeyState.USABLE, ""
    try:
        if worker is not None:
            certificate = load_worker(worker).certificate
            hotkey = certificate.owner
        else:
            hotkey = load_hotkey(name, settings.wallet_hotkey, folder).ss58
    except WalletMissing as error:
        state, complaint = HotkeyState.MISSING, str(error)
    except WalletLocked as error:
        state, complaint = HotkeyState.ENCRYPTED, str(error)
    except WalletUnreadable as error:
        state, complaint = HotkeyState.UNREADABLE, str(error)
    except WorkerFileError as error:
        state, complaint = HotkeyState.NO_WORKER, str(error)
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
        mode=path.stat().st_mode & 0o777 if path.exists() else 0,
        coldkey_path=private,
        coldkey_is_here=private.exists(),
        coldkey=coldkey,
        certificate=certificate,
    )
