"""The settings of one machine: `roles` declares them, other modules make flags and documentation from them.

`Settings.load` imports the modules that read variables and check values, so that a `--help` is fast.
"""

from iota.settings.declaration import Setting, Settings, own_settings, setting, settings_of
from iota.settings.kinds import ByteCount
from iota.settings.roles import (
    CHAIN,
    ROLES,
    WALLET,
    Activations,
    ChainSettings,
    MinerSettings,
    NodeSettings,
    OrchestratorSettings,
    StoreSettings,
    ValidatorSettings,
    WalletSettings,
    Ways,
)

__all__ = [
    "CHAIN",
    "ROLES",
    "WALLET",
    "Activations",
    "ByteCount",
    "ChainSettings",
    "MinerSettings",
    "NodeSettings",
    "OrchestratorSettings",
    "Setting",
    "Settings",
    "StoreSettings",
    "ValidatorSettings",
    "WalletSettings",
    "Ways",
    "own_settings",
    "setting",
    "settings_of",
]
