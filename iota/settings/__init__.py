"""The settings of one machine: `models` declares them, other modules make flags and documentation of them.

What reads variables and checks values is imported by `Settings.load` alone, so that a `--help` is fast.
"""

from iota.settings.declaration import Setting, Settings, own_settings, setting, settings_of
from iota.settings.kinds import ByteCount, HomePath, parse_bytes
from iota.settings.models import (
    CHAIN,
    ROLES,
    WALLET,
    ChainSettings,
    LogLevel,
    MinerSettings,
    NodeSettings,
    OrchestratorSettings,
    Recompute,
    StoreSettings,
    ValidatorSettings,
    WalletSettings,
)

__all__ = [
    "CHAIN",
    "ROLES",
    "WALLET",
    "ByteCount",
    "ChainSettings",
    "HomePath",
    "LogLevel",
    "MinerSettings",
    "NodeSettings",
    "OrchestratorSettings",
    "Recompute",
    "Setting",
    "Settings",
    "StoreSettings",
    "ValidatorSettings",
    "WalletSettings",
    "own_settings",
    "parse_bytes",
    "setting",
    "settings_of",
]
